"""Our end of leash.py: starts a command behind a leash, learns how it ended, has it stopped.

This is the only module that speaks the leash's protocol, for servers, builds, installations and the
engine behind BentoML. It needs only the standard library and leash.py beside it, so a front can
copy both out of llmdyno.
"""

import contextlib
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LEASH = Path(__file__).with_name("leash.py")
_FIRST_WORD_S = 5.0  # the time limit for the leash's first message, the command's pid
_ENDING = re.compile(rb"^(?:exit|signal|lost)\b.*\n", re.MULTILINE)
_OF_ITSELF = frozenset({0, 1})  # what the leash returns unless it was killed


class OnLeash:
    """A command behind a leash, and our end of the socket pair; it starts when this is made.

    Args:
        command: the program and its arguments.
        environment: the command's whole environment.
        output: for standard output and error: a descriptor, or subprocess.PIPE; None: ours.
        afterwards: the command that the leash runs once all else has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: int | None,
        afterwards: Sequence[str] = (),
    ) -> None:
        self.pid = 0  # the command's; 0: the leash was killed before it could start it
        self._heard = b""
        removal = (f"--afterwards={' '.join(afterwards)}",) if afterwards else ()
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                line = str(theirs.fileno())
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_LEASH), line, *removal, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for us, who then ask the leash
                )
        except BaseException:
            self._line.close()
            raise
        if self._wait(_FIRST_WORD_S):
            self._hear()

    @property
    def ending(self) -> str:
        """How the command ended: "exit 0", "signal 9", "lost" with its leash; "" while it runs."""
        found = _ENDING.search(self._heard)
        return found[0].decode().strip() if found else ""

    @property
    def ending_in_words(self) -> str:
        """How the command ended, in words that go on a sentence such as "The server …"."""
        how, _, number = self.ending.partition(" ")
        if how == "signal":
            return f"was killed by {signal.Signals(int(number)).name}"
        return f"ended with exit status {number}" if how == "exit" else "lost its leash"

    @property
    def has_cleaned_up(self) -> bool:
        """Whether the leash ended normally; if not, descendants of the command may still run."""
        return self.process.returncode in _OF_ITSELF

    def ended(self, timeout_s: float | None = 0.0) -> bool:
        """Wait up to so many seconds (None: no limit); return whether the command has ended."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.ending:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not self._wait(left_s):
                return False
            self._hear()
        return True

    def stop(self, *, grace_s: float, timeout_s: float | None = None) -> None:
        """End the command and its descendants, and wait for the leash to end.

        Args:
            grace_s: from SIGTERM to SIGKILL.
            timeout_s: the longest wait for the leash; None: without limit.

        Raises:
            subprocess.TimeoutExpired: the leash has not ended within `timeout_s`.
        """
        with contextlib.suppress(OSError):  # the leash is gone, and the command with it
            self._line.sendall(f"{grace_s}\n".encode())
        try:
            self.process.wait(timeout_s)
        finally:
            self._line.close()
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _wait(self, timeout_s: float | None) -> bool:
        return bool(select.select([self._line], [], [], timeout_s)[0])

    def _hear(self) -> None:
        self._heard += self._line.recv(256) or b"lost\n"  # end of file: the leash was killed
        pid = re.match(rb"pid (\d+)\n", self._heard)
        if pid:
            self.pid = int(pid[1])
