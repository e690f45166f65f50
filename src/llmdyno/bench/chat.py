"""`dyno chat`: one conversation with a server, and what each answer took."""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns

import msgspec

from llmdyno import endpoints
from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.errors import TargetError
from llmdyno.faults import REDIRECTS, http_fault, meaning
from llmdyno.wire.connect import as_sent, connect
from llmdyno.wire.exchange import Exchange, Meter, Response
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import Reply, count_tokens, unstreamed
from llmdyno.wire.request import KeptConnection, answered
from llmdyno.wire.target import Target

TIMEOUT_S = 600.0
_LOOK_S = 0.02  # how often new text is shown


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer took; times as the connection's reads came."""

    ttft_ms: float
    e2e_ms: float
    token_rate: float | None  # output tokens a second after the first ones; None: there are none
    input_tokens: int | None
    output_tokens: int
    unstreamed: int  # tokens that the server counts and did not stream
    reads: int  # that brought text; one: it came whole
    source: str  # of the counts: "usage" or "chunks"
    finish: str


class Chat:
    """One conversation with a server; `close` it at the end.

    Args:
        target: the server.
        endpoint: the protocol that it speaks.
        model: that requests name.
        tensors: the model's inputs, for an endpoint that needs them.
        system_prompt: before everything; empty: none.
        max_tokens: of each answer; None: the server decides.
    """

    def __init__(
        self,
        target: Target,
        endpoint: Endpoint,
        model: str,
        *,
        tensors: tuple[Tensor, ...] = (),
        system_prompt: str = "",
        max_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.endpoint = endpoint
        self._target = target
        self._tensors = tensors
        self._system_prompt = system_prompt
        self._max_tokens = max_tokens
        self._said: list[tuple[str, str]] = []
        self._connection = KeptConnection(lambda: connect(target, Meter()))

    async def ask(self, prompt: str, show: Callable[[str], None]) -> Turn:
        """Ask with all that was said before, and wait for the answer.

        Args:
            prompt: the question.
            show: takes the answer's text as it comes.

        Raises:
            TargetError: there is no whole answer; the conversation stays as it was.
            ConnectError: the server cannot be reached.
        """
        ask = Ask(
            prompt=prompt,
            system_prompt=self._system_prompt,
            history=tuple(self._said),
            model=self.model,
            max_tokens=self._max_tokens,
            tensors=self._tensors,
        )
        path = self.endpoint.path(self.model)
        data = as_sent(self._target, path, self.endpoint.body(ask))
        shown = _Shown(self.endpoint, show)

        async def send(exchange: Exchange) -> Response:
            watching = asyncio.ensure_future(shown.watch(exchange))
            try:
                return await answered(exchange, data, TIMEOUT_S)
            finally:
                watching.cancel()

        response = await self._connection.request(send)
        reply = self.endpoint.read(response.pieces) if response.status == 200 else Reply()
        shown.rest(reply)
        if why := self._failure(response, reply):
            raise TargetError(f"{self._target.authority}: {self._target.redact(why)}.")
        self._said.append((prompt, "".join(reply.texts)))
        return _turn(response, reply)

    def _failure(self, response: Response, reply: Reply) -> str:
        """Say why there is no whole answer; empty: there is one."""
        if response.status in REDIRECTS:
            return f"redirects to {response.headers.get('location', 'elsewhere')}"
        if response.status and response.status != 200:
            fault = http_fault(response.status)
            said = self.endpoint.error_of(response.body()) or meaning(fault)
            return f"status {response.status}: {said.rstrip('.')}"
        if reply.error:
            return f"{reply.error}: {reply.detail}"
        whole = reply.ended or (self.endpoint.ends_with_body and not response.error)
        if response.error and not (reply.ended and reply.stamps_ns):
            return f"{response.error}: {response.detail or meaning(response.error)}".rstrip(".")
        if not whole and _is_json(response):
            return "not-a-stream: the answer came as one JSON document; the server does not stream"
        if not whole:
            return "truncated: the answer has no finish reason and no end mark"
        return "" if reply.stamps_ns else "no-tokens: the answer has no text"

    def close(self) -> None:
        """Close the connection to the server; the conversation is over."""
        self._connection.close()


class _Shown:
    """Shows the text of an answer as it comes, each part once."""

    def __init__(self, endpoint: Endpoint, show: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._show = show
        self._texts = 0

    async def watch(self, exchange: Exchange) -> None:
        """Look for new text until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            exchange.parse()
            pieces = exchange.came_before(perf_counter_ns())
            if pieces:
                self.rest(self._endpoint.read(pieces))

    def rest(self, reply: Reply) -> None:
        """Show what is new in a reply."""
        new = "".join(reply.texts[self._texts :])
        self._texts = max(self._texts, len(reply.texts))
        if new:
            self._show(new)


def _is_json(response: Response) -> bool:
    """Tell whether a response says of itself that it is JSON, so no stream."""
    return response.headers.get("content-type", "").startswith("application/json")


def _turn(response: Response, reply: Reply) -> Turn:
    tokens, source = count_tokens(reply)
    first_ns, last_ns = reply.stamps_ns[0], reply.stamps_ns[-1]
    first = sum(
        count for count, stamp in zip(tokens, reply.stamps_ns, strict=True) if stamp == first_ns
    )
    later = sum(tokens) - first
    return Turn(
        ttft_ms=(first_ns - response.sent_ns) / 1e6,
        e2e_ms=(last_ns - response.sent_ns) / 1e6,
        token_rate=later / (last_ns - first_ns) * 1e9 if later and last_ns > first_ns else None,
        input_tokens=reply.input_tokens if reply.input_tokens >= 0 else None,
        output_tokens=sum(tokens),
        unstreamed=unstreamed(reply, sum(tokens)),
        reads=len(set(reply.stamps_ns)),
        source=source,
        finish=reply.finish,
    )


async def begin(
    target: Target, endpoint: str, model: str, *, system_prompt: str, max_tokens: int | None
) -> Chat:
    """Ask a server what it is, and return a conversation with it.

    Args:
        target: the server.
        endpoint: its name, or "auto".
        model: its name, or empty: the server's first.
        system_prompt: before everything; empty: none.
        max_tokens: of each answer; None: the server decides.

    Raises:
        UsageError: there is no such endpoint.
        TargetError: nobody answers, or no protocol is known.
    """
    prober = Prober(target)
    try:
        name, model = await detect(prober, endpoint, model)
        spoken = endpoints.load(name)
        tensors = await endpoints.tensors(spoken, prober, model)
    finally:
        prober.close()
    return Chat(
        target,
        spoken,
        model,
        tensors=tensors,
        system_prompt=system_prompt,
        max_tokens=max_tokens,
    )
