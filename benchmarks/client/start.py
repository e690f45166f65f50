"""What a run costs before its first request is sent, and after it: CPU time of `dyno bench`.

    python benchmarks/client/start.py [--runs 20]

The server is this process; it answers at once, so that the level itself is one request. When a
request arrives it reads the client's CPU time, as the kernel counts it (/proc/PID/schedstat): the
last request of a run is the level's. Printed as one line of JSON, in ms of CPU: until that request,
and in all, each with the least, the median and the most of the runs.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

_EVENT = 'data: {"choices": [{"index": 0, "delta": {"content": " word"}%s}]}\n\n'
_ANSWER = (_EVENT % "" * 15 + _EVENT % ', "finish_reason": "length"' + "data: [DONE]\n\n").encode()
_MODELS = b'{"object": "list", "data": [{"id": "words", "object": "model"}]}'


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process's main thread so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


class Server:
    """Answers, and notes what the client has cost until each question."""

    def __init__(self) -> None:
        self.pid = 0
        self.until_ms = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until the client closes it."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    0,
                )
                await reader.readexactly(length)
                self.until_ms = cpu_ms(self.pid)
                kind = b"text/event-stream" if length else b"application/json"
                body = _ANSWER if length else _MODELS
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
                    % (kind, len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def run(server: Server, port: int, folder: Path) -> tuple[float, float]:
    """Run one benchmark; return the CPU time in ms until its request, and in all."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llmdyno", "bench", "--url", f"http://127.0.0.1:{port}"),
        *("--out", str(folder / "run"), "-c", "1", "--requests", "1", "--isl", "16", "--osl", "16"),
        *("--ramp", "0s", "--no-calibration", "--no-scrape"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    server.pid = process.pid
    before = os.times()
    _, said = await process.communicate()
    after = os.times()
    assert process.returncode == 0, said.decode()
    total = (
        after.children_user - before.children_user + after.children_system - before.children_system
    )
    return server.until_ms, total * 1e3


async def measure(runs: int) -> dict[str, Any]:
    """Run the benchmarks one after the other."""
    server = Server()
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    found = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            found.append(await run(server, port, Path(name)))
    names = ("until_the_request_ms", "in_all_ms")
    return {
        name: {
            "min": round(min(values), 1),
            "median": round(statistics.median(values), 1),
            "max": round(max(values), 1),
        }
        for name, values in zip(names, zip(*found, strict=True), strict=True)
    } | {"runs": runs, "load_1min": os.getloadavg()[0]}


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    print(json.dumps(asyncio.run(measure(parser.parse_args().runs))))


if __name__ == "__main__":
    main()
