"""A request with a time limit, and a connection that is kept from one request to the next.

The load, the prober and the scraper send through these, so a timeout and a retry on a stale
connection mean the same for all three.
"""

import asyncio
from collections.abc import Awaitable, Callable

from llmdyno.wire.exchange import Exchange, Response
from llmdyno.wire.target import Target

TIMEOUT_S = 2.0  # for a GET outside any measurement
# The end of an idle connection crosses our request on the way: that takes no longer than a round
# trip. A server that hangs up later had the request, and lost it.
_CROSSING_NS_MAX = 1_000_000_000


async def answered(exchange: Exchange, data: bytes, timeout_s: float, detail: str = "") -> Response:
    """Send a request and wait for its response, complete or not; a fault raises nothing.

    Args:
        exchange: a connection with no request under way.
        data: the bytes of the request: see connect.as_sent.
        timeout_s: after it the connection is closed, and the response's error is "timeout".
        detail: of that response, in words.
    """
    done = exchange.send(data)
    detail = detail or f"no answer in {timeout_s:g} s"
    loop = asyncio.get_running_loop()
    timer = loop.call_later(timeout_s, exchange.give_up, "timeout", detail)
    try:
        return await done
    except asyncio.CancelledError:  # nobody will read the response
        exchange.close()
        raise
    finally:
        timer.cancel()


async def get(exchange: Exchange, target: Target, path: str) -> Response:
    """GET a page over HTTP and wait at most TIMEOUT_S; a fault is in the response's `error`."""
    request = target.head(path, 0).replace(b"POST ", b"GET ", 1)
    return await answered(exchange, request, TIMEOUT_S)


class KeptConnection:
    """A connection to one server: opened when a request needs it, and kept for the next one.

    Args:
        dial: opens a new connection, or raises ConnectError.
    """

    def __init__(self, dial: Callable[[], Awaitable[Exchange]]) -> None:
        self._dial = dial
        self._exchange: Exchange | None = None

    async def open(self) -> tuple[Exchange, bool]:
        """Return the connection, opened if need be, and whether it has served a request before.

        Raises:
            ConnectError: there is no connection and none can be opened.
        """
        if self._exchange is not None and self._exchange.usable:
            return self._exchange, True
        self._exchange = await self._dial()
        return self._exchange, False

    async def request(self, send: Callable[[Exchange], Awaitable[Response]]) -> Response:
        """Send one request and return its response.

        A server may close an idle connection just as we send. If a connection that has served
        before ends at once, without any answer, the request is sent once more on a new one. Its
        times run from the first sending: who asks has waited since then.

        Args:
            send: sends the request on a connection and waits, as `answered` does.

        Raises:
            ConnectError: no connection can be opened.
        """
        exchange, reused = await self.open()
        response = await send(exchange)
        if not (reused and _has_crossed(response)):
            return response
        self.close()
        sent_ns = response.sent_ns
        exchange, _ = await self.open()
        response = await send(exchange)
        response.sent_ns = sent_ns
        return response

    def close(self) -> None:
        """Close the connection at once, if there is one; a later request opens a new one."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None


def _has_crossed(response: Response) -> bool:
    """Whether a connection ended as one does that the server had closed before it was asked."""
    unanswered = response.first_byte_ns < 0 and response.error in {"no-response", "reset"}
    return unanswered and response.end_ns - response.sent_ns < _CROSSING_NS_MAX
