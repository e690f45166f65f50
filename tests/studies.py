"""Studies over the engine of known speed, through the real command line."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import DYNO
from llmdyno.tune.narrator import Narrator

MARK = "STUDY_OF_A_TEST"
TESTS = str(Path(__file__).parent)
STUDY = (
    *("tune", "--engine", "timed.engine", "--model", "m", "-c", "2,6", "--ramp", "200ms"),
    *("--duration", "2s", "--trial-duration", "1500ms", "--interval", "500ms", "--osl", "10"),
    *("--pairs", "2", "--warmup", "300ms", "--no-quality"),
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DYNO, *arguments],
        cwd=folder,
        env={**environment(), MARK: str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": TESTS}


def unheard() -> Narrator:
    """Return a narrator that tells nobody."""
    return Narrator(
        notify=lambda _: None, notify_waiting=lambda _: None, display=lambda *_: lambda *_: None
    )


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Look ten times a second until something is true."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.1)


def wait_for_lines(path: Path, count: int) -> None:
    """Wait until a file has this many lines."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count)


def wait_for_measurement(study: Path) -> None:
    """Wait until a study measures what is not in its ledger yet."""

    def measures() -> bool:
        done = (study / "ledger.jsonl").read_text().count("\n") - 1
        return len(list((study / "runs").glob("*/server.log"))) > done

    wait_until(measures)


def servers_left(folder: Path, *, grace_s: float = 20.0) -> list[str]:
    """Return the commands of what a study in that folder started and has not ended in time."""
    deadline_s = time.monotonic() + grace_s
    while (found := _marked(folder)) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return found


def _marked(folder: Path) -> list[str]:
    mark = f"{MARK}={folder}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
