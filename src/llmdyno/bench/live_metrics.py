"""Live metrics of the running benchmark, for Prometheus: what `--metrics-port` serves on loopback.

The page is written on request, from the same counts that the terminal shows, on the benchmark's own
event loop. So nothing is counted twice, and without a scraper it costs nothing. Each level keeps
its own series, so that counters never fall.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec
import numpy as np

from llmdyno.errors import UsageError, reason
from llmdyno.load.progress import RECENT_MAX, Progress
from llmdyno.records.columns import Collector
from llmdyno.results.metrics import Metric, of_requests
from llmdyno.wire.exchange import Meter

HOST = "127.0.0.1"
_REQUEST_S = 5.0


class Row(msgspec.Struct, frozen=True):
    """One metric of the page: its name, its type and how it is read."""

    name: str
    kind: str
    what: str  # the HELP text
    value: Callable[[Progress, Meter], float | None]


_ROWS = (
    Row("users", "gauge", "Users that have come.", lambda progress, _: progress.users),
    Row("in_flight", "gauge", "Requests under way.", lambda progress, _: progress.in_flight),
    Row(
        "completed_total", "counter", "Requests completed.", lambda progress, _: progress.completed
    ),
    Row(
        "tokens_total",
        "counter",
        "Output tokens; of requests under way, a read counts as one.",
        lambda progress, meter: progress.tokens + max(0, meter.reads - progress.reads),
    ),
    Row(
        "elapsed_seconds", "gauge", "Since the level began.", lambda progress, _: progress.elapsed_s
    ),
)


class LivePage:
    """The page of all levels so far; the last one is running."""

    def __init__(self) -> None:
        self._levels: dict[int, tuple[Progress, Meter]] = {}

    def show(self, progress: Progress, meter: Meter) -> None:
        """Add a level; the page reads its counts anew on each request."""
        self._levels[progress.level] = (progress, meter)

    def text(self) -> str:
        """Return the page in Prometheus' text format."""
        lines = []
        for row in (*_ROWS, *_latency_rows()):
            name = f"llmdyno_bench_{row.name}"
            lines += [f"# HELP {name} {row.what}", f"# TYPE {name} {row.kind}"]
            for progress, meter in self._levels.values():
                value = row.value(progress, meter)
                if value is not None:
                    lines.append(f"{name}{{{_labels(progress)}}} {value}")
        name = "llmdyno_bench_failed_total"
        lines += [f"# HELP {name} Requests failed, by class.", f"# TYPE {name} counter"]
        for progress, _ in self._levels.values():
            for kind, count in progress.errors.items():
                lines.append(f'{name}{{{_labels(progress)},error="{kind}"}} {count}')
        return "\n".join([*lines, ""])


def _latency_rows() -> list[Row]:
    """Return a row for each latency that a request has by itself, of the last completed ones."""
    return [
        Row(
            f"{metric.flag}_last_p50_seconds",
            "gauge",
            f"Median {metric.short} of the last {RECENT_MAX} completed requests.",
            partial(_median_s, metric),
        )
        for metric in of_requests(open_loop=False)
    ]


def _median_s(metric: Metric, progress: Progress, _: Meter) -> float | None:
    """Return the median of a latency over the recent requests, in s; None: none of them has it."""
    assert metric.of_request is not None
    collector = Collector()
    for record in progress.recent:
        collector.add(record)
    values_ms = metric.of_request(collector.columns())
    known_ms = values_ms[~np.isnan(values_ms)]
    return float(np.median(known_ms)) / 1e3 if len(known_ms) else None


def _labels(progress: Progress) -> str:
    return f'level="{progress.level}",load="{progress.load}"'


@contextlib.asynccontextmanager
async def serving(page: LivePage, port: int) -> AsyncIterator[int]:
    """Serve the page at /metrics on loopback during the body of the `with`; yield the port.

    Args:
        page: the page.
        port: to listen on; 0: any free one.

    Raises:
        UsageError: the port is out of range or taken.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_S)
            except TimeoutError:
                head = b""
            writer.write(_reply(head, page))
            await writer.drain()
        writer.close()

    if not 0 <= port < 2**16:  # uvloop would silently take it modulo 65536
        raise UsageError(f"--metrics-port {port}: must be below 65536.")
    try:
        server = await asyncio.start_server(answer, HOST, port)
    except OSError as error:
        raise UsageError(
            f"--metrics-port {port}: cannot be listened on: {reason(error)}; choose another port."
        ) from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def _reply(head: bytes, page: LivePage) -> bytes:
    status, body = "404 Not Found", b"GET /metrics\n"
    if head.startswith((b"GET /metrics ", b"GET /metrics?")):
        status, body = "200 OK", page.text().encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
