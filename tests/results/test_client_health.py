"""Is the number true? A client starved on purpose, one on a busy machine, and the calibration."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DYNO, last_json
from llmdyno.records.columns import Collector, Columns
from llmdyno.records.entries import Record, Tick
from llmdyno.results.client_health import client_part, lateness

Dyno = Callable[..., subprocess.CompletedProcess[str]]
Streamer = Callable[..., str]
PERIOD_S = 0.02


def ticks(lags_ms: list[float], *, cpu_share: float = 0.2) -> list[Tick]:
    """Return a tick a second, fifty lags in each."""
    return [
        Tick(
            level=0,
            t_ns=(number + 1) * 10**9,
            users=1,
            in_flight=1,
            cpu_s=(number + 1) * cpu_share,
            loop_lags_us=tuple(round(lag * 1e3) for lag in lags_ms[start : start + 50]),
        )
        for number, start in enumerate(range(0, len(lags_ms), 50))
    ]


def columns(tokens: tuple[int, ...] = (1,) * 50) -> Columns:
    """Return one request of so many reads, 20 ms apart."""
    collector = Collector()
    collector.add(
        Record(
            level=0,
            request=0,
            user=0,
            prompt=0,
            due_ns=0,
            sent_ns=0,
            end_ns=10**9,
            outcome="completed",
            gaps_ns=(100_000_000, *(20_000_000,) * (len(tokens) - 1)),
            tokens=tokens,
            output_tokens=sum(tokens),
            reads=len(tokens),
        )
    )
    return collector.columns()


def verdict(
    lags_ms: list[float],
    *,
    ttft_ms: float = 100.0,
    itl_ms: float = 20.0,
    tokens: tuple[int, ...] = (1,) * 50,
    cpu_share: float = 0.2,
    events_per_s_max: float | None = 50_000.0,
    more: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    measured = {
        "ttft_ms": {"p50": ttft_ms, "p99": 1.3 * ttft_ms},
        "itl_ms": {"p50": itl_ms, "p99": 1.5 * itl_ms},
        "tpot_ms": {"p50": itl_ms, "p99": 1.2 * itl_ms},
        "e2e_ms": {"p50": ttft_ms + 50 * itl_ms, "p99": 1.3 * ttft_ms + 60 * itl_ms},
        "token_rate": {"mean": 1.0},
        "request_rate": {"mean": 1.0},
        "goodput": None,
        **(more or {}),
    }
    return client_part(
        columns(tokens),
        ticks(lags_ms, cpu_share=cpu_share),
        measured,
        duration_s=len(lags_ms) / 50,
        lag_period_s=PERIOD_S,
        events_per_s_max=events_per_s_max,
    )


# How late

QUIET = [0.2] * 1000
# As sampled on two cores with two and with four other processes that never sleep (dev/LOG.md).
BUSY = ([0.2] * 24 + [4.0] * 25 + [12.0]) * 20


def test_one_long_stall_is_seen_though_it_is_one_sample_of_many() -> None:
    found = lateness(ticks([0.2] * 499 + [400.0]), PERIOD_S)

    assert found.lag_p99 == pytest.approx(0.2)
    # Of 10.4 s, 1 % was spent more than 296 ms before the end of the stall of 400 ms.
    assert found.p99 == pytest.approx(400 - 0.01 * 10_500, rel=0.03)
    assert found.p50 == pytest.approx(0.2)


def test_lateness_is_that_of_a_simulated_arrival_at_any_moment() -> None:
    """Arrivals at random moments of a loop that stalls: the formula against counting."""
    rng = np.random.default_rng(5)
    lags_ms = np.where(rng.random(4000) < 0.03, rng.uniform(20, 120, 4000), 0.0)
    ends_ms = np.cumsum(lags_ms + PERIOD_S * 1e3)
    moments_ms = rng.uniform(0, ends_ms[-1], 200_000)
    loop = np.searchsorted(ends_ms, moments_ms)
    waited_ms = np.minimum(ends_ms[loop] - moments_ms, lags_ms[loop])
    # The stall is the last part of each turn: what came before it was seen at once.
    waited_ms = np.where(ends_ms[loop] - moments_ms <= lags_ms[loop], waited_ms, 0.0)

    found = lateness(ticks(list(lags_ms)), PERIOD_S)

    assert found.p99 == pytest.approx(float(np.quantile(waited_ms, 0.99)), rel=0.05)


def test_no_samples_are_no_lateness() -> None:
    assert lateness([], PERIOD_S).p99 == 0.0


# What it spoils


@pytest.mark.parametrize("lags_ms", [QUIET, BUSY])
def test_a_busy_machine_is_not_cried_wolf_at(lags_ms: list[float]) -> None:
    client, doubtful = verdict(lags_ms)

    assert (client["verdict"], client["reasons"], doubtful) == ("valid", [], [])


def test_a_schedule_delay_is_no_reason_to_doubt_the_client() -> None:
    """Where no slot is waited for it is the client's own lateness, which is not held against it."""
    late = {"schedule_delay_ms": {"p50": 1.1, "p99": 4.3}}

    client, doubtful = verdict(BUSY, ttft_ms=2000.0, more=late)

    assert client["late_ms_p99"] > 0.25 * 4.3
    assert (client["verdict"], doubtful) == ("valid", [])


SPOILT: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "stalls": (
        {"lags_ms": ([0.2] * 49 + [200.0]) * 20},
        ["ttft_ms", "itl_ms"],
        "late (p99), more than 25 % of the TTFT p99",
    ),
    "always late": (
        {"lags_ms": [15.0] * 1000},
        ["ttft_ms", "itl_ms", "tpot_ms"],
        "15.0 ms late (p50), more than 10 % of the TTFT p50 of 100.0 ms",
    ),
    "late for a fast server": (
        {"lags_ms": [2.0] * 1000, "ttft_ms": 12.0, "itl_ms": 5.0},
        ["ttft_ms", "itl_ms", "tpot_ms"],
        "more than 10 % of the TTFT p50 of 12.0 ms",
    ),
    "cpu": (
        {"lags_ms": QUIET, "cpu_share": 0.97},
        ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "token_rate", "request_rate", "goodput"],
        "more than 90 % of a core in 100 % of the time",
    ),
    "headroom": (
        {"lags_ms": QUIET, "events_per_s_max": 55.0},
        ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "token_rate", "request_rate", "goodput"],
        "near the client's ceiling: headroom 1.1",
    ),
    "coalesced": (
        {"lags_ms": [3.0] * 1000, "tokens": (1,) * 20 + (2,) * 20},
        ["itl_ms"],
        "of the reads carried more tokens than the server sends at once",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_the_client_spoilt_is_named(name: str) -> None:
    given, names, words = SPOILT[name]

    client, doubtful = verdict(**given)

    assert client["verdict"] == "client-bound"
    assert doubtful == names
    assert any(words in reason for reason in client["reasons"])


def test_tokens_that_the_server_sends_together_are_no_fault_of_the_clients() -> None:
    client, doubtful = verdict(QUIET, tokens=(1,) * 20 + (4,) * 20)

    assert client["tokens_per_read"] == 2.5
    assert (client["verdict"], doubtful) == ("valid", [])


# A real client, starved


def test_a_client_that_is_stopped_now_and_then_never_passes_as_valid(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "100ms", "--itl", "20ms")
    process = subprocess.Popen(
        [
            *(*DYNO, "bench", "--url", url, "-c", "10", "--ramp", "0s", "--duration", "5s"),
            *("--osl", "16", "--no-calibration", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while process.poll() is None:
        time.sleep(0.9)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    (level,) = last_json(output)["levels"]

    assert level["client"]["verdict"] == "client-bound"
    assert "ttft_ms" in level["doubtful"]
    assert level["client"]["late_ms_p99"] > 150
    assert "(client-bound; the client was" in errors
    assert "?" in errors  # the mark on the numbers


def test_a_client_without_cpu_to_spare_never_passes_as_valid(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "50ms", "--itl", "10ms")
    # A thread that never lets go of the interpreter for longer than it must.
    script = (
        "import threading, sys\n"
        "def spin():\n    while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "from llmdyno.cli.app import main; sys.argv[0] = 'dyno'; main()\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", script, "bench", "--url", url, "-c", "10", "--ramp", "0s"),
            *("--duration", "4s", "--osl", "16", "--no-calibration", "--json"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]

    assert level["client"]["verdict"] == "client-bound"
    assert level["doubtful"]


# Calibration
