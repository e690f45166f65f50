"""A relay on the test's own loop, between a scripted server and a client that writes bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from llmdyno.record.afterwards import Afterwards
from llmdyno.record.entries import Passed
from llmdyno.record.relay import Relay
from llmdyno.wire.target import parse_url
from scripted_server import Script, scripted

CHAT = "/v1/chat/completions"


class Passing:
    """A relay that listens: its address, and what it has kept."""

    def __init__(self, port: int, kept: list[Passed], relays: set[Relay]) -> None:
        self.port = port
        self.kept = kept
        self.relays = relays

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, and return all that comes until it ends."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()

    async def until_kept(self, count: int = 1) -> list[Passed]:
        async with asyncio.timeout(5):
            while len(self.kept) < count:  # noqa: ASYNC110  # filled by another task
                await asyncio.sleep(0.001)
        return self.kept


@asynccontextmanager
async def passing_to(url: str) -> AsyncIterator[Passing]:
    """Listen before the server of this URL."""
    kept: list[Passed] = []
    relays: set[Relay] = set()
    later = Afterwards(asyncio.get_running_loop())

    def made() -> Relay:
        relay = Relay(parse_url(url), kept.append, relays.discard, later.call)
        relays.add(relay)
        return relay

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        yield Passing(server.sockets[0].getsockname()[1], kept, relays)
    finally:
        server.close()
        for relay in list(relays):
            relay.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def passing(script: Script) -> AsyncIterator[Passing]:
    """Listen before a server of this script."""
    async with scripted(script) as url, passing_to(url) as proxy:
        yield proxy


def post(document: object, *headers: str, path: str = CHAT) -> bytes:
    """Return a request with a JSON body."""
    body = msgspec.json.encode(document)
    lines = [f"POST {path} HTTP/1.1", "Host: client", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
