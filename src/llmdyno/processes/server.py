"""Starts a server, waits until it makes a token, and notices at once when it dies.

This is the one supervisor for all engines and fronts: they return a Launch, and this module starts
it. `dyno serve` runs it in the foreground, the tuner once for each trial. The process is a Child
(child.py), so neither a crash of dyno nor a kill -9 leaves a server that holds the GPU.
"""

import contextlib
import http.client
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from llmdyno import store
from llmdyno.errors import ServerError, StorageError
from llmdyno.processes.child import TAIL_BYTES, Child, end_of
from llmdyno.processes.diagnosis import FAILURES, diagnose
from llmdyno.processes.launch import Launch
from llmdyno.processes.stops import handled

_HEALTH_TIMEOUT_S = 5.0
_LAST_ASK_S = 1.0  # a server is asked once after its time is up: maybe we were suspended, not it
_STOOD_MIN_S = 1.0  # less is a busy machine
_REFUSALS = 5  # after so many refused probes in a row the server counts as failed, not as starting


class Server(Child):
    """A server that was started, ready or not; leaving the context stops it."""

    called = "The server"

    def __init__(self, launch: Launch, output: int, tail: Callable[[], bytes]) -> None:
        """Start the server; returns before it is ready.

        Raises:
            ServerError: the port is taken, so another server would be measured as ours.
            StorageError: a file that it reads cannot be written.
        """
        address = urlsplit(launch.url)
        with contextlib.suppress(OSError):
            socket.create_connection((address.hostname, address.port), timeout=1.0).close()
            raise ServerError(
                "port-in-use", f"{launch.url}: {FAILURES['port-in-use']} already (port-in-use)."
            )
        for path, text in launch.files.items():
            store.make_folder(Path(path).parent)
            store.write_atomically(Path(path), text.encode())
        self.launch = launch
        self.ready_s = 0.0
        super().__init__(launch, output, tail)

    def answers(self, timeout_s: float) -> bool:
        """Return whether it is healthy and makes a token; it waits at most so long for each."""
        return (
            _ask(self.launch, "GET", self.launch.health_path, None, timeout_s) == 200
            and _probe(self.launch, timeout_s) == 200
        )


def start(launch: Launch, *, log: Path, progress: Callable[[str], None] | None = None) -> Server:
    """Start a server, and wait until it has made a token; its output goes to the log file.

    Args:
        launch: what to start, and how to tell that it is ready.
        log: a new file for the server's output.
        progress: called about once a second with the time so far and the log's last line.

    Raises:
        ServerError: it did not become ready; no process of it is left.
        StorageError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise StorageError(f"{log}: cannot write the server's log: {error.strerror}.") from error
    with output:
        server = Server(launch, output.fileno(), lambda: end_of(log))
    try:
        _wait_until_ready(server, progress)
    except ServerError as error:
        server.stop()
        raise ServerError(error.kind, f"{error} Log: {log}") from None
    except BaseException:
        server.stop()
        raise
    return server


def foreground(launch: Launch, *, announce: Callable[[str], None]) -> int:
    """Run a server until a signal stops it or it dies; return dyno's exit status.

    The server's output goes to stderr. This must be called from the main thread, because it handles
    SIGINT, SIGTERM and SIGHUP.

    Args:
        launch: what to start.
        announce: called with a line when the server is ready, and when it dies.

    Raises:
        StorageError: a file that the server reads cannot be written.
    """
    recent = bytearray()
    read, write = os.pipe()
    copier = threading.Thread(target=_copy_to_stderr, args=(read, recent), daemon=True)

    def tail() -> bytes:
        copier.join(
            timeout=1.0
        )  # called once the server is dead: wait until the pipe has been read
        return bytes(recent)

    with handled(signal.default_int_handler):
        try:
            copier.start()
            with os.fdopen(write, "wb") as output:
                server = Server(launch, output.fileno(), tail)
            with server:
                _wait_until_ready(server, None)
                announce(f"ready after {server.ready_s:.1f} s at {launch.url}{_example(launch)}")
                while (failure := server.failure()) is None:
                    server.wait(60.0)
            raise failure
        except KeyboardInterrupt:
            return 0
        except ServerError as error:
            announce(str(error))
            return error.exit_status


def _wait_until_ready(server: Server, progress: Callable[[str], None] | None) -> None:
    launch = server.launch
    begin_s = time.monotonic()
    deadline_s = begin_s + launch.start_timeout_s
    now_s = told_s = begin_s
    refusals, healthy, status = 0, False, None
    while True:
        if failure := server.failure():
            raise failure
        most_s = _HEALTH_TIMEOUT_S  # that a round takes
        healthy = healthy or _ask(launch, "GET", launch.health_path, None, _HEALTH_TIMEOUT_S) == 200
        if healthy:
            probe_s = max(_LAST_ASK_S, deadline_s - now_s)
            most_s += probe_s
            status = _probe(launch, probe_s)
            if status == 200 and server.failure() is None:
                server.ready_s = time.monotonic() - begin_s
                return
            refusals = refusals + 1 if status is not None and 400 <= status < 500 else 0
            if refusals == _REFUSALS and status is not None:
                raise _refused(server, status)
        if now_s > deadline_s:  # and it was asked after that: this process may have been suspended
            raise _too_late(server, healthy=healthy, status=status)
        if progress and now_s - told_s >= 1.0:
            told_s = now_s
            progress(f"{now_s - begin_s:.0f} s: {''.join(server.last_lines()[-1:])}")
        # Poll often at first, for quick starts, and seldom later, to disturb a slow start little.
        rest_s = min(0.5, 0.02 + (now_s - begin_s) / 10)
        server.wait(rest_s)
        before_s, now_s = now_s, time.monotonic()
        # What takes longer than it can is a stop: the machine slept, and the server with us.
        stood_s = now_s - before_s - most_s - rest_s
        deadline_s += stood_s if stood_s > _STOOD_MIN_S else 0.0


def _probe(launch: Launch, timeout_s: float) -> int | None:
    if launch.probe is None:
        return 200
    path, body = launch.probe
    return _ask(launch, "POST", path, msgspec.json.encode(body), timeout_s)


def _ask(
    launch: Launch, method: str, path: str, body: bytes | None, timeout_s: float
) -> int | None:
    """Return the status of the reply, or None without a complete reply."""
    status, content = exchange(launch.url, method, path, body, timeout_s)
    return None if body is not None and not content else status


def exchange(
    url: str, method: str, path: str, body: bytes | None, timeout_s: float
) -> tuple[int | None, bytes]:
    """Return status and content of the reply of a server of ours; None without a complete reply.

    Args:
        url: of the server.
        method: of HTTP.
        path: below the URL.
        body: JSON.
        timeout_s: of each wait.
    """
    address = urlsplit(url)
    assert address.hostname is not None
    # Not urllib, which would use a proxy of the environment between us and our own server.
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=max(0.1, timeout_s)
    )
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, address.path.rstrip("/") + path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def _too_late(server: Server, *, healthy: bool, status: int | None) -> ServerError:
    launch = server.launch
    limit = f"{launch.start_timeout_s:g} s"
    if not healthy:
        return _start_failure(
            server,
            "start-timeout",
            f"The server did not answer 200 on {launch.url}{launch.health_path} within {limit}",
        )
    reply = "did not answer" if status is None else f"answered {status}"
    return _start_failure(
        server, "hung", f"The server is up but {reply} when asked for one token, within {limit}"
    )


def _refused(server: Server, status: int) -> ServerError:
    kind = {401: "auth", 403: "auth", 404: "model-not-found"}.get(status, "bad-config")
    path = server.launch.probe[0] if server.launch.probe else ""
    return _start_failure(
        server,
        kind,
        f"The server is up but answers {status} on {path} when asked for one token of model"
        f" '{server.launch.model}'",
    )


def _start_failure(server: Server, kind: str, sentence: str) -> ServerError:
    _, quoted = diagnose(server.last_lines(), server.launch)
    return ServerError(kind, f"{sentence} ({kind}).{quoted}")


def _copy_to_stderr(source: int, recent: bytearray) -> None:
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while chunk := pipe.read(TAIL_BYTES):
            recent += chunk
            del recent[:-TAIL_BYTES]
            # Keep reading even if the terminal is closed: the server would block on a full pipe.
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()


def _example(launch: Launch) -> str:
    if launch.probe is None:
        return ""
    path, body = launch.probe
    request = shlex.quote(msgspec.json.encode(body).decode())
    return f"\n  curl {launch.url}{path} -H 'Content-Type: application/json' -d {request}"
