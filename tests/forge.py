"""`dyno` without its start: one process imports it once and forks for every call.

A start of Python and the imports cost a third of a second, some 240 times over in these tests.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdyno.cli.app import main
from llmdyno.machine.blas import import_numpy

# What commands import when they are called.
IMPORTED = (
    *("llmdyno.cli.bench", "llmdyno.cli.results", "llmdyno.cli.serve", "llmdyno.cli.tune"),
    *("llmdyno.cli.deploy", "llmdyno.cli.machine", "llmdyno.cli.chat", "llmdyno.bench.run"),
    *("llmdyno.report.pages", "httptools", "uvloop", "rich.live"),
)


class Forge:
    """A process that has imported `dyno`, and forks one for every call."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(
        self, arguments: Sequence[str], folder: Path, files: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run `dyno ARGUMENTS` in a folder; its output goes through two new files in `files`.

        Raises TimeoutError if it takes more than 240 s.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output, errors = files / "stdout", files / "stderr"
        call = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "output": str(output),
            "errors": str(errors),
        }
        self._process.stdin.write(json.dumps(call) + "\n")
        status = int(self._process.stdout.readline())
        if status == _TIMED_OUT:
            raise TimeoutError(arguments)
        return subprocess.CompletedProcess(
            ["dyno", *arguments], status, output.read_text(), errors.read_text()
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


_TIMED_OUT = 1000


def _become(call: Mapping[str, Any]) -> None:
    """Make of this process, just forked, the one that the call describes."""
    for number, path in ((1, call["output"]), (2, call["errors"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = ["dyno", *call["arguments"]]
    sys.path[0] = call["folder"]  # as `python -m` has it


def _wait(child: int) -> int:
    """Return the exit status of a child, as `subprocess` gives it."""
    deadline_s = time.monotonic() + 240
    while time.monotonic() < deadline_s:
        signal.sigtimedwait([signal.SIGCHLD], 1.0)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return _TIMED_OUT


def _serve() -> None:
    """Fork for every call on standard input, and answer with the exit status."""
    import_numpy()
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _become(json.loads(line))
            main()
        sys.stdout.write(f"{_wait(child)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
