"""Runs tritonserver and ends it when one of its Python models dies.

    launcher.py [--on-demand=JSON] COMMAND …

Where it stands: fronts/triton.py launches this, and this launches tritonserver. Triton itself goes
on without a model's process, answers each request with an error or restarts the process in the
middle of a measurement, and still calls itself ready. Whoever started it must see a server that has
failed, at once. It runs without llmdyno's packages, so it starts in milliseconds.

--on-demand names a second server: {"host", "port", "argv", "settings"}. The launcher opens its port
and starts it with the first client; it gets its settings as JSON, with the socket's descriptor.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PREFIX = "llmdyno_"  # of shared memory; then the launcher's pid
LOCK = "lock"
ON_DEMAND = "--on-demand="
BACKLOG = 2048
STUB = "triton_python_backend_stub"
LOOK_S = 0.5  # between looks for processes that Triton has started
LAST_WORDS_S = 1.0  # what Triton gets to say why, after the death of a model's process
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton puts it; its name is our own


def main() -> int:
    """Run the command until it ends, a signal comes, or one of its Python processes dies."""
    command = sys.argv[1:]
    second = Second(command.pop(0)[len(ON_DEMAND) :]) if command[0].startswith(ON_DEMAND) else None
    _sweep()
    prefix = f"{PREFIX}{os.getpid()}_"
    lock = (SHARED_MEMORY / f"{prefix}{LOCK}").open("w")  # held until the end
    fcntl.flock(lock, fcntl.LOCK_EX)
    server = subprocess.Popen(
        [*command, f"--backend-config=python,shm-region-prefix-name={prefix}"],
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread here
    )
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        server.terminate()
        if second is not None:
            second.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    processes: dict[int, int] = {}  # a model's process → its pidfd
    ours = os.pidfd_open(server.pid)
    try:
        while True:
            waiting = second.waiting() if second is not None and not stopping else []
            dead, _, _ = select.select([ours, *processes.values(), *waiting], [], [], LOOK_S)
            if ours in dead:
                return _ending(server.wait())
            if second is not None and waiting and waiting[0] in dead:
                dead.remove(waiting[0])
                second.start()
            if dead and not stopping:
                return _mourn(server, [pid for pid in processes if processes[pid] in dead])
            if not stopping:
                _look(server.pid, processes)
            elif dead:
                time.sleep(0.05)  # they end one by one, as they should
    finally:
        if second is not None:
            second.kill()
        server.kill()
        server.wait()
        _remove(prefix)


class Second:
    """The second server: its port is open from the beginning, its process is there if need be."""

    def __init__(self, text: str) -> None:
        asked = json.loads(text)
        self._argv: list[str] = asked["argv"]
        try:
            address = asked["host"], asked["port"]
            self._listener = socket.create_server(address, backlog=BACKLOG)
        except OSError as error:
            sys.exit(f"llmdyno.triton: {asked['host']}:{asked['port']}: {error.strerror}")
        self._settings = json.dumps({**asked["settings"], "socket": self._listener.fileno()})
        self._process: subprocess.Popen[bytes] | None = None

    def waiting(self) -> list[int]:
        """Return the descriptor that a client makes readable, while nobody else looks at it."""
        runs = self._process is not None and self._process.poll() is None
        return [] if runs else [self._listener.fileno()]

    def start(self) -> None:
        """Run its process, which finds the client that waits."""
        self._process = subprocess.Popen(
            [*self._argv, self._settings],
            pass_fds=[self._listener.fileno()],
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread here
        )

    def stop(self) -> None:
        """Ask the server to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Leave nothing of it, whether it has ended or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    """Have the kernel kill Triton should this process be killed; its models' see that they end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _sweep() -> None:
    """Remove the shared memory of launchers that were killed: nobody holds their lock."""
    for path in SHARED_MEMORY.glob(f"{PREFIX}*_{LOCK}"):
        with contextlib.suppress(OSError), path.open("r+") as lock:  # held, or another user's
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path.name.removesuffix(LOCK))


def _remove(prefix: str) -> None:
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(region) if region.is_dir() else region.unlink()


def _look(server: int, processes: dict[int, int]) -> None:
    """Find the models' processes that Triton has started since the last look."""
    for task in Path(f"/proc/{server}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread or the process ended while we looked
            for pid in map(int, task.read_text().split()):
                name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                if pid not in processes and Path(name).name == STUB:
                    processes[pid] = os.pidfd_open(pid)


def _mourn(server: subprocess.Popen[bytes], dead: list[int]) -> int:
    """Let Triton write why a model's process has ended, if it knows, and end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(LAST_WORDS_S)
    words = f"llmdyno.triton: a Python model's process ({', '.join(map(str, dead))}) has died\n"
    os.write(2, words.encode())
    return 1


def _ending(status: int) -> int:
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
