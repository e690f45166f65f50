"""Sends single requests to a server outside any measurement: before and after a level.

detect.py, questions.py and recount.py ask through it what the server is and how it counts tokens.
"""

from llmdyno.errors import TargetError
from llmdyno.faults import REDIRECTS
from llmdyno.wire.connect import ConnectError, as_sent, connect
from llmdyno.wire.exchange import Exchange, Meter, Response
from llmdyno.wire.request import KeptConnection, answered
from llmdyno.wire.target import Target

TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0


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
        return TargetError(f"--url {self.target.authority}: {error} ({error.kind}).")

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        """Send one request and wait for its whole response, of any status but a redirect.

        Args:
            method: GET or POST; a gRPC call is a POST.
            path: without the target's prefix.
            body: of a POST.

        Raises:
            TargetError: there is no complete response, or it is a redirect.
        """
        response = await self._answer(method, path, body)
        if response.error:
            raise TargetError(
                f"{self.target.authority}{self.target.resource(path)}:"
                f" {response.detail or response.error} ({response.error})."
            )
        if response.status in REDIRECTS:
            where = self.target.redact(response.headers.get("location", "elsewhere"))
            raise TargetError(
                f"{self.target.authority}{self.target.resource(path)}: redirects to {where}."
            )
        return response

    async def look(self, path: str) -> Response:
        """GET a path that may not exist; if the server hangs up, the response's `error` says so.

        Raises:
            TargetError: the server cannot be reached, or does not answer in time.
        """
        response = await self._answer("GET", path, b"")
        if response.error == "timeout":
            raise TargetError(
                f"{self.target.authority}{self.target.resource(path)}: {response.detail}: name what"
                " the server is with --endpoint and --model, or look after it."
            )
        return response

    async def _answer(self, method: str, path: str, body: bytes) -> Response:
        data = as_sent(self.target, path, body).replace(b"POST", method.encode(), 1)
        try:
            return await self._connection.request(
                lambda exchange: answered(exchange, data, self._timeout_s)
            )
        except ConnectError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close the connection at once, if there is one; a later request opens a new one."""
        self._connection.close()
