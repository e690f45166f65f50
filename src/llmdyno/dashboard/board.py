"""Our end of the live page: starts the process that serves it, sends it parts, hears its buttons.

Nothing here waits for a browser, nor for that process. What its socket does not take is kept: of a
part of the page what it is now, of a list its last entries.
"""

import contextlib
import json
import secrets
import select
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from llmdyno.dashboard.server import COMMAND, HOST
from llmdyno.errors import UsageError
from llmdyno.processes.starting import starting

_START_S = 20.0  # that the process has to listen
_END_S = 3.0  # that it has to end
_ENTRIES_MAX = 5_000  # that wait for the process at most
_TRY_S = 0.5  # between two tries to send what waits
_TOKEN_BYTES = 24


class Board:
    """A live page; it is served from the moment this is made until close().

    The token is known to this process, to the one that serves, and to whoever reads `url`. It is in
    no argument, variable or file.

    Args:
        port: of 127.0.0.1; 0: any free one.
        on: what is done when a button is pressed, by its name; in a thread of its own.

    Raises:
        UsageError: the port cannot be listened on.
        ServerError: the system starts no further process.
    """

    def __init__(self, port: int, on: Mapping[str, Callable[[], None]]) -> None:
        if not 0 <= port < 2**16:
            raise UsageError(f"--dashboard {port}: must be a port, below 65536.")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._on = dict(on)
        self._sending = b""  # whole lines but for the first, of which a part may be gone
        self._parts: dict[str, bytes] = {}  # what waits behind that
        self._entries: deque[bytes] = deque(maxlen=_ENTRIES_MAX)
        self._open = True
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._encode = msgspec.json.Encoder(enc_hook=str).encode
        self._line, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started, starting("The dashboard's process"):
            unless_started.callback(self._line.close)
            self._process = subprocess.Popen(
                COMMAND,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
            )
            unless_started.pop_all()
        said = self._begin({"port": port, "token": token, "actions": list(on)})
        if not said.isdecimal():
            self.close()
            raise UsageError(
                f"--dashboard {port}: cannot be listened on: {said or 'its process ended'}; choose"
                " another port, or none for any free one."
            )
        self.url = f"http://{HOST}:{said}/?token={token}"
        self._listener = threading.Thread(target=self._listen, daemon=True, name="dashboard")
        self._listener.start()

    def _begin(self, settings: Mapping[str, Any]) -> str:
        """Send the settings; return the port that is listened on, or what is wrong."""
        self._line.settimeout(_START_S)
        try:
            self._line.sendall(json.dumps(settings).encode() + b"\n")
            said = self._line.recv(1024).decode().strip()
        except OSError as error:
            said = f"its process does not answer ({error})"
        self._line.settimeout(None)
        return said

    @property
    def pid(self) -> int:
        """The process that serves the page."""
        return self._process.pid

    def put(self, name: str, data: Any) -> None:
        """Replace a part of the page; it never waits."""
        line = name.encode() + b" " + self._encode(data) + b"\n"
        with self._lock:
            self._parts[name] = line
            self._send()

    def add(self, name: str, entry: Any) -> None:
        """Append to a list of the page; it never waits."""
        line = b"+" + name.encode() + b" " + self._encode(entry) + b"\n"
        with self._lock:
            self._entries.append(line)
            self._send()

    def _send(self) -> None:
        """Send what the socket takes; the lock is held."""
        try:
            while self._open and (self._sending or self._parts or self._entries):
                if not self._sending:
                    self._sending = b"".join([*self._parts.values(), *self._entries])
                    self._parts.clear()
                    self._entries.clear()
                sent = self._line.send(self._sending, socket.MSG_DONTWAIT)
                self._sending = self._sending[sent:]
        except BlockingIOError:
            pass
        except OSError:  # its process was killed: the page is lost, the measurement is not
            self._open = False

    def _listen(self) -> None:
        """Wait for buttons until the process ends, and send what waits."""
        heard = b""
        while True:
            with contextlib.suppress(OSError, ValueError):
                if not select.select([self._line], [], [], _TRY_S)[0]:
                    with self._lock:
                        self._send()
                    continue
            try:
                data = self._line.recv(256)
            except OSError:
                return
            if not data:
                return
            *lines, heard = (heard + data).split(b"\n")
            for name in lines:
                act = self._on.get(name.decode(errors="replace"))
                if act is not None:
                    act()

    def close(self) -> None:
        """Tell the browsers that it is over, and end the process."""
        with self._lock:
            self._send()
            self._open = False
        with contextlib.suppress(OSError):  # it may have ended
            self._line.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener is not None:
            self._listener.join(_END_S)  # the end of the process has ended it
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def interrupt() -> None:
    """Do what Ctrl-C does: give the main thread of this process the signal."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
