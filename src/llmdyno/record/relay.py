"""One client's connection, and the one to the server that its requests go through.

Bytes are passed on as they come, before anything looks at them: the body of a request after its
head, and all that the server answers. Two parsers only watch where requests and answers end. What
one side does is done to the other: a client that hangs up ends the generation, a server that dies
in the middle of an answer ends the client's connection, and one that is not there is a 502.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from time import perf_counter_ns
from typing import cast

import httptools
import msgspec

from llmdyno.record.entries import Passed
from llmdyno.record.exchange import Exchange
from llmdyno.record.heads import BadRequestError, read_head, split_head
from llmdyno.wire.target import Target
from llmdyno.wire.tls import tls_context

CONNECT_TIMEOUT_S = 30.0
_SENT_AHEAD_BYTES_MAX = 2**20
_LINGER_S = 1.0  # for a client that we refused to read our answer


class Relay(asyncio.Protocol):
    """A client's connection: its requests go to the server one after the other.

    Args:
        target: the server.
        keep: takes each request that was recorded, when it has ended.
        gone: is called once, when the client's connection is closed.
        later: calls something once nothing has to be passed on: see afterwards.py.
        other: takes the path of each POST that passes and is not recorded.
    """

    def __init__(
        self,
        target: Target,
        keep: Callable[[Passed], None],
        gone: Callable[["Relay"], None],
        later: Callable[[Callable[[], None]], None],
        other: Callable[[str], None] = lambda _path: None,
    ) -> None:
        self._target = target
        self._keep = keep
        self._gone = gone
        self._later = later
        self._other = other
        self._client: asyncio.Transport | None = None
        self._client_file = -1  # of its socket
        self._server: _ServerSide | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unread = bytearray()  # of the client: the next head, or what it sent ahead
        self._exchange: Exchange | None = None
        self._is_due = False  # what was passed on may have ended the answer, and is not yet parsed
        self._is_put_off = False  # it is parsed later, if nothing else parses it before
        self._is_tunnel = False  # both sides have changed to another protocol
        self._last = False  # the connection ends with this answer
        self._is_refused = False  # we have answered; what still comes is dropped

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        self._follow()
        return self._exchange is not None

    def end_when_idle(self) -> None:
        """Close the connection once no request is under way."""
        self._follow()
        self._last = True
        if self._exchange is None and self._client is not None:
            self._client.close()

    def abort(self) -> None:
        """Close the connection at once; a request under way is recorded as cut."""
        if self._client is not None:
            self._client.abort()

    # The client's side; the event loop calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport on which the client is answered."""
        self._client = cast("asyncio.Transport", transport)
        self._client_file = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """Pass on a part of a body, or begin a request with it."""
        self._follow()
        exchange = self._exchange
        if self._is_refused:
            return
        if self._is_tunnel:
            self._to_server(data)
        elif exchange is not None and not exchange.is_asked:
            self._pass_body(exchange, data)
        else:
            self._unread += data
            if exchange is None:
                self._begin()
            elif len(self._unread) > _SENT_AHEAD_BYTES_MAX and self._client is not None:
                self._client.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """End the request under way, at the server too."""
        self._follow()
        self._client = None
        if self._connecting is not None:
            self._connecting.cancel()
        self._end_exchange("cut")
        self._drop_server()
        self._gone(self)

    def pause_writing(self) -> None:
        """Let the server wait until the client has taken what it was sent."""
        if self._server is not None:
            self._server.pause()

    def resume_writing(self) -> None:
        """Let the server go on."""
        if self._server is not None:
            self._server.resume()

    # A request.

    def _begin(self) -> None:
        """Begin the next request if its head is there."""
        try:
            end = split_head(self._unread)
            if end < 0:
                return
            head = read_head(bytes(self._unread[:end]), self._target)
        except BadRequestError as error:
            self._refuse(400, str(error))
            return
        rest = bytes(self._unread[end:])
        self._unread.clear()
        exchange = self._exchange = Exchange(head)
        if exchange.passed is None and head.method == "POST":
            self._other(head.path)
        if self._followed(exchange, head.framing + rest):
            self._to_server(head.forward + rest)

    def _pass_body(self, exchange: Exchange, data: bytes) -> None:
        if self._followed(exchange, data):
            self._to_server(data)

    def _followed(self, exchange: Exchange, data: bytes) -> bool:
        """Parse a part of a request; return whether it may go on to the server."""
        try:
            exchange.follow_request(data, perf_counter_ns())
        except httptools.HttpParserError as error:
            self._refuse(400, str(error.__context__ or error))  # what a callback said, if one did
            return False
        return True

    def _to_server(self, data: bytes) -> None:
        """Send to the server, as soon as there is a connection to it."""
        server = self._server
        if self._exchange is not None:
            self._exchange.note_sent(data, connected=server is not None)
        if server is not None:
            server.write(data)
        elif self._connecting is None:
            self._reach()

    def _reach(self) -> None:
        """Open a connection to the server; the client waits meanwhile."""
        self.pause_client()
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        side = _ServerSide(self)
        target = self._target
        context = tls_context(target.ca_cert, target.insecure, False) if target.tls else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: side,
                    target.host,
                    target.port,
                    ssl=context,
                    server_hostname=target.host if context else None,
                )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            why = str(error) or f"no connection in {CONNECT_TIMEOUT_S:g} s"
            self._connecting = None
            self._refuse(502, f"{target.authority} cannot be reached: {why}", "unreachable")
            return
        self._connecting = None
        if self._client is None or self._exchange is None:
            side.abort()
            return
        self._server = side
        side.write(bytes(self._exchange.sent))
        self._client.resume_reading()

    # The server's side; _ServerSide calls these.

    def from_server(self, data: bytes) -> None:
        """Pass on a part of an answer; look later whether the answer ends with it."""
        if self._is_due:  # what came before
            self._follow()
        client, exchange = self._client, self._exchange
        if client is None:
            return
        if exchange is None and not self._is_tunnel:  # bytes that nobody asked for
            self._drop_server()
            return
        now_ns = perf_counter_ns()
        _write_now(client, self._client_file, data)
        if exchange is not None and exchange.note_answer(data, now_ns):
            self._is_due = True
            if not self._is_put_off:
                self._is_put_off = True
                self._later(self._follow_due)

    def _follow_due(self) -> None:
        self._is_put_off = False
        if self._is_due:
            self._follow()

    def _follow(self) -> None:
        """Look whether the answer ends with what was passed on."""
        self._is_due = False
        client, exchange = self._client, self._exchange
        if client is None or exchange is None:
            return
        try:
            exchange.follow_answer()
        except httptools.HttpParserUpgrade:
            self._is_tunnel = True
            self._exchange = None
            exchange.release()
        except httptools.HttpParserError:
            self._end_exchange("bad-http")
            client.close()
        else:
            if exchange.is_answered:
                self._finish(exchange)

    def server_lost(self, side: "_ServerSide") -> None:
        """End the answer under way, tell the client if there is none, or send the request again."""
        if side is not self._server:
            return
        self._follow()
        if side is not self._server:  # the answer had ended, and the connection with it
            return
        self._server = None
        exchange, client = self._exchange, self._client
        if client is None:
            return
        if self._is_tunnel:
            client.close()
        elif exchange is None:  # an idle connection: the next request opens another
            return
        elif exchange.ends_with_connection:
            self._last = True
            self._finish(exchange)
        elif exchange.has_answer:
            self._end_exchange("truncated")
            client.close()
        elif side.served and exchange.can_be_sent_again:
            # The server closed an idle connection just as we sent.
            self._reach()
        else:
            where = self._target.authority
            self._refuse(502, f"{where} closed the connection without answering", "no-response")

    def pause_client(self) -> None:
        """Let the client wait until the server has taken what it was sent."""
        if self._client is not None:
            self._client.pause_reading()

    def resume_client(self) -> None:
        """Let the client go on."""
        if self._client is not None:
            self._client.resume_reading()

    def _finish(self, exchange: Exchange) -> None:
        """End a request whose answer is whole, and begin the next one if it is there."""
        client, server = self._client, self._server
        assert client is not None, "asked by both callers"
        whole = exchange.is_asked  # else the server has answered before it had read the body
        last = self._last or not whole or not exchange.goes_on
        self._end_exchange("")
        if last:
            self._drop_server()
            client.close()
            return
        if server is not None:
            server.served += 1
        if self._unread:
            client.resume_reading()
            self._begin()

    def _end_exchange(self, error: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exchange.passed is not None:
            self._keep(exchange.ended(error, perf_counter_ns()))
        exchange.release()

    def _refuse(self, status: int, why: str, error: str = "") -> None:
        """Answer in the server's place, and close the connection."""
        exchange = self._exchange
        if exchange is not None and exchange.passed is not None:
            exchange.passed.status = status
        self._end_exchange(error or "bad-http")
        self._drop_server()
        if self._client is None:
            return
        document = {"error": {"message": f"dyno record: {why}.", "type": "proxy", "code": status}}
        body = msgspec.json.encode(document)
        phrase = {400: "Bad Request", 502: "Bad Gateway"}[status]
        self._client.write(
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        # Closing with bytes unread is a reset, which can take our answer from the client unseen.
        self._is_refused = True
        self._client.write_eof()
        self._client.resume_reading()
        asyncio.get_running_loop().call_later(_LINGER_S, self._client.close)

    def _drop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.abort()


class _ServerSide(asyncio.Protocol):
    """The connection to the server on which one client's requests go."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.Transport | None = None
        self._file = -1  # of its socket, if that takes the bytes as they are
        self.served = 0  # requests that were answered on it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            self._file = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        self._relay.from_server(data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        self._transport = None
        self._relay.server_lost(self)

    def pause_writing(self) -> None:
        self._relay.pause_client()

    def resume_writing(self) -> None:
        self._relay.resume_client()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            _write_now(self._transport, self._file, data)

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _write_now(transport: asyncio.Transport, file: int, data: bytes) -> None:
    """Write to a connection now: uvloop would write after it has read all else that has come.

    Args:
        transport: of the connection.
        file: of its socket; -1: the bytes must go through the transport.
        data: what is written; what the socket does not take waits in the transport.
    """
    written = 0
    if file >= 0 and not transport.get_write_buffer_size() and not transport.is_closing():
        try:
            written = os.write(file, data)
        except OSError:  # full, or broken: the transport sees to both
            written = 0
    if written < len(data):
        transport.write(data[written:])
