"""One user, one scripted server, one answer a request: what a fault becomes on its record."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from endpoint_streams import STREAMS
from llmdyno import endpoints
from llmdyno.load.level import Level
from llmdyno.load.progress import Progress
from llmdyno.records.entries import Record
from llmdyno.testing import load as loads
from llmdyno.testing.scripted_server import Answer, answering, raw
from scripted_server import END, HEAD, Client, Script, framed

__all__ = [
    "Answer",
    "answering",
    "body_of",
    "come",
    "drive",
    "overheard",
    "raw",
    "run",
    "silence",
    "tokens_of",
    "whole",
]


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
    return await loads.drive(
        url,
        endpoints.load(endpoint),
        users=users,
        then=then,
        target=target,
        prompt=prompt,
        **load,
    )


def run(script: Script, endpoint: str = "openai-chat", **load: Any) -> list[Record]:
    """Serve a script, run one level against it, and return the records."""
    return loads.run(script, endpoints.load(endpoint), **load)


@contextmanager
def overheard() -> Iterator[list[Record]]:
    """Yield a list that gets the records of a level while it runs."""
    heard: list[Record] = []
    add = Progress.add

    def note(progress: Progress, record: Record) -> None:
        add(progress, record)
        heard.append(record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "add", note)
        yield heard


async def come(records: list[Record], error: str, times: int) -> None:
    """Wait until so many more records with this error have come; an empty one: completed."""
    before = len(records)
    async with asyncio.timeout(60):
        while sum(record.error == error for record in records[before:]) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
