"""What the processor can do at most: measured once, kept, and read from beside a result."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.errors import DynoError, UsageError
from llmdyno.machine import environment, peaks
from llmdyno.predict.gpus import gpu_of


@pytest.fixture(autouse=True)
def _another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peaks._of_cores.cache_clear()


def test_they_are_measured_once(tmp_path: Path) -> None:
    first = peaks.this_machine()
    assert 1e8 < first.bytes_s < 2e12
    assert 1e8 < first.flops < 1e14
    [place] = (tmp_path / "llmdyno/peaks").iterdir()
    place.write_bytes(msgspec.json.encode(msgspec.structs.replace(first, flops=1.0)))
    peaks._of_cores.cache_clear()
    assert peaks.this_machine() == msgspec.structs.replace(first, flops=1.0)


def test_a_file_that_is_torn_is_measured_again(tmp_path: Path) -> None:
    first = peaks.this_machine()
    [place] = (tmp_path / "llmdyno/peaks").iterdir()
    place.write_bytes(place.read_bytes()[:20])
    peaks._of_cores.cache_clear()
    assert peaks.this_machine().cores == first.cores


def test_they_stand_beside_a_result_that_asks_for_them() -> None:
    described = environment.describe(peaks=True)
    assert peaks.kept(described["cpu"]) == peaks.this_machine()
    assert peaks.kept(environment.describe()["cpu"]) is None
    assert peaks.kept({"peaks": {"flops": "many"}}) is None


def too_slow(*_: Any, **__: Any) -> Any:
    raise subprocess.TimeoutExpired("python", 60.0)


def no_process(*_: Any, **__: Any) -> Any:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def no_memory(*_: Any, **__: Any) -> Any:
    said = b"Traceback (most recent call last):\n  ...\nMemoryError: 128 MiB\n"
    return subprocess.CompletedProcess([], 1, stdout=b"", stderr=said)


def killed(*_: Any, **__: Any) -> Any:
    return subprocess.CompletedProcess([], -9, stdout=b"", stderr=b"")


FAULTS: dict[str, Callable[..., Any]] = {
    "it was not done within 60 s": too_slow,
    "no process could be started for it (Resource temporarily unavailable)": no_process,
    "its process ended with 1 (MemoryError: 128 MiB)": no_memory,
    "its process ended with -9 (it said nothing)": killed,
}


@pytest.mark.parametrize("why", FAULTS)
def test_a_machine_that_cannot_measure_them_does_without(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study or a run is not to fail for a decoration; only who asks for them is told."""
    asked = []

    def run(*_: Any, **__: Any) -> Any:
        asked.append(1)
        return FAULTS[why]()

    monkeypatch.setattr(subprocess, "run", run)

    assert "peaks" not in environment.describe(peaks=True)["cpu"]
    with pytest.raises(DynoError) as raised:
        peaks.this_machine()
    assert str(raised.value).endswith(f"cannot be measured: {why}")
    with pytest.raises(UsageError, match=r"--gpu cpu: .*Try again, or describe it: --gpu memory="):
        gpu_of("cpu")
    assert len(asked) == 1  # each try may take a minute
    assert not (tmp_path / "llmdyno/peaks").exists()  # another process tries again


def test_a_thread_that_fails_lets_the_others_go() -> None:
    threads = iter([0, 1, 2])

    def make() -> Callable[[], object]:
        if next(threads) == 2:
            raise MemoryError("128 MiB")
        return lambda: None

    before, began_s = threading.active_count(), time.monotonic()
    with pytest.raises(MemoryError, match="128 MiB"):
        peaks._a_second(3, make)
    assert time.monotonic() - began_s < 30.0  # they had waited until they were killed, at 60 s
    assert threading.active_count() == before


def test_a_thread_that_cannot_be_started_lets_the_others_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, []

    def start_two(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        peaks._a_second(3, lambda: lambda: None)
    assert not any(thread.is_alive() for thread in started)
