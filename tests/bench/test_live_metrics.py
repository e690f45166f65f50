"""Live metrics of a running benchmark, read as Prometheus reads them."""

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import DYNO
from llmdyno.processes.ports import free_port

Dyno = Callable[..., subprocess.CompletedProcess[str]]
Streamer = Callable[..., str]


def scraped(port: int) -> dict[tuple[str, str], float]:
    """Return the values by (name, level), or nothing when nobody answers, yet or any more."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            text = response.read().decode()
    except OSError:
        return {}
    return {
        (sample.name, sample.labels["level"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_running_benchmark_can_be_watched(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "50ms", "--itl", "5ms")
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [
            *(*DYNO, "bench", "--url", url, "-c", "2,4", "--ramp", "0s", "--duration", "3s"),
            *("--osl", "8", "--no-calibration", "--metrics-port", str(port)),
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    pages = []
    deadline_s = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < deadline_s
        pages.append(scraped(port))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    pages = [page for page in pages if ("llmdyno_bench_users", "1") in page]

    completed = [page["llmdyno_bench_completed_total", "1"] for page in pages]
    assert completed == sorted(completed)
    assert completed[-1] > completed[0]
    last = pages[-1]
    assert last["llmdyno_bench_completed_total", "0"] > 10  # the level before is still there
    assert last["llmdyno_bench_tokens_total", "0"] == pytest.approx(
        8 * last["llmdyno_bench_completed_total", "0"]
    )
    assert any(page["llmdyno_bench_in_flight", "1"] > 0 for page in pages)
    assert 0.04 < last["llmdyno_bench_ttft_last_p50_seconds", "0"] < 0.5


def test_a_port_that_cannot_be_had_is_said_and_nothing_starts(dyno: Dyno, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = dyno("bench", "--url", "http://127.0.0.1:9", "--metrics-port", str(port))

    assert done.returncode == 2, done.stderr
    assert f"--metrics-port {port}: cannot be listened on" in done.stderr
    assert not list(tmp_path.iterdir())
