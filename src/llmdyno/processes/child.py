"""A command that cannot outlive dyno: it runs on a leash, and a failure gets a class.

A server (server.py) and a step of a build (run_step) are such commands.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from llmdyno.errors import ServerError, StorageError
from llmdyno.machine import hardware
from llmdyno.processes import diagnosis
from llmdyno.processes.diagnosis import FAILURES, diagnose
from llmdyno.processes.launch import Launch, Step
from llmdyno.processes.secrets import redact
from llmdyno.processes.spawn import OnLeash
from llmdyno.processes.starting import starting

TAIL_BYTES = 64 * 1024
_STOP_GRACE_S = 10.0
_OF_DATABASE = ("PGPASSWORD", "PGPASSFILE")  # no server is to have them
_MARK = "LLMDYNO_SERVER"  # a variable that all descendants of a command inherit
_ROUNDS = 40  # how often to search for processes that a killed leash left, and kill them
_PROGRESS_S = 10.0  # between two reports on a build, which may take an hour
# The longest that the leash takes once the grace is over, a container's removal included.
_KILL_S = 30.0


class Child:
    """A process and the leash that it runs on; leaving the context stops it.

    Args:
        command: what to start.
        output: the descriptor for its standard output and standard error.
        tail: returns the end of its output.

    Raises:
        ServerError: the system starts no further process.
    """

    called = "The command"

    def __init__(self, command: Launch | Step, output: int, tail: Callable[[], bytes]) -> None:
        self._command = command
        self._tail = tail
        self._begin_s = time.monotonic()
        self._oom_kills = diagnosis.oom_kills()
        self._failure: ServerError | None = None
        self._stopped = False
        argv, self._removal = _by_name(command)
        token = secrets.token_hex(8)
        self._mark = f"{_MARK}={token}"
        with starting(self.called):
            self._leash = OnLeash(
                argv,
                environment={**_own(), **_gpus(command), **command.environment, _MARK: token},
                output=output,
                afterwards=self._removal,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the command, not that of its leash."""
        return self._leash.pid

    @property
    def leash_pid(self) -> int:
        """The process id of the leash; if it is killed, the command must end too."""
        return self._leash.process.pid

    def failure(self) -> ServerError | None:
        """Return how it failed; None while it runs, and if we stopped it. It does not wait."""
        if self._failure is None and not self._stopped and self._leash.ended():
            self._failure = self._why_it_ended()
        return self._failure

    def ended(self) -> bool:
        """Return whether the command has ended; it does not wait."""
        return self._leash.ended()

    def succeeded(self) -> bool:
        """Return whether it ended with exit status 0."""
        return self._leash.ending == "exit 0"

    def wait(self, timeout_s: float) -> None:
        """Wait until the command ends, but at most so long; returns at once after a stop."""
        if self._failure is None and not self._stopped:
            self._leash.ended(timeout_s)

    def stop(self, *, grace_s: float = _STOP_GRACE_S) -> None:
        """End the command and all its descendants, and wait until they have ended.

        They get SIGTERM, and SIGKILL after the grace period. A second call does nothing.

        Raises:
            ServerError: a process cannot be killed, because it hangs in the kernel (class "hung").
        """
        if self._stopped:
            return
        self.failure()  # if it ended before this stop, that is a failure, to be noted now
        self._stopped = True
        try:
            self._leash.stop(grace_s=grace_s, timeout_s=grace_s + _KILL_S)
        except subprocess.TimeoutExpired:
            raise ServerError("hung", f"Process {self.pid} could not be killed.") from None
        finally:
            if not self._leash.has_cleaned_up:
                self._end_without_leash()

    def _end_without_leash(self) -> None:
        """Kill the processes that a killed leash has left.

        The kernel has killed the command but not its descendants. They have our mark in their
        environment, or belong to the command's session if they have overwritten it.
        """
        for _ in range(_ROUNDS):
            found = [pid for pid in _pids() if self._is_ours(pid)]
            for pid in found:
                with contextlib.suppress(OSError):  # gone by itself
                    os.kill(pid, signal.SIGKILL)
            if not found:
                break
            time.sleep(0.05)
        removal, self._removal = self._removal, ()
        if removal:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(removal, capture_output=True, check=False, timeout=_KILL_S)

    def _is_ours(self, pid: int) -> bool:
        try:
            state, _, _, session = (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            )
            if state == "Z":  # a zombie: its new parent has not reaped it yet
                return False
            if self.pid and int(session) == self.pid:
                return True
            return self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            return False

    def last_lines(self) -> list[str]:
        """Return the last lines of its output, with secrets blotted out."""
        return redact(diagnosis.lines(self._tail()), self._command.environment)

    def _why_it_ended(self) -> ServerError:
        lived_s = time.monotonic() - self._begin_s
        words, ending = self._leash.ending_in_words, self._leash.ending
        if ending == "lost":
            self._leash.process.wait()
            self._end_without_leash()
        kind, quoted = diagnose(self.last_lines(), self._command)
        # The OOM killer writes no log. Where the kernel has no counter, SIGKILL suggests it.
        counted = diagnosis.oom_kills()
        if counted is None:
            killed_by_kernel = ending in {"signal 9", "exit 137"}
        else:
            killed_by_kernel = counted > (self._oom_kills or 0)
        if kind == "died" and killed_by_kernel:
            kind = "out-of-memory"
        return ServerError(
            kind, f"{self.called} {words} after {lived_s:.1f} s: {FAILURES[kind]} ({kind}).{quoted}"
        )


def run_step(step: Step, *, log: Path, progress: Callable[[str], None]) -> None:
    """Run a command of a build and wait for its end; its output is appended to the log file.

    Args:
        step: the command.
        log: the file for its output; it is made if need be.
        progress: called every ten seconds with a line on the step under way.

    Raises:
        ServerError: the step failed; no process of it is left.
        StorageError: the log cannot be written.
    """
    begin_s = time.monotonic()
    try:
        output = log.open("ab")
    except OSError as error:
        raise StorageError(f"{log}: cannot write the build's log: {error.strerror}.") from error
    with output:
        before = output.tell()
        command = Child(step, output.fileno(), lambda: end_of(log, before))
    with command:
        command.wait(_PROGRESS_S)
        while not command.ended():
            last = "".join(command.last_lines()[-1:])
            progress(f"{step.what}, {time.monotonic() - begin_s:.0f} s: {last}")
            command.wait(_PROGRESS_S)
        failure = None if command.succeeded() else command.failure()
    if failure is not None:
        raise ServerError(failure.kind, f"{step.what}: {failure} Log: {log}")


def _by_name(command: Launch | Step) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give a container a name; return the command with the name, and the command that removes it.

    The name is new for each start, because a launch may be started twice.
    """
    if not command.runtime:
        return command.argv, ()
    name = f"llmdyno-{os.getpid()}-{secrets.token_hex(4)}"
    program, run, *rest = command.argv
    # docker kills at once; podman would first send SIGTERM, which the server has had already.
    at_once = ("--time", "0") if command.runtime == "podman" else ()
    return (program, run, "--name", name, *rest), (program, "rm", "--force", *at_once, name)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _own() -> dict[str, str]:
    """Return our own variables, but for those that open the database of a team's study."""
    return {name: value for name, value in os.environ.items() if name not in _OF_DATABASE}


def _gpus(command: Launch | Step) -> dict[str, str]:
    """Return the variables that show a server the least used GPUs; none if the user chose."""
    wanted = command.gpus if isinstance(command, Launch) else 0
    if not wanted or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    indices = hardware.least_used_gpus(wanted)
    if not indices:
        return {}
    # Indices, because not every engine reads UUIDs; by the bus, as CUDA's default order differs.
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
    }


def end_of(log: Path, begin: int = 0) -> bytes:
    """Return the end of a log, but nothing before the byte `begin`; empty if it cannot be read."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL_BYTES))
        return file.read()
