"""`dyno bench --dashboard`: its URL is said once, stop is Ctrl-C, and nobody keeps the token."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from conftest import DYNO
from waiting import until

SLOW = ("--ttft", "20ms", "--itl", "20ms")


def test_stop_ends_a_benchmark_as_ctrl_c_does(streamer: Callable[..., str], tmp_path: Path) -> None:
    command = [
        *(*DYNO, "bench", "--url", streamer(*SLOW), "--model", "m", "-c", "2", "--osl", "5"),
        *("--duration", "60s", "--no-calibration", "--out", "run", "--dashboard", "--json"),
    ]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=tmp_path, stderr=said, stdout=subprocess.PIPE, text=True
        )
    text = (tmp_path / "said").read_text
    try:
        found = until(
            lambda: re.search(r"Dashboard: (http://127\.0\.0\.1:\d+)/\?token=(\S+)", text()),
            "the page's URL",
        )
        assert found is not None
        place, token = found.groups()
        until(
            lambda: (
                (tmp_path / "run" / "journal.jsonl").exists()
                and '"outcome":"completed"' in (tmp_path / "run" / "journal.jsonl").read_text()
            ),
            "a completed request",
        )
        wanted = urllib.request.Request(f"{place}/stop?token={token}", method="POST")
        with urllib.request.urlopen(wanted, timeout=10) as answer:
            assert answer.status == 202
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 130
    assert text().count(token) == 1
    assert json.loads(output.splitlines()[-1])["levels"][0]["requests"]["completed"] > 0
    assert token not in output
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if token.encode() in path.read_bytes()]
    try:
        urllib.request.urlopen(f"{place}/?token={token}", timeout=5)
    except urllib.error.URLError:
        return
    raise AssertionError("the page outlives its benchmark")
