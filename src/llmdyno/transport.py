"""HTTP/1.1 over one connection, built for exact stamps at little cost: the client's hot path.

While a response streams in, a read costs one clock reading and one append; nothing is parsed until
the response can have ended. An HTTP response with a chunked body ends with an empty line, so a read
that does not end with CRLF CRLF and is not a bare splinter of it cannot be the last one: it is kept
with its stamp and parsed later, by llhttp, piece by piece, so that every byte of the body still
bears the stamp of the read that brought it. Bodies framed in another way are parsed at once.
"""

import asyncio
import socket
import ssl
from functools import lru_cache
from time import perf_counter_ns
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from llmdyno.errors import UsageError
from llmdyno.sse import Piece

CONNECT_TIMEOUT_S = 30.0
# The longest splinter of a chunked body's end ("0\r\n\r\n") that can arrive alone.
_SPLINTER_BYTES = 4


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `headers` may hold a secret: it is never written anywhere."""

    host: str
    port: int
    tls: bool
    prefix: str  # of the URL's path, without a slash at the end
    headers: tuple[tuple[str, str], ...] = ()

    def head(self, path: str, length: int) -> bytes:
        """Return the request line and headers of a POST with a JSON body of `length` bytes."""
        lines = [
            f"POST {self.prefix}{path} HTTP/1.1",
            f"Host: {self.authority}",
            "Content-Type: application/json",
            "Accept: text/event-stream, application/json",
            "User-Agent: llmdyno",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    @property
    def authority(self) -> str:
        """host:port, as in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_url(url: str, api_key: str | None = None) -> Target:
    """Read a base URL.

    Raises:
        UsageError: it is not an http:// or https:// URL with a host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--url {url}: {error}.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"--url {url}: write http://host:port or https://host.")
    if parts.query or parts.fragment:
        raise UsageError(f"--url {url}: must end with the path, without ? or #.")
    if parts.username is not None:
        raise UsageError("--url: must not hold a user name or password; see --api-key-env.")
    tls = parts.scheme == "https"
    return Target(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/"),
        headers=(("Authorization", f"Bearer {api_key}"),) if api_key else (),
    )


class Response(msgspec.Struct, kw_only=True):
    """What came back for one request, complete or not. Stamps are perf_counter_ns readings."""

    sent_ns: int
    end_ns: int = 0
    first_byte_ns: int = -1
    status: int = 0
    headers: dict[str, str] = {}  # names in lower case
    pieces: list[Piece] = []  # the body, with the stamp of the read that brought each part
    reads: int = 0
    error: str = ""  # the error class, if the exchange did not come to its end
    detail: str = ""

    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(piece for _, piece in self.pieces)


class Meter:
    """Counts that a live display reads while responses stream in."""

    def __init__(self) -> None:
        self.reads = 0


class Connection(asyncio.Protocol):
    """One connection: at most one request under way; kept alive between requests."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._done: asyncio.Future[Response] | None = None
        self._waiting: list[Piece] = []  # read, stamped, not parsed yet
        self._parse_at_once = True
        self._stamp_ns = 0  # of the piece being parsed
        self._headers_complete = False
        self._until_close = False
        self.served = 0  # responses that came to their end on this connection

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; the future always gets a Response, never an exception."""
        assert self._transport is not None
        assert self._done is None, "one request at a time"
        self._done = asyncio.get_running_loop().create_future()
        self._parse_at_once = True
        self._headers_complete = False
        self._response = Response(sent_ns=perf_counter_ns())
        self._transport.write(data)
        return self._done

    def give_up(self, error: str, detail: str = "") -> None:
        """End the request under way as it stands, with that error class, and the connection."""
        self._parse()
        self._finish(error, detail)
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports are none of asyncio's classes, though they have the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Stamp and keep; parse only if this read can be the last one of the response."""
        now_ns = perf_counter_ns()
        self._meter.reads += 1
        self._waiting.append((now_ns, data))
        if self._parse_at_once or len(data) <= _SPLINTER_BYTES or data.endswith(b"\r\n\r\n"):
            self._parse()

    def eof_received(self) -> None:
        """Leave the rest to connection_lost."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way, if any: complete, cut off, or never answered."""
        self._transport = None
        self._parse()
        response = self._response
        if response is None:
            return
        if error is None and self._headers_complete and self._until_close:
            self._finish()
        elif isinstance(error, ssl.SSLError):
            self._finish("tls", str(error))
        elif error is not None:
            self._finish(
                "reset", error.strerror or str(error) if isinstance(error, OSError) else ""
            )
        elif response.first_byte_ns < 0:
            self._finish("no-response", "the server closed the connection without answering")
        else:
            self._finish("truncated", "the server closed the connection in the middle")

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        if self._response is not None:
            self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Learn the status and how the body is framed."""
        response = self._response
        if response is None:
            return
        response.status = self._parser.get_status_code()
        chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
        self._until_close = not chunked and "content-length" not in response.headers
        self._parse_at_once = not chunked
        self._headers_complete = response.status >= 200

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body with its stamp."""
        if self._response is not None:
            self._response.pieces.append((self._stamp_ns, body))

    def on_message_complete(self) -> None:
        """End the request, unless this was only an interim response."""
        if self._response is None:
            return
        if not self._headers_complete:  # 1xx: the real one follows
            self._response.headers.clear()
            self._parse_at_once = True
            return
        self.served += 1
        keep = self._parser.should_keep_alive() and not self._until_close
        self._finish()
        if not keep:
            self.close()

    def _parse(self) -> None:
        waiting, self._waiting = self._waiting, []
        for self._stamp_ns, data in waiting:
            response = self._response
            if response is None:  # nobody asked: not a server to go on with
                self.close()
                return
            if response.first_byte_ns < 0:
                response.first_byte_ns = self._stamp_ns
            response.reads += 1
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                self._finish("bad-http", str(error))
                self.close()
                return

    def _finish(self, error: str = "", detail: str = "") -> None:
        response, done = self._response, self._done
        if response is None or done is None:
            return
        self._response = self._done = None
        response.end_ns = perf_counter_ns() if error else self._stamp_ns
        response.error, response.detail = error, detail
        if not done.done():
            done.set_result(response)


class ConnectError(Exception):
    """A connection could not be made; `kind` is the record's error class."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


async def connect(target: Target, meter: Meter, timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """Open a connection.

    Raises:
        ConnectError: it could not be made.
    """
    loop = asyncio.get_running_loop()
    context = _tls_context() if target.tls else None
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: Connection(meter), target.host, target.port, ssl=context
            )
    except TimeoutError as error:
        raise ConnectError("connect-timeout", f"no connection in {timeout_s:g} s") from error
    except socket.gaierror as error:
        raise ConnectError("dns", f"{target.host}: {error.strerror}") from error
    except ssl.SSLError as error:
        raise ConnectError("tls", str(error)) from error
    except ConnectionRefusedError as error:
        raise ConnectError("refused", f"{target.authority} refuses connections") from error
    except ConnectionResetError as error:
        raise ConnectError("reset", f"{target.authority} reset the connection") from error
    except OSError as error:
        raise ConnectError("unreachable", f"{target.authority}: {error.strerror}") from error
    return connection


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Return the system's trust store; reading it takes long enough to do it once."""
    return ssl.create_default_context()
