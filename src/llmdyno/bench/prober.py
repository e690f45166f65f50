"""Sends single requests to a server outside any measurement: before and after a level.

detect.py, questions.py and recount.py ask through it what the server is and how it counts tokens.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter_ns

import msgspec

from llmdyno.bench.answers import location
from llmdyno.errors import TargetError
from llmdyno.faults import REDIRECTS
from llmdyno.wire.connect import ConnectError, as_sent, connect
from llmdyno.wire.exchange import Exchange, Meter, Response
from llmdyno.wire.inbox import Piece
from llmdyno.wire.request import KeptConnection, answered
from llmdyno.wire.target import Target

TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
_GREETING_TIMEOUT_S = 3.0
_LOOK_S = 0.005  # between two looks at a response that streams in
# What may be wrong if no connection can be opened.
_ADVICE = {
    "refused": "; is the server started, and is this its port?",
    "dns": "; is the host's name spelled right?",
    "connect-timeout": "; are host and port right, and does a firewall let us through?",
    "unreachable": "; is the host right, and this machine on its network?",
}


class Prober:
    """Sends single requests to one server over a kept connection; `close` it at the end.

    Args:
        target: the server.
        timeout_s: for each request.
    """

    def __init__(self, target: Target, *, timeout_s: float = TIMEOUT_S) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self._connection = KeptConnection(self._dial)
        self.has_hung_up = False  # on an answer that was under way

    async def _dial(self) -> Exchange:
        return await connect(self.target, Meter(), timeout_s=_CONNECT_TIMEOUT_S)

    async def reach(self) -> None:
        """Connect if there is no connection yet, and wait until it is open.

        Raises:
            TargetError: no connection can be opened.
        """
        try:
            await self._connection.open()
        except ConnectError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: ConnectError) -> TargetError:
        return TargetError(
            f"--url {self.target.authority}: {error}{_ADVICE.get(error.kind, '')} ({error.kind})."
        )

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        """Send one request and wait for its whole response, of any status but a redirect.

        Args:
            method: GET or POST; a gRPC call is a POST.
            path: without the target's prefix.
            body: of a POST.

        Raises:
            TargetError: there is no complete response, or it is a redirect.
        """
        response = await self.answer(method, path, body)
        self.require(path, response)
        return response

    def require(self, path: str, response: Response) -> None:
        """Refuse a response that is not complete, or a redirect.

        Raises:
            TargetError: it is; says which path was asked for.
        """
        where = f"{self.target.authority}{self.target.resource(path)}"
        if response.error:
            said = self.target.redact(response.detail or response.error)
            raise TargetError(f"{where}: {said} ({response.error}).")
        if response.status in REDIRECTS:
            asked = f"{'https' if self.target.tls else 'http'}://{where}"
            place = self.target.redact(location(response, asked) or "elsewhere")
            raise TargetError(f"{where}: redirects to {place}.")

    async def look(self, path: str) -> Response:
        """GET a path that may not exist; if the server hangs up, the response's `error` says so.

        Raises:
            TargetError: the server cannot be reached, or does not answer in time.
        """
        response = await self.answer("GET", path)
        if response.error == "timeout":
            raise TargetError(
                f"{self.target.authority}{self.target.resource(path)}: {response.detail}: name what"
                " the server is with --endpoint and --model, or look after it."
            )
        return response

    async def answer(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        enough: Callable[[Sequence[Piece]], bool] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Send one request and wait for its response, complete or not.

        Args:
            method: GET or POST; a gRPC call is a POST.
            path: without the target's prefix.
            body: of a POST.
            enough: whether so much of the body will do; then the connection is closed, which tells
                the server to stop, and the response's `error` is "cut".
            timeout_s: for the response; None: the prober's own.

        Raises:
            TargetError: the server cannot be reached.
        """
        data = as_sent(self.target, path, body).replace(b"POST", method.encode(), 1)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            response = await self._connection.request(
                lambda exchange: _until(exchange, data, limit_s, enough)
            )
        except ConnectError as error:
            raise self._unreachable(error) from error
        self.has_hung_up = self.has_hung_up or response.error in {"cut", "timeout"}
        return response

    async def greeting(self) -> str:
        """Try the other protocols on a server that says nothing to ours; return what it speaks.

        Returns:
            The scheme of a URL; empty: none that we know.
        """
        rpc, tls = self.target.rpc, self.target.tls
        for other_rpc, other_tls in ((rpc, not tls), (not rpc, tls), (not rpc, not tls)):
            other = msgspec.structs.replace(
                self.target,
                rpc=other_rpc,
                tls=other_tls,
                insecure=other_tls,
                headers=(),  # no secret goes to somebody whom nobody knows
            )
            if await _greets(other):
                return ("grpc" if other_rpc else "http") + ("s" if other_tls else "")
        return ""

    def close(self) -> None:
        """Close the connection at once, if there is one; a later request opens a new one."""
        self._connection.close()


async def _until(
    exchange: Exchange,
    data: bytes,
    timeout_s: float,
    enough: Callable[[Sequence[Piece]], bool] | None,
) -> Response:
    """Send a request and wait for its end, or until enough of its body is there."""
    if enough is None:
        return await answered(exchange, data, timeout_s)
    whole = asyncio.ensure_future(answered(exchange, data, timeout_s))
    while not whole.done():
        await asyncio.wait({whole}, timeout=_LOOK_S)
        exchange.parse()
        if not whole.done() and enough(exchange.came_before(perf_counter_ns())):
            exchange.give_up("cut")
    return await whole


async def _greets(target: Target) -> bool:
    """Whether a server takes part in a handshake of TLS, or answers in a protocol without it."""
    try:
        exchange = await connect(target, Meter(), _GREETING_TIMEOUT_S)
    except ConnectError:
        return False
    if target.tls:
        exchange.close()
        return True
    try:
        data = as_sent(target, "/", b"")
        response = await answered(exchange, data.replace(b"POST", b"GET", 1), _GREETING_TIMEOUT_S)
    finally:
        exchange.close()
    return response.status > 0 or (target.rpc and response.error.startswith("grpc-"))
