"""One request to the engine over HTTP/1.1, with as little as possible between two sockets.

relay.py passes on what `Answer.read` returns: all that has come since the last time. A library
that does more costs more for each token than the engine's own server. A connection is never used
twice: one that the engine is about to close would fail a request for nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import httptools

_CONNECT_TIMEOUT_S = 2.0
_UNREAD_BYTES_MAX = 1 << 20

Header = tuple[bytes, bytes]


class EngineError(Exception):
    """There is no engine, or it hung up before its answer was whole."""


class Answer(asyncio.Protocol):
    """What the engine answers: status and headers, then the body as it comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._whole = False
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for status and headers.

        Raises:
            EngineError: the engine hung up.
        """
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """Return what has come of the body, at least a byte; nothing at its end.

        Raises:
            EngineError: the engine hung up before the end.
        """
        while not self._pieces and not self._whole:
            await self._more()
        body = b"".join(self._pieces)
        self._pieces.clear()
        if self._unread_bytes > _UNREAD_BYTES_MAX and self._transport is not None:
            self._transport.resume_reading()
        self._unread_bytes = 0
        return body

    async def rest(self) -> bytes:
        """Return all of the body that is to come."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def header(self, name: bytes) -> bytes:
        """Return a header's value; nothing if it is not there."""
        return next((value for key, value in self.headers if key == name), b"")

    async def _more(self) -> None:
        if self._lost:
            raise EngineError("The engine has died; the answer is not whole.")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to slow the engine down."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in what one read of the socket brought."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._lost = True
        if self._unread_bytes > _UNREAD_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End the body where nothing else says where it ends."""
        unlimited = not (self.header(b"content-length") or self.header(b"transfer-encoding"))
        if self.status and unlimited and error is None:
            self._whole = True
        self._lost = True
        self._wake()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; httptools calls this for each."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Know the status, now that all headers are there."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, freed of its chunk's frame."""
        self._pieces.append(body)
        self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        """Note that the body is complete; httptools calls this at its end."""
        self._whole = True


@contextlib.asynccontextmanager
async def ask(
    host: str,
    port: int,
    method: str,
    path: bytes,
    headers: Iterable[Header] = (),
    body: bytes = b"",
) -> AsyncIterator[Answer]:
    """Ask the engine; leaving the context hangs up, which is how engines are told to stop.

    Raises:
        EngineError: nobody is there, or it hung up before it answered.
    """
    loop: Any = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            transport, answer = await loop.create_connection(Answer, host, port)
    except (OSError, TimeoutError) as error:
        raise EngineError("The engine does not answer.") from error
    lines = [
        b"%s %s HTTP/1.1" % (method.encode(), path),
        b"host: %s:%d" % (host.encode(), port),
        b"connection: close",
        b"content-length: %d" % len(body),
        *(b"%s: %s" % header for header in headers),
    ]
    try:
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        await answer.head()
        yield answer
    finally:
        transport.abort()
