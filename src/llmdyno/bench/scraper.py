"""The server's own measurements: its Prometheus page, polled before, during and after a level.

run.py wraps a level in `Scraper.around`. The journal keeps the values under our own names
(server_metrics.py), and results/crosscheck.py compares them with the client's. Polling must not
disturb the measurement: it is one GET per interval, on a connection of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns
from typing import Literal

import msgspec

from llmdyno import endpoints
from llmdyno.bench.server_metrics import read_page, recognise
from llmdyno.records.entries import Scrape
from llmdyno.records.server_page import MetricsPage
from llmdyno.wire.connect import ConnectError, connect
from llmdyno.wire.exchange import Meter
from llmdyno.wire.request import TIMEOUT_S, KeptConnection, get
from llmdyno.wire.target import Target, parse_url

# Servers count the last tokens a moment after they send them. An idle server has counted all.
_SETTLE_S = 1.0
_SETTLE_STEP_S = 0.1

Sink = Callable[[Scrape], None]


class Scraper:
    """Polls the metrics page of one server over a kept connection.

    Args:
        target: the host and port of the page.
        path: of the page.
        server: the names on the page, as the engine or front declares them.
    """

    def __init__(self, target: Target, path: str, server: MetricsPage) -> None:
        self._target = target
        self._path = path
        self._server = server
        self._connection = KeptConnection(lambda: connect(target, Meter(), TIMEOUT_S))

    @contextlib.asynccontextmanager
    async def around(
        self, level: int, zero_ns: int, interval_s: float, sink: Sink
    ) -> AsyncIterator[None]:
        """Poll the page before, every interval during, and after the body of the `with`.

        Args:
            level: the number that the entries get.
            zero_ns: the zero of their times, by perf_counter_ns.
            interval_s: between two polls.
            sink: takes the entries.
        """
        await self._note(level, zero_ns, "before", sink)
        task = asyncio.create_task(self._note_regularly(level, zero_ns, interval_s, sink))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._settle()
        await self._note(level, zero_ns, "after", sink)

    async def under_way(self) -> float | None:
        """Return how many requests the server says that it has now; None: it does not say."""
        values = await self._values()
        told = [values[name] for name in ("running", "waiting") if name in values]
        return sum(told) if told else None

    def close(self) -> None:
        """Close the connection at once; a later poll opens a new one."""
        self._connection.close()

    async def _note_regularly(
        self, level: int, zero_ns: int, interval_s: float, sink: Sink
    ) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await self._note(level, zero_ns, "during", sink)

    async def _settle(self) -> None:
        deadline_ns = perf_counter_ns() + round(_SETTLE_S * 1e9)
        while perf_counter_ns() < deadline_ns:
            values = await self._values()
            if not values.get("running") and not values.get("waiting"):
                return
            await asyncio.sleep(_SETTLE_STEP_S)

    async def _note(
        self,
        level: int,
        zero_ns: int,
        moment: Literal["before", "during", "after"],
        sink: Sink,
    ) -> None:
        if values := await self._values():
            now_ns = perf_counter_ns() - zero_ns
            kind = self._server.kind
            sink(Scrape(level=level, t_ns=now_ns, moment=moment, kind=kind, values=values))

    async def _values(self) -> dict[str, float]:
        """Return the page's values now, under our names; empty if there is no page."""
        try:
            response = await self._connection.request(
                lambda exchange: get(exchange, self._target, self._path)
            )
        except ConnectError:
            return {}
        return read_page(response.body(), self._server) if response.status == 200 else {}


async def find(target: Target, endpoint: str, url: str = "") -> Scraper | None:
    """Find the metrics page of a server; None if there is none that we can read.

    Args:
        target: the server.
        endpoint: the name of its endpoint; Triton has the page on another port.
        url: of the page, if the user gave it; then no other place is tried.

    Raises:
        UsageError: `url` is no URL.
    """
    root = msgspec.structs.replace(target, prefix="")
    places = [(target, "/metrics"), (root, "/metrics"), (target, "/prometheus/metrics")]
    if target.rpc:  # a port of gRPC serves no page
        places = []
    if offset := endpoints.metrics_port_offset(endpoints.load(endpoint)):
        port = target.port + offset
        # What is meant for the server is not sent to another port.
        beside = msgspec.structs.replace(root, rpc=False, port=port, headers=(), client_cert=None)
        places.insert(0, (beside, "/metrics"))
    if url:
        page = _page(url, target)
        places = [(msgspec.structs.replace(page, prefix=""), page.prefix or "/metrics")]
    for place, path in dict.fromkeys(places):
        try:
            connection = await connect(place, Meter(), TIMEOUT_S)
        except ConnectError:
            continue
        response = await get(connection, place, path)
        connection.close()
        server = recognise(response.body()) if response.status == 200 else None
        if server is not None:
            return Scraper(place, path, server)
        if response.error == "timeout":  # the other paths would time out too
            return None
    return None


def _page(url: str, target: Target) -> Target:
    """Return the target of a metrics page that the user named.

    It is trusted and reached as the server is. What is meant for the server alone, headers and our
    certificate, goes there only if it is the same host and port.
    """
    page = parse_url(url, flag="--metrics-url")
    page = msgspec.structs.replace(
        page,
        proxy=target.proxy,
        proxy_headers=target.proxy_headers,
        ca_cert=target.ca_cert if page.tls else None,
        insecure=target.insecure and page.tls,
    )
    if (page.host, page.port, page.tls) != (target.host, target.port, target.tls):
        return page
    return msgspec.structs.replace(
        page,
        headers=target.headers,
        client_cert=target.client_cert,
        client_key=target.client_key,
    )
