"""One connection and the request on it, whatever the protocol: what http1.py and grpc.py share."""

import asyncio
import ssl
from time import perf_counter_ns
from typing import cast

import msgspec

from llmdyno.wire.compression import codings, decode
from llmdyno.wire.inbox import Inbox, Piece
from llmdyno.wire.poller import Link

HEADER_BYTES_MAX = 256 * 2**10
RESPONSE_BYTES_MAX = 256 * 2**20
TLS_ALERT = b"\x15\x03"  # how a TLS server answers plain HTTP


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
    """Counts the reads of all connections, for a live display."""

    def __init__(self) -> None:
        self.reads = 0


class Exchange(asyncio.Protocol):
    """One connection, whatever the protocol: one request at a time, kept alive between them."""

    inbox: Inbox | None = None  # where reads may go without take(), see poller.Reader

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._done: asyncio.Future[Response] | None = None
        self._stamp_ns = 0  # of the read that is being parsed
        self._received_bytes = 0  # of the response, as far as it was parsed
        self.served = 0  # responses that came to their end on this connection

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; the future always gets a Response, never an exception."""
        raise NotImplementedError

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read with its stamp; return whether to call parse() now."""
        raise NotImplementedError

    def parse(self) -> bool:
        """Parse what was kept; return whether the request under way has ended with it."""
        raise NotImplementedError

    def look_after(self, now_ns: int) -> None:
        """Parse what has been put off for too long; call it about once a second."""

    def came_before(self, moment_ns: int) -> list[Piece]:
        """Return the body so far if nothing of it is newer than that moment, else an empty list."""
        pieces = [] if self._response is None else self._response.pieces
        return pieces if pieces and pieces[-1][0] < moment_ns else []

    def give_up(self, error: str, detail: str = "") -> None:
        """End the request under way with that error class, and close the connection."""
        self.parse()
        self._break_off(error, detail)

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport | Link) -> None:
        """Take the transport."""
        # uvloop's transports are none of asyncio's classes, though they have the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Stamp a read."""
        if self.take(perf_counter_ns(), data):
            self.parse()

    def eof_received(self) -> None:
        """Do nothing: connection_lost() follows."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way, if any: cut off, or never answered."""
        self._transport = None
        response = self._response
        if response is None:
            return
        if isinstance(error, ssl.SSLError):
            self._finish("tls", str(error))
        elif error is not None:
            self._finish(
                "reset", error.strerror or str(error) if isinstance(error, OSError) else ""
            )
        elif response.first_byte_ns < 0:
            self._finish("no-response", "the server closed the connection without answering")
        else:
            self._finish("truncated", "the server closed the connection in the middle")

    def _break_off(self, error: str, detail: str) -> None:
        self._finish(error, detail)
        self.close()

    def _begin(self) -> asyncio.Future[Response]:
        """Begin a request, sent now."""
        assert self._done is None, "one request at a time"
        done = self._done = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._response = Response(sent_ns=perf_counter_ns())
        return done

    def _finish(self, error: str = "", detail: str = "") -> None:
        response, done = self._response, self._done
        if response is None or done is None:
            return
        self._response = self._done = None
        response.end_ns = perf_counter_ns() if error else self._stamp_ns
        for coding in reversed(codings(response.headers)):
            response.pieces, broken = decode(response.pieces, coding)
            if broken and not error:
                error, detail = "bad-encoding", broken
        response.error, response.detail = error, detail
        if not done.done():
            done.set_result(response)
