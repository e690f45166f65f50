"""Asks a server the fixed prompts: greedy, with a seed, with log-probabilities if it gives them.

The endpoint's plug-in writes the body. Of OpenAI's two endpoints the answer is asked for in one
piece, with as much about its tokens as the server grants: the likeliest tokens, else the chosen
one, else its text alone. All other endpoints stream, and give text.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec

from llmdyno import endpoints
from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask
from llmdyno.errors import TargetError
from llmdyno.faults import http_fault, meaning
from llmdyno.quality.answers import Answers, Said, read_whole
from llmdyno.quality.prompts import prompts as built_in
from llmdyno.wire.target import Target

TOKENS_MAX = 48
CONCURRENCY = 8
SEED = 0
TIMEOUT_S = 300.0
_REFUSED = frozenset({400, 404, 415, 422, 501})
_TOKENS_MIN = 8  # of an answer of a slow server, and of the first that shows its speed
_PROMPTS_MIN = 4


async def ask_server(
    target: Target,
    *,
    endpoint: str = endpoints.AUTO,
    model: str = "",
    tokens_max: int = TOKENS_MAX,
    concurrency: int = CONCURRENCY,
    again: bool = True,
    prompts: Sequence[str] = (),
    seconds_max: float | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Answers:
    """Ask each prompt alone, again if wanted, and with others at once.

    Args:
        target: the server.
        endpoint: its protocol, or "auto".
        model: that requests name; empty: the server's first.
        tokens_max: of each answer.
        concurrency: of the requests at once.
        again: whether to ask twice alone; the two show how far the server repeats itself.
        prompts: what is asked; none: the built-in ones.
        seconds_max: about how long it may take; a slow server gets shorter answers to make, and
            fewer prompts. None: as long as it takes.
        notify: is told in a line what is asked.

    Raises:
        TargetError: the server does not answer, or refuses a prompt.
    """
    wanted = list(prompts) or built_in()
    async with contextlib.AsyncExitStack() as stack:
        prober = Prober(target, timeout_s=TIMEOUT_S)
        stack.callback(prober.close)
        name, model = await detect(prober, endpoint, model)
        asker = _Asker(name, model, tokens_max)
        await asker.choose_rung(prober, wanted[0])
        if seconds_max is not None:
            wanted = wanted[: await _fit(asker, prober, wanted, seconds_max)]
            tokens_max = asker.tokens_max
        notify(f"asking {len(wanted)} prompts, one at a time")
        alone = [await asker.ask(prober, prompt) for prompt in wanted]
        second = [await asker.ask(prober, prompt) for prompt in wanted] if again else []
        notify(f"asking {len(wanted)} prompts, {concurrency} at once")
        loaded = await _at_once(asker, target, wanted, concurrency)
    return Answers(
        endpoint=name,
        model=model,
        tokens_max=tokens_max,
        prompts=wanted,
        alone=alone,
        again=second,
        loaded=loaded,
        concurrency=concurrency,
    )


async def _fit(asker: "_Asker", prober: Prober, prompts: Sequence[str], seconds_max: float) -> int:
    """Set how long answers may be, and return how many prompts fit into the time.

    A short answer shows how fast the server is alone. Two passes of three are made so.
    """
    tokens_max = asker.tokens_max
    asker.tokens_max = min(_TOKENS_MIN, tokens_max)
    began_s = monotonic()
    await asker.ask(prober, prompts[0])
    token_s = (monotonic() - began_s) / asker.tokens_max
    afforded = seconds_max / max(token_s, 1e-6) / 2.5  # tokens alone; the third pass is shorter
    asker.tokens_max = int(min(tokens_max, max(_TOKENS_MIN, afforded / len(prompts))))
    return max(_PROMPTS_MIN, min(len(prompts), int(afforded / asker.tokens_max)))


async def _at_once(
    asker: "_Asker", target: Target, prompts: Sequence[str], concurrency: int
) -> list[Said]:
    found: dict[int, Said] = {}
    waiting = iter(enumerate(prompts))

    async def work() -> None:
        prober = Prober(target, timeout_s=TIMEOUT_S)
        with contextlib.closing(prober):
            for number, prompt in waiting:
                found[number] = await asker.ask(prober, prompt)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except* TargetError as errors:
        raise errors.exceptions[0] from None
    return [found[number] for number in range(len(prompts))]


class _Asker:
    """Asks in one protocol, and knows what the server grants."""

    def __init__(self, endpoint: str, model: str, tokens_max: int) -> None:
        self._endpoint = endpoints.load(endpoint)
        self._model = model
        self.tokens_max = tokens_max
        self._rungs = endpoints.logprobs(self._endpoint)
        self._rung: Mapping[str, Any] | None = None  # None: text alone
        self._renamed: Mapping[str, str] = {}

    async def choose_rung(self, prober: Prober, prompt: str) -> None:
        """Find out how much the server tells of its tokens."""
        tokens_max, self.tokens_max = self.tokens_max, 1
        for rung in self._rungs:
            self._rung = rung
            try:
                said = await self._ask(prober, prompt)
            except _RefusedError:
                continue
            if said.tokens and said.logprobs:
                break
        else:
            self._rung = None
        self.tokens_max = tokens_max

    async def ask(self, prober: Prober, prompt: str) -> Said:
        """Ask one prompt.

        Raises:
            TargetError: there is no whole answer.
        """
        try:
            return await self._ask(prober, prompt)
        except _RefusedError as error:
            raise TargetError(str(error)) from error

    async def _ask(self, prober: Prober, prompt: str) -> Said:
        path = self._endpoint.path(self._model)
        response = await prober.ask("POST", path, self._body(prompt))
        if response.status in {400, 422}:
            words = self._endpoint.error_of(response.body())
            renamed = endpoints.adapted(self._endpoint, words, self._renamed)
            if renamed != self._renamed:
                self._renamed = renamed
                response = await prober.ask("POST", path, self._body(prompt))
        where = f"{prober.target.authority}{prober.target.resource(path)}"
        if response.status != 200:
            words = self._endpoint.error_of(response.body()) or meaning(http_fault(response.status))
            said = f"{where}: status {response.status}: {prober.target.redact(words)}"
            raise (_RefusedError if response.status in _REFUSED else TargetError)(said)
        if self._rung is not None:
            answer = read_whole(response.body())
            if answer is None:
                raise _RefusedError(f"{where}: the answer in one piece is none of OpenAI's.")
            return answer
        reply = self._endpoint.read(response.pieces)
        if reply.error:
            raise TargetError(f"{where}: {reply.error}: {reply.detail}.")
        return Said(text="".join(reply.texts), finish=reply.finish)

    def _body(self, prompt: str) -> bytes:
        ask = Ask(
            prompt=prompt,
            model=self._model,
            max_tokens=self.tokens_max,
            temperature=0.0,
            renamed=self._renamed,
            extra={"seed": SEED} if self._rungs else {},
        )
        body = self._endpoint.body(ask)
        if self._rung is None:
            return body
        fields = msgspec.json.decode(body)
        fields = {name: one for name, one in fields.items() if name != "stream_options"}
        return msgspec.json.encode({**fields, "stream": False, **self._rung})


class _RefusedError(Exception):
    """The server does not take a request as it was asked."""
