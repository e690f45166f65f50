"""Runs tritonserver and ends it when one of its Python models dies: `launcher.py COMMAND …`.

Where it stands: fronts/triton.py launches this, and this launches tritonserver. Triton itself goes
on without a model's process, answers each request with an error or restarts the process in the
middle of a measurement, and still calls itself ready. Whoever started it must see a server that has
failed, at once. It runs without llmdyno's packages, so it starts in milliseconds.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PREFIX = "llmdyno_"  # of shared memory; then the launcher's pid
LOCK = "lock"
STUB = "triton_python_backend_stub"
LOOK_S = 0.5  # between looks for processes that Triton has started
LAST_WORDS_S = 1.0  # what Triton gets to say why, after the death of a model's process
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton puts it; its name is our own


def main() -> int:
    """Run the command until it ends, a signal comes, or one of its Python processes dies."""
    _sweep()
    prefix = f"{PREFIX}{os.getpid()}_"
    lock = (SHARED_MEMORY / f"{prefix}{LOCK}").open("w")  # held until the end
    fcntl.flock(lock, fcntl.LOCK_EX)
    server = subprocess.Popen(
        [*sys.argv[1:], f"--backend-config=python,shm-region-prefix-name={prefix}"],
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread here
    )
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    processes: dict[int, int] = {}  # a model's process → its pidfd
    ours = os.pidfd_open(server.pid)
    try:
        while True:
            dead, _, _ = select.select([ours, *processes.values()], [], [], LOOK_S)
            if ours in dead:
                return _ending(server.wait())
            if dead and not stopping:
                return _mourn(server, [pid for pid in processes if processes[pid] in dead])
            if not stopping:
                _look(server.pid, processes)
            elif dead:
                time.sleep(0.05)  # they end one by one, as they should
    finally:
        server.kill()
        server.wait()
        _remove(prefix)


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
