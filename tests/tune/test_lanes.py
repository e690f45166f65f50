"""Lanes for real: a process each, on its own cores, which ends with its server."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmdyno.cli import flags
from llmdyno.machine.devices import Devices
from llmdyno.spec import Load
from llmdyno.store import SUMMARY, read_json
from llmdyno.tune import lane
from llmdyno.tune.lanes import LOG, Job, Lanes
from studies import MARK, TESTS, servers_left, wait_until


def job(number: int, duration_s: float) -> Job:
    load = Load(users=(2,), duration_s=duration_s, ramp_s=0.1, interval_s=0.2, grace_s=0.0)
    return Job(phase="trial", number=number, config={"itl_ms": 10}, load=load, races=False)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a lane needs a core of its own")
def test_a_lane_is_a_process_on_its_own_cores_that_ends_with_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret")
    study = flags.study_spec(
        {"engine": "timed.engine", "model": "m", "osl": "10", "warmup": "0s", "parallel": 2}
    )
    devices = Devices(2, 0)
    cores = {str(lease): lease.cores for lease in devices.usual}
    began_s = time.monotonic()

    with Lanes(study, tmp_path, devices) as running:
        places = [running.start(job(0, 0.6)), running.start(job(1, 60.0))]
        full = running.start(job(2, 0.6))
        wait_until(lambda: len(list(tmp_path.glob("runs/*/server.log"))) == 2)
        written = b"".join(map(_content, tmp_path.rglob("*")))
        (first,) = running.wait()
        os.kill(_pid_of(running, 1), signal.SIGKILL)
        (second,) = running.wait()
        running.start(job(3, 60.0))  # it is stopped while it starts

    assert places == list(cores)
    assert full is None
    assert b"hf_a_secret" not in written
    assert first.measurement is not None
    run = tmp_path / first.run
    summary = read_json(run / SUMMARY)
    assert summary["environment"]["cpu"]["cores_usable"] == len(cores[first.device])
    assert (first.device, first.beside, first.job.number) == (places[0], 1, 0)
    assert first.measurement.folder == first.run
    assert not {lane.ORDER, lane.CAME, LOG} & {path.name for path in run.iterdir()}
    assert (second.measurement, second.device) == (None, places[1])
    assert "killed by SIGKILL" in second.lost_why
    assert first.wall_s + second.wall_s <= time.monotonic() - began_s
    assert servers_left(tmp_path) == []


def test_a_lane_whose_process_is_not_known_yet_is_stopped_and_nobody_is_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process 0 would be dyno itself, and all that was started with it."""
    said: list[object] = []
    child = SimpleNamespace(pid=0, ended=lambda: False, stop=lambda: said.append("stop"))
    monkeypatch.setattr("llmdyno.machine.devices._cores", lambda: list(range(4)))
    monkeypatch.setattr("llmdyno.tune.lanes.start_lane", lambda *_: child)
    monkeypatch.setattr("llmdyno.tune.lanes.os.kill", lambda *words: said.append(words))
    study = flags.study_spec({"engine": "timed.engine", "model": "m", "parallel": 2})

    with Lanes(study, tmp_path, Devices(2, 0)) as running:
        assert running.start(job(0, 0.6))

    assert said == ["stop"]


def _content(path: Path) -> bytes:
    """Return what a file holds; a lane at work may take it away."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""


def _pid_of(running: Lanes, number: int) -> int:
    (found,) = [one for one in running._running if one.job.number == number]
    return found.child.pid
