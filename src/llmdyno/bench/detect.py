"""`--endpoint auto`: asks a server which protocol it speaks and which model it serves.

run.py asks before anything is measured. How a protocol is recognised stands in the endpoint's own
file (`Endpoint.detect`), as does its place in the order; here they are asked one after the other.
Nothing is generated where a server describes itself.
"""

import msgspec

from llmdyno import endpoints
from llmdyno.bench.answers import (
    Answer,
    explain,
    foreign_json,
    unknown_paths,
    wrong_model,
)
from llmdyno.bench.prober import Prober
from llmdyno.errors import TargetError
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import Target

# How a response ends that a server gives who expects another protocol.
_SILENT = frozenset({"no-response", "reset"})


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
    server = _Listener(prober)
    if endpoint != endpoints.AUTO:
        return endpoint, model or await _choose_model(server, endpoint)
    tried: dict[str, None] = {}  # each answer once, in order
    try:
        for candidate in endpoints.detectable(rpc=prober.target.rpc):
            found = await candidate.detect(server, model)
            if found.speaks:
                return candidate.name, found.model
            if found.why_not:
                tried[found.why_not] = None
    except TargetError as error:
        if said := await server.explained():
            raise TargetError(f"{prober.target.authority}: {said}.") from error
        raise
    answers = f" ({prober.target.redact('; '.join(tried))})" if tried else ""
    if said := await _why_unknown(server, model):
        raise TargetError(f"{prober.target.authority}: {said}{answers}.")
    raise TargetError(
        f"{prober.target.authority} speaks no endpoint that we know{answers}:"
        " name one with --endpoint, and its model with --model."
    )


async def _choose_model(server: "_Listener", endpoint: str) -> str:
    try:
        return await endpoints.choose_model(endpoints.load(endpoint), server)
    except TargetError as error:
        if said := await server.explained():
            raise TargetError(
                f"{server.target.authority}: {said}; or name the model with --model."
            ) from error
        raise


async def _why_unknown(server: "_Listener", model: str) -> str:
    """Return what a server is that speaks no endpoint that we know; empty: no idea."""
    if said := await server.explained():
        return said
    if not server.target.rpc and model:
        known = await endpoints.listed_models(server)
        if known and model not in known:
            return wrong_model(model, known)
    target = server.target
    nowhere = unknown_paths(target, server.answers)
    if not nowhere:
        return foreign_json(server.answers)
    if target.prefix and await _answers_at_its_root(target):
        return (
            f"it knows no endpoint below {target.prefix}, but one without it: leave it out in --url"
        )
    for path in ("/metrics", "/"):
        await server.look(path)
    unnamed = "" if model else "; if it does not list its models, name one with --model"
    return await server.explained() or foreign_json(server.answers) or nowhere + unnamed


async def _answers_at_its_root(target: Target) -> bool:
    prober = Prober(msgspec.structs.replace(target, prefix="", version="", query=""))
    try:
        return bool(await endpoints.listed_models(prober))
    finally:
        prober.close()


class _Listener:
    """A server of which every answer is remembered; a GET is sent once, however many ask for it."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._seen: dict[str, Response] = {}
        self.answers: list[Answer] = []

    @property
    def target(self) -> Target:
        """Where it is: scheme, host, port and base path."""
        return self._prober.target

    async def look(self, path: str) -> Response:
        """GET a path that may not exist: see Prober.look."""
        if path not in self._seen:
            self._seen[path] = await self._prober.look(path)
            self._note("GET", path, self._seen[path])
        return self._seen[path]

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        """Send one request: see Prober.ask."""
        response = await self._prober.answer(method, path, body)
        self._note(method, path, response)
        self._prober.require(path, response)
        return response

    async def explained(self) -> str:
        """Return what the answers so far tell about the server, in a sentence without an end."""
        if said := explain(self.target, self.answers):
            return said
        silent = self.answers and all(answer.response.error in _SILENT for answer in self.answers)
        if silent and (scheme := await self._prober.greeting()):
            elsewhere = "gRPC has a port of its own (Triton: 8001)" if self.target.rpc else ""
            said = f"the server speaks another protocol: give its URL with {scheme}://"
            return f"{said}; {elsewhere}" if elsewhere else said
        return ""

    def _note(self, method: str, path: str, response: Response) -> None:
        self.answers.append(Answer(method, path, response))
