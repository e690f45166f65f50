"""A fuzzer of everything that reads a response: HTTP, compression, events, tokens.

    python tests/faults/fuzz_reader.py --inputs 1000000 [--seed 0]

Half of the inputs are whole responses of every endpoint in every framing, cut anywhere: they must
come out byte for byte, with the same tokens. The other half are such responses mutated, and random
bytes: they must end with a class of the table, whatever they are. In both, nothing may raise, every
read has its stamp, and when the connection ends the request has ended. No socket is in it: the
connection is fed as an event loop feeds it.
"""

import argparse
import asyncio
import gzip
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any, cast

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))  # as a script it starts in its own folder

from endpoint_streams import STREAMS
from llmdyno import plugins
from llmdyno.endpoints import Endpoint
from llmdyno.faults import meaning
from llmdyno.wire.exchange import Meter, Response
from llmdyno.wire.http1 import Connection
from llmdyno.wire.reply import by_read, count_tokens
from scripted_server import framed

TEXTS = ("a", " word", "é漢😀", '"\\', "\n", "data: x", "0\r\n\r\n", "x" * 300)
# What a mutation puts in: bytes that mean something to one of the readers.
WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\r", b"0\r\n\r\n", b"0\r\n", b"fffffffff\r\n", b"\x00"),
    *(b"data: ", b"data: [DONE]\n\n", b'{"error":', b'{"status":"error"}', b"HTTP/1.1 200 OK\r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 5\r\n", b"Connection: close\r\n"),
    *(
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"\x1f\x8b",
        b"9" * 9,
    ),
)


class Wire:
    """What a connection needs of a transport."""

    def __init__(self) -> None:
        self.closing = False

    def write(self, data: bytes) -> None:
        assert data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Whole(msgspec.Struct, frozen=True):
    """A response that lacks nothing."""

    endpoint: Endpoint
    data: bytes
    body: bytes
    ends_by_closing: bool


def make_whole(rng: random.Random) -> Whole:
    """Make a response of any endpoint in any framing."""
    name = rng.choice(sorted(STREAMS))
    stream = STREAMS[name]
    texts = [rng.choice(TEXTS) for _ in range(rng.randrange(1, 9))]
    parts = [part for part in (*map(stream.text, texts), stream.end(len(texts))) if part]
    body = b"".join(parts)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    coding = rng.choice((None, None, None, b"gzip", b"deflate"))
    if coding:
        head += b"Content-Encoding: %s\r\n" % coding
        parts = [gzip.compress(body, 1) if coding == b"gzip" else zlib.compress(body)]
    framing = rng.choice(("chunked", "chunked", "chunked", "length", "close"))
    if framing == "chunked":
        trailer = rng.choice((b"", b"", b"X-Time: 1\r\n"))
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(framed, parts))
        data += b"0\r\n" + trailer + b"\r\n"
    else:
        packed = b"".join(parts)
        length = b"Content-Length: %d\r\n" % len(packed) if framing == "length" else b""
        data = head + length + b"\r\n" + packed
    return Whole(plugins.load("endpoints", name), data, body, framing == "close")


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change a response in a few places."""
    for _ in range(rng.randrange(1, 4)):
        low = rng.randrange(len(data) + 1)
        high = min(len(data), low + rng.randrange(12))
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:low] + rng.randbytes(rng.randrange(1, 4)) + data[high:]
        elif kind == 1:
            data = data[:low] + data[high:]
        elif kind == 2:
            data = data[:low] + data[low:high] * 2 + data[high:]
        elif kind == 3:
            data = data[:low] + rng.choice(WORDS) + data[low:]
        else:
            data = data[:low]
    return data


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut into reads, none of them empty."""
    edges = sorted(
        {rng.randrange(len(data) + 1) for _ in range(rng.randrange(12))} - {0, len(data)}
    )
    return [data[low:high] for low, high in zip([0, *edges], [*edges, len(data)], strict=True)]


def exchange(connection: Connection, rng: random.Random, reads: list[bytes]) -> Response | None:
    """Ask once and feed the reads; return the response if it has ended by itself."""
    done = connection.send(b"POST / HTTP/1.1\r\n\r\n")
    for data in reads:
        if not connection.usable:
            break
        if data:
            connection.data_received(data)
        if rng.randrange(8) == 0:
            connection.look_after(time.perf_counter_ns() + 2_000_000_000)
    return done.result() if done.done() else None


def check_stamps(response: Response, reads: int) -> None:
    """Every read is counted and no stamp is out of order."""
    stamps = [response.sent_ns, *(stamp for stamp, _ in response.pieces)]
    assert stamps == sorted(stamps)
    assert response.end_ns >= stamps[-1]
    assert response.reads <= reads
    assert (response.first_byte_ns >= response.sent_ns) == (response.reads > 0)


def try_whole(rng: random.Random, whole: Whole) -> None:
    """A whole response, cut anywhere, twice on one connection, is whole and nothing is lost."""
    connection = new_connection()
    expected = whole.endpoint.read([(0, whole.body)])
    for _ in range(1 if whole.ends_by_closing else 2):
        reads = cut(rng, whole.data)
        if whole.ends_by_closing:
            done = connection.send(b"x")
            for data in reads:
                connection.data_received(data)
            connection.connection_lost(None)
            response = done.result()
        else:
            found = exchange(connection, rng, reads)
            assert found is not None, "it has not ended"
            response = found
        check_stamps(response, len(reads))
        assert (response.error, response.status) == ("", 200), response.detail
        assert response.body() == whole.body
        assert response.reads == len(reads)
        reply = whole.endpoint.read(response.pieces)
        assert sum(map(len, reply.texts)) == sum(map(len, expected.texts))
        assert (reply.ended, reply.finish) == (expected.ended, expected.finish)
        assert (reply.error, reply.output_tokens) == (expected.error, expected.output_tokens)
        if not whole.endpoint.ends_with_body:
            assert len(reply.stamps_ns) == len(expected.stamps_ns)


def try_broken(rng: random.Random, data: bytes, endpoint: Endpoint) -> str:
    """Whatever comes, the request ends, with a class of the table or without."""
    connection = new_connection()
    reads = cut(rng, data)
    done = None
    if rng.randrange(10) == 0:  # the server speaks first
        connection.data_received(reads.pop(0)) if reads[0] else None
    response = exchange(connection, rng, reads)
    if response is None:
        done = connection._done
        if rng.randrange(2):
            connection.give_up("timeout")
        else:
            connection.connection_lost(None if rng.randrange(2) else ConnectionResetError())
        assert done is not None
        response = done.result()
    elif connection.usable:  # the next request must end, too
        after = connection.send(b"x")
        connection.data_received(data[:50] or b"x")
        connection.give_up("timeout")
        assert after.done()
    check_stamps(response, len(reads) + 1)
    assert not response.error or meaning(response.error)
    reply = endpoint.read(response.pieces)
    tokens, _ = count_tokens(reply)
    gaps_ns, _ = by_read(reply.stamps_ns, tokens, response.sent_ns)
    assert min(gaps_ns, default=0) >= 0
    endpoint.error_of(response.body())
    return response.error


def new_connection() -> Connection:
    """Return a connection that is open."""
    connection = Connection(Meter())
    connection.connection_made(cast("asyncio.BaseTransport", Wire()))
    return connection


def try_one(rng: random.Random) -> str:
    """Try one input; return what came of it."""
    kind = rng.randrange(20)
    whole = make_whole(rng)
    if kind < 10:
        try_whole(rng, whole)
        return "whole"
    if kind == 10:
        return try_broken(rng, rng.randbytes(rng.randrange(200)), whole.endpoint)
    return try_broken(rng, mutate(rng, whole.data), whole.endpoint)


async def fuzz(inputs: int, seed: int) -> dict[str, int]:
    """Try so many inputs; return how many there were of each outcome."""
    found: dict[str, int] = {}
    for number in range(inputs):
        try:
            outcome = try_one(random.Random(f"{seed}/{number}"))
        except BaseException:
            sys.stderr.write(f"input {seed}/{number}\n")
            raise
        found[outcome] = found.get(outcome, 0) + 1
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fuzz the reader of responses.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given: Any = parser.parse_args()
    began_s = time.monotonic()
    found = asyncio.run(fuzz(given.inputs, given.seed))
    took_s = time.monotonic() - began_s
    sys.stdout.write(f"{given.inputs} inputs in {took_s:.0f} s: {found}\n")


if __name__ == "__main__":
    main()
