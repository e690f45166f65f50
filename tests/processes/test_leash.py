"""The leash itself, by the words on its socket: what it tells, and what it does when told."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmdyno.processes import leash


class Leash:
    """A leash, and our end of its socket."""

    def __init__(self, *words: str) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(30)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(theirs.fileno()), *words],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
            )
        self.lines = self.ours.makefile()

    def end(self) -> int:
        """Wait for its end, and return its exit status."""
        return self.process.wait(timeout=30)

    def close(self) -> None:
        """Let go of it."""
        self.lines.close()
        self.ours.close()
        self.process.wait(timeout=30)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def leashes() -> Iterator[list[Leash]]:
    started: list[Leash] = []
    yield started
    for one in started:
        one.close()


def gone(pid: str) -> bool:
    return not Path("/proc", pid).exists()


def test_it_tells_the_pid_and_the_end(leashes: list[Leash]) -> None:
    leashes.append(one := Leash("sh", "-c", "exit 3"))

    assert one.lines.readline().startswith("pid ")
    assert one.lines.readline() == "exit 3\n"
    assert one.end() == 0


def test_a_signal_is_told_by_its_number(leashes: list[Leash]) -> None:
    leashes.append(one := Leash("sh", "-c", "kill -9 $$"))

    assert one.lines.read().splitlines()[1] == "signal 9"


def test_a_program_that_is_not_there_is_said(leashes: list[Leash]) -> None:
    leashes.append(one := Leash("no-such-program-here"))

    assert one.lines.read().splitlines()[1] == "exit 127"
    assert one.process.stderr is not None
    assert one.process.stderr.read() == (
        b"cannot start no-such-program-here: No such file or directory\n"
    )


@pytest.mark.parametrize("how", ["told", "hung up", "signalled"])
def test_it_ends_all_that_stems_from_it(how: str, leashes: list[Leash]) -> None:
    """Its grandchild ignores SIGTERM and is in a session of its own."""
    grandchild = "trap '' TERM; echo $$ >&2; exec sleep 600"
    leashes.append(one := Leash("sh", "-c", 'setsid sh -c "$0" & exec sleep 600', grandchild))
    pid = one.lines.readline().split()[1]
    assert one.process.stderr is not None
    orphan = one.process.stderr.readline().decode().strip()
    assert not gone(orphan)

    if how == "told":
        one.ours.sendall(b"0.05")
    elif how == "hung up":
        one.ours.shutdown(socket.SHUT_WR)
    else:
        one.process.send_signal(signal.SIGTERM)

    one.end()
    assert gone(pid)
    assert gone(orphan)


def test_what_is_to_be_done_afterwards_is_done_last(tmp_path: Path, leashes: list[Leash]) -> None:
    leashes.append(one := Leash(f"{leash.AFTERWARDS}touch {tmp_path}/done", "sh", "-c", "exit 0"))

    assert one.end() == 0
    assert (tmp_path / "done").exists()


def test_a_stop_at_once_is_not_lost(leashes: list[Leash]) -> None:
    for _ in range(8):
        leashes.append(one := Leash("sleep", "60"))
        assert one.lines.readline().startswith("pid ")  # it may not have become `sleep` yet
        told_s = time.monotonic()
        one.ours.sendall(b"20\n")
        one.end()
        assert time.monotonic() - told_s < 20  # else only the end of its grace has killed it
