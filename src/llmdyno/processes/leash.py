"""The leash: a small process between dyno and a server, so that no process survives dyno.

spawn.py starts `python -I -S leash.py FD [--afterwards=COMMAND] COMMAND …`; FD is one end of a
socket pair of which dyno holds the other. The leash starts the command, tells dyno its pid and,
later, how it ended:

    leash → dyno   "pid 4711", then "exit 1" or "signal 9"
    dyno → leash   "2.5", seconds of grace: stop the server; end of file: dyno is dead, stop it too

Engines start workers, and workers start workers, some in sessions of their own; killing a process
group misses those. The leash is their subreaper: a process that loses its parent becomes the
leash's child. So at the end all of them are found below it in /proc and killed. It runs outside of
dyno because dyno may be killed with SIGKILL, and it imports little so that it starts in
milliseconds.

A container is a child of docker's daemon, not of the leash. docker's client forwards signals, but
SIGKILL cannot be forwarded. So the leash runs `--afterwards` once all else has ended; that command
removes the container.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections import defaultdict
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 5.0  # for a server whose dyno is dead
REST_GRACE_S = 1.0  # for workers that outlive their server
KILL_S = 10.0  # a process stuck in a driver is not killed at once, and one of root's never
PARENT_CHECK_S = 1.0
AFTERWARDS_S = 15.0
AFTERWARDS = "--afterwards="
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run the command until it ends, dyno says stop, or dyno is dead; then end all descendants.

    Returns:
        The leash's own exit status; how the command ended goes to dyno over the socket.
    """
    dyno = socket.socket(fileno=int(sys.argv[1]))
    dyno.set_inheritable(False)
    parent = os.getppid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup = _signals_as_bytes()
    afterwards, command = _read(sys.argv[2:])
    server = _start(command)
    _tell(dyno, f"pid {server}")
    statuses: dict[int, int] = {}
    grace_s = None
    while grace_s is None and server not in statuses:
        ready, _, _ = select.select([dyno.fileno(), wakeup], [], [], PARENT_CHECK_S)
        received = os.read(wakeup, 512) if wakeup in ready else b""
        _reap(statuses)
        # A forked child of dyno may hold the socket open after dyno's death, hence the second test.
        if os.getppid() != parent:
            grace_s = GRACE_S
        elif dyno.fileno() in ready:
            grace_s = _asked_grace_s(dyno)
        elif set(received) & set(STOP_SIGNALS):
            grace_s = GRACE_S
    if server in statuses:
        _tell(dyno, _ending(statuses[server]))
    _end_all(server, statuses, 0.0 if grace_s is None else grace_s)
    if afterwards:
        _run_afterwards(afterwards)
    return 0 if server in statuses else 1


def _read(words: list[str]) -> tuple[list[str], list[str]]:
    """Split our arguments into the command to run afterwards, and the command itself."""
    if words[0].startswith(AFTERWARDS):
        return words[0].removeprefix(AFTERWARDS).split(), words[1:]
    return [], words


def _run_afterwards(command: list[str]) -> None:
    """Run the command within a time limit and ignore its status: the container may be gone."""
    pid = os.fork()
    if pid == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        with contextlib.suppress(OSError):
            os.execvp(command[0], command)  # noqa: S606 - a list of arguments, no shell
        os._exit(127)
    deadline = time.monotonic() + AFTERWARDS_S
    statuses: dict[int, int] = {}
    while pid not in statuses and time.monotonic() < deadline:
        time.sleep(0.01)
        _reap(statuses)
    if pid not in statuses:
        _send([pid], signal.SIGKILL)


def _start(command: list[str]) -> int:
    leash = os.getpid()
    # A stop that comes before the command runs must wait for it: our own handlers, which the child
    # has until then, would swallow it, and the command would run on for the whole grace.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return pid
    os.setsid()
    die_with_parent()  # in case the leash itself is killed
    # Python ignores the first two, a shell's background job the third; servers expect the defaults.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if os.getppid() != leash:
        os._exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list of arguments, no shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _signals_as_bytes() -> int:
    """Return a file descriptor from which the numbers of arriving signals can be read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return read


def _tell(dyno: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # dyno is dead; the next read of the socket shows it
        dyno.sendall(f"{line}\n".encode())


def _asked_grace_s(dyno: socket.socket) -> float:
    try:
        return float(dyno.recv(64))
    except (OSError, ValueError):  # end of file reads as b"", which is no number
        return GRACE_S


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit {code}" if code >= 0 else f"signal {-code}"


def _reap(statuses: dict[int, int]) -> None:
    """Reap every child that has ended, including orphans that became ours."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        statuses[pid] = status


def _end_all(server: int, statuses: dict[int, int], grace_s: float) -> None:
    """Ask the server to end, then its descendants, then kill all that still run."""
    deadline = time.monotonic() + grace_s
    if server not in statuses:
        # Only the server at first: many end their workers in a certain order.
        _send([server], signal.SIGTERM)
        while server not in statuses and time.monotonic() < deadline:
            time.sleep(0.01)
            _reap(statuses)
    _send(_descendants(), signal.SIGTERM)
    deadline = time.monotonic() + min(grace_s or REST_GRACE_S, REST_GRACE_S)
    _reap(statuses)
    while _descendants() and time.monotonic() < deadline:
        time.sleep(0.02)
        _reap(statuses)
    deadline = time.monotonic() + KILL_S
    while _descendants() and time.monotonic() < deadline:
        _send(_descendants(), signal.SIGKILL)
        time.sleep(0.01)
        _reap(statuses)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # gone by itself, or another user's by now
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Return the process ids of all descendants of the leash."""
    children = defaultdict(list)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            stat = (process / "stat").read_bytes()
        except OSError:
            continue  # it ended while we looked
        # The program's name stands in brackets, and may hold blanks and brackets itself.
        parent = int(stat.rpartition(b")")[2].split()[1])
        children[parent].append(int(process.name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children[queue.pop()]
        found += below
        queue += below
    return found


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    sys.exit(main())
