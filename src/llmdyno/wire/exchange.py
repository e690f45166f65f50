"""One connection and the request on it: the part that http1.py and grpc.py have in common.

The load sends requests through this interface and gets a Response for each, complete or not. A
failed request is a Response with an error class, never an exception, because a benchmark records
failures as it records successes.
"""

import asyncio
import ssl
from collections.abc import Sequence
from itertools import accumulate
from time import perf_counter_ns
from typing import cast

import msgspec

from llmdyno.wire.compression import codings, decode
from llmdyno.wire.inbox import Inbox, Piece, Pieces
from llmdyno.wire.poller import Link

HEADER_BYTES_MAX = 256 * 2**10
RESPONSE_BYTES_MAX = 256 * 2**20
TLS_ALERT = b"\x15\x03"  # how a TLS server answers plain HTTP


class Response(msgspec.Struct, kw_only=True):
    """The response to one request, complete or not; all times are perf_counter_ns readings."""

    sent_ns: int
    end_ns: int = 0
    first_byte_ns: int = -1
    status: int = 0
    headers: dict[str, str] = {}  # names in lower case
    pieces: Sequence[Piece] = []  # the body, with the stamp of the read that brought each part
    reads: int = 0
    error: str = ""  # the error class (faults.py) if the response is not complete
    detail: str = ""

    def add(self, stamp_ns: int, data: bytes) -> None:
        """Add a part of the body."""
        assert isinstance(self.pieces, list), "the rest is added once"
        self.pieces.append((stamp_ns, data))

    def add_rest(self, data: bytes, ends: list[int], stamps_ns: list[int]) -> None:
        """Add all that is left of the body; the arguments are those of Pieces."""
        if self.pieces:
            first = b"".join(part for _, part in self.pieces)
            before = list(accumulate(len(part) for _, part in self.pieces))
            data = first + data
            ends = [*before, *map(len(first).__add__, ends)]
            stamps_ns = [*(stamp_ns for stamp_ns, _ in self.pieces), *stamps_ns]
        self.pieces = Pieces(data, ends, stamps_ns)

    def body(self) -> bytes:
        """Return the pieces of the body joined into one bytes object."""
        if isinstance(self.pieces, Pieces):
            return self.pieces.data
        return b"".join(piece for _, piece in self.pieces)


class Meter:
    """Counts the reads of all connections, for a live display."""

    def __init__(self) -> None:
        self.reads = 0


class Exchange(asyncio.Protocol):
    """One connection: it takes one request at a time and stays open between requests."""

    inbox: Inbox | None = None  # the poller may put reads here without calling take()

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._done: asyncio.Future[Response] | None = None
        self._stamp_ns = 0  # of the read that is being parsed
        self._received_bytes = 0  # of the response, as far as it was parsed
        self.served = 0  # complete responses on this connection so far

    @property
    def usable(self) -> bool:
        """Whether the connection is open, so that another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def _begun(self) -> bool:
        """Whether anything of a response to the request under way has come."""
        return self._response is not None and self._response.first_byte_ns >= 0

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; returns at once.

        The future always gets a Response, never an exception. No request may be under way.
        """
        raise NotImplementedError

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read with its stamp; return whether to call parse() now."""
        raise NotImplementedError

    def parse(self) -> bool:
        """Parse what was kept; return whether the request under way has ended with it."""
        raise NotImplementedError

    def look_after(self, now_ns: int) -> None:
        """Parse reads that were deferred for too long; to be called about once a second."""

    def came_before(self, moment_ns: int) -> Sequence[Piece]:
        """Return the body so far if nothing of it is newer than that moment, else an empty list."""
        pieces = [] if self._response is None else self._response.pieces
        return pieces if pieces and pieces[-1][0] < moment_ns else []

    def give_up(self, error: str, detail: str = "") -> None:
        """End the request under way with that error class, and close the connection at once."""
        self.parse()
        self._break_off(error, detail)

    def close(self) -> None:
        """Close the connection at once; bytes that are not sent yet are dropped."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # The event loop calls these.

    def connection_made(self, transport: asyncio.BaseTransport | Link) -> None:
        """Keep the transport, on which requests will be sent."""
        # uvloop's transports have the methods of asyncio's classes but do not inherit from them.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the time of a read before anything else, and parse it if that must be done now."""
        if self.take(perf_counter_ns(), data):
            self.parse()

    def eof_received(self) -> None:
        """Do nothing: the event loop calls connection_lost() next."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way, if any, as reset, truncated or never answered."""
        self._transport = None
        if self._response is None:
            return
        words = (error.strerror or str(error)) if isinstance(error, OSError) else ""
        begun = self._begun
        if isinstance(error, ssl.SSLError) and not (begun and isinstance(error, ssl.SSLEOFError)):
            self._finish("tls", str(error))
        elif begun:
            how = "closed the connection" if error is None else "reset the connection"
            self._finish("truncated", f"the server {how} in the middle{words and f': {words}'}")
        elif error is not None:
            self._finish("reset", words)
        else:
            self._finish("no-response", "the server closed the connection without answering")

    def _break_off(self, error: str, detail: str) -> None:
        self._finish(error, detail)
        self.close()

    def _begin(self) -> asyncio.Future[Response]:
        """Start the record of a request that is sent now."""
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
