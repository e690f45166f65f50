"""Questions to a server outside any measurement: what it is, how it counts.

Before and after a level, never during it; over one connection, kept alive between questions.
"""

import asyncio

from llmdyno.errors import TargetError
from llmdyno.faults import REDIRECTS
from llmdyno.wire.grpc import as_sent, connect
from llmdyno.wire.http1 import ConnectError, Exchange, Meter, Response, Target

TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0


class Prober:
    """Asks one server."""

    def __init__(self, target: Target, *, timeout_s: float = TIMEOUT_S) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self._connection: Exchange | None = None

    async def reach(self) -> Exchange:
        """Connect, unless we are.

        Raises:
            TargetError: nobody is there.
        """
        if self._connection is None or not self._connection.usable:
            try:
                self._connection = await connect(self.target, Meter(), timeout_s=_CONNECT_TIMEOUT_S)
            except ConnectError as error:
                raise TargetError(
                    f"--url {self.target.authority}: {error} ({error.kind})."
                ) from error
        return self._connection

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        """Send one request and wait for its end.

        Raises:
            TargetError: nobody answers.
        """
        response = await self._answer(method, path, body)
        if response.error:
            raise TargetError(
                f"{self.target.authority}{self.target.prefix}{path}:"
                f" {response.detail or response.error} ({response.error})."
            )
        if response.status in REDIRECTS:
            where = self.target.redact(response.headers.get("location", "elsewhere"))
            raise TargetError(
                f"{self.target.authority}{self.target.prefix}{path}: redirects to {where}."
            )
        return response

    async def look(self, path: str) -> Response:
        """GET a path that need not exist: a server that hangs up at it has just not answered.

        Raises:
            TargetError: it is not there any more, or keeps silent, as it would at the next one.
        """
        response = await self._answer("GET", path, b"")
        if response.error == "timeout":
            raise TargetError(
                f"{self.target.authority}{self.target.prefix}{path}: {response.detail}: name what"
                " the server is with --endpoint and --model, or look after it."
            )
        return response

    async def _answer(self, method: str, path: str, body: bytes) -> Response:
        data = as_sent(self.target, path, body).replace(b"POST", method.encode(), 1)
        kept = self._connection is not None and self._connection.usable
        response = await self._exchange(data)
        if kept and response.first_byte_ns < 0 and response.error in {"no-response", "reset"}:
            response = await self._exchange(data)  # it was closed just as we sent
        return response

    async def _exchange(self, data: bytes) -> Response:
        connection = await self.reach()
        done = connection.send(data)
        timer = asyncio.get_running_loop().call_later(
            self._timeout_s, connection.give_up, "timeout", f"no answer in {self._timeout_s:g} s"
        )
        try:
            return await done
        finally:
            timer.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
