"""Runs tritonserver and ends it when one of its Python models dies.

    launcher.py [--on-demand=JSON | --engine=JSON] COMMAND …

Where it stands: fronts/triton.py launches this, and this launches tritonserver. Triton itself goes
on without a model's process, answers each request with an error or restarts the process in the
middle of a measurement, and still calls itself ready. Whoever started it must see a server that has
failed, at once. It runs without llmdyno's packages, so it starts in milliseconds.

--on-demand names a second server: {"host", "port", "argv", "settings"}. The launcher opens its port
and starts it with the first client; it gets its settings as JSON, with the socket's descriptor.

--engine names the server of an engine that Triton passes requests on to: {"argv", "health",
"timeout_s"}. It is started first, and Triton when its health page answers with 200. When one of the
two ends, so does the other.
"""

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

PR_SET_PDEATHSIG = 1
PREFIX = "llmdyno_"  # of shared memory; then the launcher's pid
LOCK = "lock"
ON_DEMAND = "--on-demand="
ENGINE = "--engine="
HEALTH_LOOK_S = 0.1  # between looks at an engine that starts
HEALTH_TIMEOUT_S = 5.0
ENGINE_GRACE_S = 5.0  # what an engine gets to end by itself
BACKLOG = 2048
STUB = "triton_python_backend_stub"
LOOK_S = 0.5  # between looks for processes that Triton has started
LAST_WORDS_S = 1.0  # what Triton gets to say why, after the death of a model's process
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton puts it; its name is our own


def main() -> int:
    """Run the command until it ends, a signal comes, or one of its Python processes dies."""
    command = sys.argv[1:]
    second = Second(command.pop(0)[len(ON_DEMAND) :]) if command[0].startswith(ON_DEMAND) else None
    engine = Engine(command.pop(0)[len(ENGINE) :]) if command[0].startswith(ENGINE) else None
    _sweep()
    prefix = f"{PREFIX}{os.getpid()}_"
    lock = (SHARED_MEMORY / f"{prefix}{LOCK}").open("w")  # held until the end
    fcntl.flock(lock, fcntl.LOCK_EX)
    run = Run(second, engine)
    signal.signal(signal.SIGTERM, run.stop)
    signal.signal(signal.SIGINT, run.stop)
    try:
        if engine is not None and not engine.becomes_ready(lambda: run.stopping):
            return 0 if run.stopping else engine.failed()
        return run.until_the_end(
            [*command, f"--backend-config=python,shm-region-prefix-name={prefix}"]
        )
    finally:
        run.leave_nothing()
        _remove(prefix)


class Run:
    """Triton, and what runs beside it."""

    def __init__(self, second: "Second | None", engine: "Engine | None") -> None:
        self.stopping = False
        self._second = second
        self._engine = engine
        self._server: subprocess.Popen[bytes] | None = None

    def stop(self, *_: object) -> None:
        """Have all end; a signal's handler."""
        self.stopping = True
        for one in (self._server, self._second, self._engine):
            if one is not None:
                one.terminate()

    def until_the_end(self, command: list[str]) -> int:
        """Start Triton and wait until something ends; return the exit status."""
        self._server = server = subprocess.Popen(
            command,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread here
        )
        if self.stopping:
            server.terminate()  # the signal came before there was anything to be told
        second, engine = self._second, self._engine
        engines = [] if engine is None else [engine.pidfd]
        processes: dict[int, int] = {}  # a model's process → its pidfd
        ours = os.pidfd_open(server.pid)
        while True:
            waiting = second.waiting() if second is not None and not self.stopping else []
            watched = [ours, *processes.values(), *waiting, *engines]
            dead, _, _ = select.select(watched, [], [], LOOK_S)
            if ours in dead:
                return _ending(server.wait())
            if second is not None and waiting and waiting[0] in dead:
                dead.remove(waiting[0])
                second.start()
            if engine is not None and engine.pidfd in dead and not self.stopping:
                return engine.failed()
            if dead and not self.stopping:
                return _mourn(server, [pid for pid in processes if processes[pid] in dead])
            if not self.stopping:
                _look(server.pid, processes)
            elif dead:
                time.sleep(0.05)  # they end one by one, as they should

    def leave_nothing(self) -> None:
        """Kill Triton, what runs beside it and the engine, whichever of them still run."""
        if self._second is not None:
            self._second.kill()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        if self._engine is not None:
            self._engine.kill()


class Engine:
    """The server of an engine that Triton passes requests on to, in a process group of its own."""

    def __init__(self, text: str) -> None:
        asked = json.loads(text)
        self._health = urlsplit(asked["health"])
        self._timeout_s = float(asked["timeout_s"])
        self._process = subprocess.Popen(
            asked["argv"],
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread here
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def becomes_ready(self, stopping: Callable[[], bool]) -> bool:
        """Wait until its health page answers; return whether it has."""
        deadline_s = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline_s and not stopping():
            if self._answers():
                return True
            if select.select([self.pidfd], [], [], HEALTH_LOOK_S)[0]:
                return False
        return False

    def _answers(self) -> bool:
        host, port = self._health.hostname or "127.0.0.1", self._health.port
        connection = http.client.HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_S)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", self._health.path)
            return connection.getresponse().status == 200
        return False

    def failed(self) -> int:
        """Say how it ended, or that it took too long; return the exit status."""
        status = self._process.poll()
        ended = "was not ready in time" if status is None else f"has ended with status {status}"
        os.write(2, f"llmdyno.triton: the engine {ended}\n".encode())
        return 1

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Leave nothing of it: what it has started is in its group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(ENGINE_GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


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

    def terminate(self) -> None:
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
