"""One user, one scripted server, one answer a request: what a fault becomes on its record.

On uvloop, because that is what a benchmark runs on.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

import uvloop

from endpoint_streams import STREAMS
from llmdyno import plugins, spec
from llmdyno.load.level import Level
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Record
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url
from llmdyno.workload.prompts import Prompts
from scripted_server import END, HEAD, Client, Script, framed, scripted

Answer = Callable[[Client], Awaitable[None]]


def raw(*pieces: bytes, close: bool = False, reset: bool = False, pause_s: float = 0.0) -> Answer:
    """Answer with these very bytes, a write each; then close or reset the connection if asked."""

    async def answer(client: Client) -> None:
        await client.send(*pieces, pause_s=pause_s)
        if reset:
            client.reset()
        if close or reset:
            raise ConnectionError

    return answer


def silence(*pieces: bytes) -> Answer:
    """Answer with these bytes, and then nothing for longer than any test waits."""

    async def answer(client: Client) -> None:
        await client.send(*pieces)
        await asyncio.sleep(60)

    return answer


def body_of(endpoint: str) -> list[bytes]:
    """Return a whole stream of two tokens, in parts."""
    stream = STREAMS[endpoint]
    parts = [stream.text("a"), stream.text("é"), stream.end(2)]
    return [part for part in parts if part]


def tokens_of(endpoint: str) -> int:
    """Return how many tokens body_of() counts for."""
    return 2 + STREAMS[endpoint].silent_tokens


def whole(endpoint: str) -> Answer:
    """Answer as a server should."""
    return raw(HEAD + b"".join(map(framed, body_of(endpoint))) + END)


def answering(*answers: Answer) -> Script:
    """Answer the requests of all connections together one after the other, the last for ever."""
    numbers = itertools.count()

    async def script(client: Client) -> None:
        while True:
            await client.request()
            await answers[min(next(numbers), len(answers) - 1)](client)

    return script


async def drive(
    url: str,
    endpoint: str = "openai-chat",
    users: int = 1,
    then: Callable[[Level], None] = lambda _level: None,
    target: Any = None,
    prompt: str = "",
    **load: Any,
) -> list[Record]:
    """Run one level and return its records; `prompt` is put before each one's own."""
    entries: list[Any] = []
    plan = Plan(
        level=0,
        users=users,
        load=spec.Load(**{"users": (users,), "ramp_s": 0.0, "think_s": 0.0, **load}),
        target=target or parse_url(url),
        endpoint=plugins.load("endpoints", endpoint),
        model="m",
    )
    recorder = Recorder(
        sink=entries.append,
        zero_ns=perf_counter_ns(),
        meter=Meter(),
        progress=Progress(),
    )
    level = Level(plan, Prompts(spec.Workload(system_prompt=prompt)), recorder)
    await level.run()
    then(level)
    return [entry for entry in entries if isinstance(entry, Record)]


def run(script: Script, endpoint: str = "openai-chat", **load: Any) -> list[Record]:
    """Serve a script, run one level against it, and return the records."""

    async def main() -> list[Record]:
        async with scripted(script) as url:
            return await drive(url, endpoint, **load)

    return uvloop.run(main())
