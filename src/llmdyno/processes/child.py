"""A command that cannot outlive us: run on a leash, its failure explained, its children ended.

A server (server.py) is one of those, a step of a build (run_step) another.
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

TAIL_BYTES = 64 * 1024
_STOP_GRACE_S = 10.0
_MARK = "LLMDYNO_SERVER"  # a variable that all that stems from a command inherits
_ROUNDS = 40  # how often to look for processes that a killed leash has left, and to kill them
_PROGRESS_S = 10.0  # between two reports on a build, which may take an hour
# The longest that the leash takes once the grace is over, a container's removal included.
_KILL_S = 30.0


class Child:
    """A process and the leash that it runs on; leaving the context stops it.

    Args:
        command: what to start.
        output: the descriptor that both of its outputs go to.
        tail: returns the last of what it wrote.
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
        self._leash = OnLeash(
            argv,
            environment={**os.environ, **_gpus(command), **command.environment, _MARK: token},
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
        """The process's own, not the leash's."""
        return self._leash.pid

    @property
    def leash_pid(self) -> int:
        """That of the leash, whose death must not leave the process behind."""
        return self._leash.process.pid

    def failure(self) -> ServerError | None:
        """Return how it failed, or None while it is alive or when we have stopped it."""
        if self._failure is None and not self._stopped and self._leash.ended():
            self._failure = self._why_it_ended()
        return self._failure

    def ended(self) -> bool:
        """Return whether it has ended by itself."""
        return self._leash.ended()

    def succeeded(self) -> bool:
        """Return whether it ended with exit status 0."""
        return self._leash.ending == "exit 0"

    def wait(self, timeout_s: float) -> None:
        """Return after so long, or as soon as it ends."""
        if self._failure is None and not self._stopped:
            self._leash.ended(timeout_s)

    def stop(self, *, grace_s: float = _STOP_GRACE_S) -> None:
        """End the process and all that stems from it: SIGTERM, and SIGKILL after the grace.

        Raises:
            ServerError: a process cannot even be killed; it hangs in the kernel.
        """
        if self._stopped:
            return
        self.failure()  # a process that ended before we asked it to has failed
        self._stopped = True
        try:
            self._leash.stop(grace_s=grace_s, timeout_s=grace_s + _KILL_S)
        except subprocess.TimeoutExpired:
            raise ServerError("hung", f"Process {self.pid} could not be killed.") from None
        finally:
            if not self._leash.has_cleaned_up:
                self._end_without_leash()

    def _end_without_leash(self) -> None:
        """Kill what a killed leash has left behind.

        The kernel has killed the server, not what that had started; those bear our mark, or are of
        its session if they have written over their environment.
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
        """Return what it wrote last, secrets blotted out."""
        return redact(diagnosis.lines(self._tail()), self._command.environment)

    def _why_it_ended(self) -> ServerError:
        lived_s = time.monotonic() - self._begin_s
        words, ending = self._leash.ending_in_words, self._leash.ending
        if ending == "lost":
            self._leash.process.wait()
            self._end_without_leash()
        kind, quoted = diagnose(self.last_lines(), self._command)
        # The kernel writes nothing into the log. Where it has no counter, SIGKILL points to it.
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
    """Run a command of a build to its end, its output going to the end of the log file.

    Raises:
        ServerError: it failed; nothing of it is left.
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
    """Give a container a name; return the command with it, and the one that removes it.

    The name is not the launch's: a launch may be started again, and a script may hold a step.
    """
    if not command.runtime:
        return command.argv, ()
    name = f"llmdyno-{os.getpid()}-{secrets.token_hex(4)}"
    program, run, *rest = command.argv
    # docker kills at once; podman asks first, and the server has been asked already.
    at_once = ("--time", "0") if command.runtime == "podman" else ()
    return (program, run, "--name", name, *rest), (program, "rm", "--force", *at_once, name)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _gpus(command: Launch | Step) -> dict[str, str]:
    """Return what lets a server see the GPUs that others use least; nothing if the user chose."""
    wanted = command.gpus if isinstance(command, Launch) else 0
    if not wanted or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    indices = hardware.least_used_gpus(wanted)
    if not indices:
        return {}
    # Indices, as not every engine reads UUIDs; CUDA's own order of them is another one.
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
    }


def end_of(log: Path, begin: int = 0) -> bytes:
    """Return the last of what stands in a log after the byte `begin`."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL_BYTES))
        return file.read()
