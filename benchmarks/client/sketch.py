"""The least that a Python client can do: an asyncio.Protocol on uvloop that stamps and counts.

It splits nothing and decodes nothing: an event is a read, a response ends where the server's end
mark is the read's last bytes. What it costs is what an event loop costs; it is no load generator.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


class Stream(asyncio.Protocol):
    """One user: asks again as soon as it has its answer, until all have been asked for."""

    def __init__(self, request: bytes, left: list[int], ttft_ns: list[int]) -> None:
        self._request = request
        self._left = left
        self._ttft_ns = ttft_ns
        self._sent_ns = 0
        self._first = True
        self.reads = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its classes
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Stamp the first read of a response, count the others."""
        now_ns = time.perf_counter_ns()
        self.reads += 1
        if self._first:
            self._first = False
            self._ttft_ns.append(now_ns - self._sent_ns)
        if data.endswith(_END):
            self._ask()

    def _ask(self) -> None:
        if not self._left[0]:
            self.done.set_result(None)
            self._transport.abort()
            return
        self._left[0] -= 1
        self._first = True
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)


async def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    ask = {
        "model": "streamer",
        "stream": True,
        "max_tokens": given.tokens,
        "messages": [{"role": "user", "content": "word " * 16}],
    }
    body = json.dumps(ask).encode()
    parts = urlsplit(given.url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    left, ttft_ns = [given.requests], list[int]()
    loop = asyncio.get_running_loop()
    streams = []
    for _ in range(given.users):
        _, stream = await loop.create_connection(
            lambda: Stream(head.encode() + body, left, ttft_ns),
            parts.hostname,
            parts.port,
        )
        streams.append(stream)
    await asyncio.gather(*(stream.done for stream in streams))
    ttft_ms = np.array(ttft_ns) / 1e6
    p50, p99 = np.quantile(ttft_ms, (0.5, 0.99))
    result = {
        "ttft_ms": {"mean": float(ttft_ms.mean()), "p50": float(p50), "p99": float(p99)},
        "requests": len(ttft_ns),
        "tokens": sum(stream.reads for stream in streams),
    }
    given.out.write_text(json.dumps(result))


uvloop.run(main())
