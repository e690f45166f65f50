"""`--endpoint auto`: asks a server which protocol it speaks and which model it serves.

run.py asks before anything is measured. How a protocol is recognised stands in the endpoint's own
file (`Endpoint.detect`), as does its place in the order; here they are asked one after the other.
Nothing is generated where a server describes itself.
"""

from llmdyno import endpoints
from llmdyno.bench.prober import Prober
from llmdyno.errors import TargetError
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import Target


async def detect(prober: Prober, endpoint: str, model: str) -> tuple[str, str]:
    """Return the names of the endpoint and the model; it asks the server for those not given.

    Args:
        prober: connected to the server, or not yet.
        endpoint: its name, or "auto".
        model: its name, or "" to ask for it.

    Raises:
        UsageError: there is no such endpoint.
        TargetError: nobody answers, or it speaks nothing that we know; says what was tried.
    """
    await prober.reach()
    if endpoint != endpoints.AUTO:
        return endpoint, model or await endpoints.choose_model(endpoints.load(endpoint), prober)
    server = _AskedOnce(prober)
    tried: dict[str, None] = {}  # each answer once, in order
    for candidate in endpoints.detectable(rpc=prober.target.rpc):
        found = await candidate.detect(server, model)
        if found.speaks:
            return candidate.name, found.model
        if found.why_not:
            tried[found.why_not] = None
    said = prober.target.redact("; ".join(tried))
    raise TargetError(
        f"{prober.target.authority} speaks no endpoint that we know ({said}):"
        " name one with --endpoint, and its model with --model."
    )


class _AskedOnce:
    """A server whose answer to a GET is remembered: several endpoints look at the same path."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._seen: dict[str, Response] = {}

    @property
    def target(self) -> Target:
        return self._prober.target

    async def look(self, path: str) -> Response:
        if path not in self._seen:
            self._seen[path] = await self._prober.look(path)
        return self._seen[path]

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        return await self._prober.ask(method, path, body)
