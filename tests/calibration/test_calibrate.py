"""The client measured before a benchmark, and at length by `dyno selftest`."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import DYNO, last_json
from llmdyno.calibration import calibrate
from llmdyno.errors import TargetError
from llmdyno.records.entries import Calibration
from waiting import until

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]


def streamers(parent: int | None = None) -> list[int]:
    """Return the streamers of a calibration that are running, of this parent if one is named."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
            stat = (entry / "stat").read_text()
        except OSError:  # no process, or it has just gone
            continue
        if b"--until-eof" in words and stat.split()[2] != "Z":
            own = int(stat.rpartition(")")[2].split()[1])
            if parent is None or own == parent:
                found.append(int(entry.name))
    return found


def test_a_run_is_preceded_by_a_calibration_that_is_kept(
    streamer: Streamer, whole_dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")

    done = whole_dyno(
        *("bench", "--url", url, "-c", "2", "--requests", "6", "--ramp", "0s", "--osl", "8"),
        *("--out", "run", "--json"),
    )
    assert done.returncode == 0, done.stderr
    document = last_json(done.stdout)

    floor = document["calibration"]
    assert set(floor) == {
        "ttft_floor_ms_p50",
        "ttft_floor_ms_p99",
        "itl_floor_ms_p99",
        "events_per_s_max",
    }
    assert 0 <= floor["ttft_floor_ms_p50"] <= floor["ttft_floor_ms_p99"] + 5
    assert floor["events_per_s_max"] > 1000
    (level,) = document["levels"]
    peak = level["client"]["events_per_s_peak"]
    assert 0 < peak <= 48
    assert level["client"]["headroom"] == pytest.approx(floor["events_per_s_max"] / peak, rel=1e-3)
    assert "headroom" in done.stderr
    lines = (tmp_path / "run/journal.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds[:2] == ["opened", "calibration"]
    rebuilt = last_json(whole_dyno("report", "run", "--json").stdout)
    assert rebuilt["calibration"] == floor
    assert rebuilt["levels"][0]["server"] == level["server"]


def test_nothing_is_left_of_a_calibration_that_is_killed(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    process = subprocess.Popen(
        [*DYNO, "bench", "--url", url, "-c", "1", "--duration", "30s"],
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    started = until(lambda: streamers(process.pid), "a calibration")
    process.kill()
    process.wait()

    until(lambda: not set(started) & set(streamers()), "the streamer's end")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_streamer_of_ours_that_answers_nothing_is_no_fault_of_the_server(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once more; after that the client is not calibrated, and the run goes on."""
    tries = []
    real = calibrate._calibrated

    async def calibrated() -> Calibration:
        tries.append(1)
        if len(tries) <= failing:
            raise TargetError("the streamer that measures the client answered no request.")
        return await real()

    monkeypatch.setattr(calibrate, "_calibrated", calibrated)

    found = asyncio.run(calibrate.calibrate())

    assert (found is None) == (failing == 2)
    assert len(tries) == 2
