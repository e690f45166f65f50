"""What a token costs the client over gRPC: ours, ours over HTTP, and a bare grpcio loop.

    python benchmarks/client/grpc_client.py --users 100 --tokens 128 --itl 20ms --rounds 3

The gRPC server is a process of this file that writes frames of HTTP/2 at their time, a token a
write, as Triton sends them; HTTP has `llmdyno.streamer` at the same timing. grpcio's loop does
nothing with a message but take its time and keep it. Said is user and system time of the client's
whole process in the level, for ours with everything on: parsing, counting, the journal.
"""

import argparse
import asyncio
import itertools
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import grpc
import hpack
import uvloop

from llmdyno import units
from llmdyno.bench import run
from llmdyno.spec import Bench, Load, Workload
from llmdyno.wire import kserve

_PREFACE_BYTES = 24
_READY = hpack.Encoder().encode([(":status", "200"), ("content-type", "application/grpc")])
# A response of Triton's with an ensemble's three outputs, but for the text.
_OUTPUTS = b"".join(
    b"\x2a" + bytes([len(described)]) + described
    for described in (
        b"\n\x10num_input_tokens\x12\x05INT32\x1a\x02\x01\x01",
        b"\n\x11num_output_tokens\x12\x05INT32\x1a\x02\x01\x01",
        b"\n\x0btext_output\x12\x05BYTES\x1a\x02\x01\x01",
    )
)
_HEAD = b"\n\x08ensemble\x12\x011" + b'"\x12\n\x0csequence_end\x12\x02\x08\x00'
_CONTENTS = b"2\x04\x20\0\0\x002\x04\x01\0\0\x002\x0a\x06\0\0\0 token"


def _response(*, final: bool) -> bytes:
    parameter = b'"\x1b\n\x15triton_final_response\x12\x02\x08' + bytes([final])
    response = _HEAD + parameter + _OUTPUTS + _CONTENTS
    length = len(response)
    return kserve.framed(b"\x12" + bytes([length & 0x7F | 0x80, length >> 7]) + response)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


class _Peer(asyncio.Protocol):
    """One connection of the server; every call is answered with so many tokens at their time."""

    def __init__(self, tokens: int, ttft_s: float, itl_s: float) -> None:
        self._tokens, self._ttft_s, self._itl_s = tokens, ttft_s, itl_s
        self._buffer = b""
        self._greeted = False
        self._blocks: dict[int, bytes] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        window = _frame(8, 0, 0, struct.pack(">I", 2**30))
        transport.write(_frame(4, 0, 0, struct.pack(">HI", 4, 2**30)) + window)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._greeted:
            if len(self._buffer) < _PREFACE_BYTES:
                return
            self._buffer, self._greeted = self._buffer[_PREFACE_BYTES:], True
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                return
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            self._hear(frame[3], frame[4], int.from_bytes(frame[5:9], "big"), frame[9:])

    def _hear(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == 4 and not flags:
            self._transport.write(_frame(4, 1, 0))
        elif kind == 6 and not flags:
            self._transport.write(_frame(6, 1, 0, payload))
        elif kind == 1:
            self._blocks[stream] = payload
        elif kind == 0 and flags & 1:
            if b"ModelMetadata" in self._blocks.pop(stream):
                self._end(_frame(1, 4, stream, _READY), stream, kserve.framed(b""))
            else:
                loop = asyncio.get_running_loop()
                due_s = loop.time() + self._ttft_s
                loop.call_at(due_s, self._token, stream, 0, due_s)

    def _token(self, stream: int, number: int, due_s: float) -> None:
        head = _frame(1, 4, stream, _READY) if number == 0 else b""
        if number + 1 == self._tokens:
            self._end(head, stream, _response(final=True))
            return
        self._transport.write(head + _frame(0, 0, stream, _response(final=False)))
        due_s += self._itl_s
        asyncio.get_running_loop().call_at(due_s, self._token, stream, number + 1, due_s)

    def _end(self, head: bytes, stream: int, message: bytes) -> None:
        trailers = hpack.Encoder().encode([("grpc-status", "0")])
        self._transport.write(head + _frame(0, 0, stream, message) + _frame(1, 5, stream, trailers))


async def serve(tokens: int, ttft_s: float, itl_s: float) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Peer(tokens, ttft_s, itl_s), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def bare_grpcio(port: int, users: int, requests: int) -> float:
    """Return the microseconds of CPU that a message takes in a grpcio loop of one channel."""
    numbers = itertools.count()
    stamps: list[tuple[int, bytes]] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(f"{kserve.SERVICE}ModelStreamInfer")

        async def user() -> None:
            while next(numbers) < requests:
                under_way = call()
                await under_way.write(b"x" * 300)
                await under_way.done_writing()
                stamps.extend([(time.perf_counter_ns(), message) async for message in under_way])

        before_s = time.process_time()
        await asyncio.gather(*(user() for _ in range(users)))
        return (time.process_time() - before_s) * 1e6 / len(stamps)


def ours(url: str, model: str, users: int, requests: int, tokens: int) -> dict[str, Any]:
    """Return the client's part of a level of ours."""
    spec = Bench(
        url=url,
        model=model,
        endpoint="triton-grpc" if url.startswith("grpc") else "openai-chat",
        workload=Workload(
            name="synthetic", isl=units.lengths("64", "isl"), osl=units.lengths(str(tokens), "osl")
        ),
        load=Load(users=(users,), requests=requests, ramp_s=0.0, think_s=0.0),
        calibration=False,
        scrape=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        level = run.run(spec, Path(folder) / "run").summary["levels"][0]
    assert level["requests"]["completed"] == requests, level["requests"]
    assert level["tokens"]["output"] == requests * tokens, level["tokens"]
    return {**level["client"], "itl_ms_p99": level["itl_ms"]["p99"]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="What a token costs over gRPC.")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--ttft", default="100ms")
    parser.add_argument("--itl", default="20ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="Be the gRPC server.")
    asked = parser.parse_args()
    ttft_s, itl_s = units.seconds(asked.ttft, "--ttft"), units.seconds(asked.itl, "--itl")
    if asked.serve:
        uvloop.run(serve(asked.tokens, ttft_s, itl_s))
        return
    timing = ("--ttft", asked.ttft, "--itl", asked.itl)
    commands = {
        "grpc": (__file__, "--serve", "--tokens", str(asked.tokens), *timing),
        "http": ("-m", "llmdyno.streamer", "--until-eof", *timing),
    }
    servers, ports = {}, {}
    for name, command in commands.items():
        servers[name] = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        ports[name] = json.loads(servers[name].stdout.readline())["port"]
    requests = asked.users * 3
    found: dict[str, list[float]] = {"ours, gRPC": [], "ours, HTTP": [], "grpcio, bare": []}
    for _ in range(asked.rounds):
        for name, url in (
            ("ours, gRPC", f"grpc://127.0.0.1:{ports['grpc']}"),
            ("ours, HTTP", f"http://127.0.0.1:{ports['http']}"),
        ):
            client = ours(url, "m", asked.users, requests, asked.tokens)
            found[name].append(client["cpu_us_per_token"])
            print(f"{name}: {client}", file=sys.stderr)
        found["grpcio, bare"].append(uvloop.run(bare_grpcio(ports["grpc"], asked.users, requests)))
    for server in servers.values():
        server.communicate()
    for name, costs in found.items():
        ratio = fmean(costs) / fmean(found["ours, gRPC"])
        print(f"{name:14} {fmean(costs):6.1f} us/token (x{ratio:.2f})  {costs}")


if __name__ == "__main__":
    main()
