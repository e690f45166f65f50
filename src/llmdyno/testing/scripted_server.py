"""A server that answers with exactly the bytes a test gives it, cut where the test cuts them.

It runs on the test's own event loop. Each connection is given to a script, a coroutine that reads
requests and writes what it likes.
"""

import asyncio
import itertools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[["Client"], Awaitable[None]]
Answer = Callable[["Client"], Awaitable[None]]  # to one request that has been read


class Client:
    """One connection as the script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = b""  # of the last request
        self.path = ""

    async def request(self) -> bytes:
        """Read one request whole; return its body."""
        return (await self.asked())[1]

    async def asked(self) -> tuple[str, bytes]:
        """Read one request whole; return its method and path, and its body."""
        head = self.head = await self._reader.readuntil(b"\r\n\r\n")
        self.path = head.split()[1].decode()
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = await self._reader.readexactly(length)
        return head.split(b" HTTP/")[0].decode(), body

    async def some(self) -> bytes:
        """Read whatever comes first, in any protocol."""
        return await self._reader.read(65_536)

    async def send(self, *pieces: bytes, pause_s: float = 0.01) -> None:
        """Send pieces, each in a write of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(pause_s)

    async def relay(self, host: str, port: int) -> None:
        """Be a wire to another server, until one of the two hangs up."""
        reader, writer = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(_pipe(self._reader, writer), _pipe(reader, self._writer))
        finally:
            writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN: what a linger of 0 s does."""
        channel = self._writer.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()


@asynccontextmanager
async def scripted(
    script: Script, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a script on a loopback port, a free one if not told; yield the base URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Client(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, as it may
        except asyncio.CancelledError:
            pass  # the test is over; asyncio of Python 3.11 logs the cancellation as an error
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0)


def raw(*pieces: bytes, close: bool = False, reset: bool = False, pause_s: float = 0.0) -> Answer:
    """Answer with these very bytes, a write each; then close or reset the connection if asked."""

    async def answer(client: Client) -> None:
        await client.send(*pieces, pause_s=pause_s)
        if reset:
            client.reset()
        if close or reset:
            raise ConnectionError

    return answer


def answering(*answers: Answer) -> Script:
    """Answer the requests of all connections together one after the other, the last for ever."""
    numbers = itertools.count()

    async def script(client: Client) -> None:
        while True:
            await client.request()
            await answers[min(next(numbers), len(answers) - 1)](client)

    return script


def chunk(text: str, finish: str = "null") -> bytes:
    """Return one chat chunk as an SSE event."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}\n\n' % (
        text.encode(),
        finish.encode(),
    )


DONE = b"data: [DONE]\n\n"
STOP = chunk("", '"stop"')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def framed(body: bytes) -> bytes:
    """Return a part of a body in HTTP chunk framing."""
    return b"%x\r\n%s\r\n" % (len(body), body)


def plain(status: str, body: bytes, *headers: str) -> bytes:
    """Return a whole response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
