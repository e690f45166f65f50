"""The server's own measurements: its Prometheus page, read before, during and after each level.

Where it stands: run.py wraps a level in `Scraper.around`, the journal keeps what was read under
our own names, results/crosscheck.py sets it against what the client saw. Which server it is, is
told by the names on its page; SERVERS has one table of names a server.

Nothing of this may disturb the measurement: one GET an interval on a connection of its own, and of
the page, which can hold thousands of lines, only the lines of the table are looked at.
"""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from time import perf_counter_ns
from typing import Literal

import msgspec

from llmdyno import endpoints
from llmdyno.records.entries import Scrape
from llmdyno.wire.http1 import ConnectError, Connection, Meter, Target, connect, parse_url
from llmdyno.wire.request import TIMEOUT_S, get

# Servers count the last tokens a moment after they sent them; a server that has become idle has.
_SETTLE_S = 1.0
_SETTLE_STEP_S = 0.1

Sink = Callable[[Scrape], None]


class Series(msgspec.Struct, frozen=True):
    """Where a value is on the page: a metric, which of its lines, and how they become one value."""

    names: tuple[str, ...]  # older and newer names of the same; the first that is there counts
    label: str = ""  # text that must be among the labels, e.g. 'request_type="waiting"'
    scale: float = 1.0
    several: Literal["sum", "max", "least"] = "sum"  # of models, ranks and the like; least above 0


def _counter(name: str, *older: str) -> Series:
    """Return a counter; exporters differ in whether its name ends with _total on the page."""
    return Series(tuple(full for each in (name, *older) for full in (f"{each}_total", each)))


def _histogram(name: str, prefix: str, *, scale: float = 1.0) -> dict[str, Series]:
    """Return the sum (in seconds) and the count of a histogram."""
    return {
        f"{prefix}_sum_s": Series((f"{name}_sum",), scale=scale),
        f"{prefix}_count": Series((f"{name}_count",)),
    }


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The names of one kind of server."""

    kind: str
    prefix: str  # a page with a metric that begins so is this server's
    series: Mapping[str, Series]


# Our names: output_tokens, input_tokens, requests; ttft_… and queue_… (sum_s, count); running,
# waiting (requests now); kv_use (0 to 1); prefix_hits of prefix_queries (tokens); preemptions.
# An engine comes before the front that may show its page beside its own metrics.
SERVERS: tuple[Server, ...] = (
    Server(
        kind="vllm",
        prefix="vllm:",
        series={
            "output_tokens": _counter("vllm:generation_tokens"),
            "input_tokens": _counter("vllm:prompt_tokens"),
            "requests": _counter("vllm:request_success"),
            **_histogram("vllm:time_to_first_token_seconds", "ttft"),
            **_histogram("vllm:request_queue_time_seconds", "queue"),
            "running": Series(("vllm:num_requests_running",)),
            "waiting": Series(("vllm:num_requests_waiting",)),
            "kv_use": Series(
                ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), several="max"
            ),
            "prefix_hits": _counter("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
            "prefix_queries": _counter(
                "vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"
            ),
            "preemptions": _counter("vllm:num_preemptions"),
        },
    ),
    Server(
        kind="sglang",
        prefix="sglang:",
        series={
            "output_tokens": _counter("sglang:generation_tokens"),
            "input_tokens": _counter("sglang:prompt_tokens"),
            "requests": _counter("sglang:num_requests"),
            **_histogram("sglang:time_to_first_token_seconds", "ttft"),
            **_histogram("sglang:queue_time_seconds", "queue"),
            "running": Series(("sglang:num_running_reqs",)),
            "waiting": Series(("sglang:num_queue_reqs",)),
            "kv_use": Series(("sglang:token_usage",), several="max"),
            "prefix_hits": _counter("sglang:cached_tokens"),
            "prefix_queries": _counter("sglang:prompt_tokens"),
            "preemptions": _counter("sglang:num_retracted_requests"),
        },
    ),
    Server(
        # It has two queues; num_api_requests_waiting, in the API server, is not this one. Its
        # request_success counts refused and failed requests too.
        kind="lmdeploy",
        prefix="lmdeploy:",
        series={
            "output_tokens": _counter("lmdeploy:generation_tokens"),
            "input_tokens": _counter("lmdeploy:prompt_tokens"),
            "requests": _counter("lmdeploy:request_success"),
            **_histogram("lmdeploy:time_to_first_token_seconds", "ttft"),
            **_histogram("lmdeploy:request_queue_time_seconds", "queue"),
            "running": Series(("lmdeploy:num_requests_running",)),
            "waiting": Series(("lmdeploy:num_requests_waiting",)),
            "kv_use": Series(("lmdeploy:gpu_cache_usage_perc",), several="max"),
            "prefix_hits": _counter("lmdeploy:cached_tokens"),
            "prefix_queries": _counter("lmdeploy:prompt_tokens"),
        },
    ),
    Server(
        kind="tensorrt-llm",
        prefix="trtllm_",
        series={
            "output_tokens": _counter("trtllm_generation_tokens"),
            "input_tokens": _counter("trtllm_prompt_tokens"),
            "requests": _counter("trtllm_request_success"),
            **_histogram("trtllm_time_to_first_token_seconds", "ttft"),
            **_histogram("trtllm_request_queue_time_seconds", "queue"),
            "running": Series(("trtllm_num_requests_running",)),
            "waiting": Series(("trtllm_num_requests_waiting",)),
            "kv_use": Series(("trtllm_kv_cache_utilization",), several="max"),
            "prefix_hits": _counter("trtllm_prompt_cached_tokens"),
            "prefix_queries": _counter("trtllm_prompt_tokens"),
        },
    ),
    Server(
        kind="tgi",
        prefix="tgi_",
        series={
            "output_tokens": Series(("tgi_request_generated_tokens_sum",)),
            "input_tokens": Series(("tgi_request_input_length_sum",)),
            "requests": _counter("tgi_request_success"),
            **_histogram("tgi_request_queue_duration", "queue"),
            "running": Series(("tgi_batch_current_size",)),
            "waiting": Series(("tgi_queue_size",)),
        },
    ),
    Server(
        # Its names have no prefix of their own, and it counts no requests.
        kind="mlc-llm",
        prefix="engine_prefill_time_sum",
        series={
            "output_tokens": Series(("completion_tokens_sum",)),
            "input_tokens": Series(("prompt_tokens_sum",)),
        },
    ),
    Server(
        kind="streamer",
        prefix="llmdyno_streamer_",
        series={
            "output_tokens": _counter("llmdyno_streamer_tokens"),
            "requests": _counter("llmdyno_streamer_completed"),
        },
    ),
    Server(
        # The embedded engine, behind its own server or Triton.
        kind="llmdyno",
        prefix="llmdyno_",
        series={
            "output_tokens": _counter("llmdyno_generation_tokens"),
            "input_tokens": _counter("llmdyno_prompt_tokens"),
            "requests": _counter("llmdyno_requests"),
            **_histogram("llmdyno_time_to_first_token_seconds", "ttft"),
            "running": Series(("llmdyno_requests_running",)),
            "waiting": Series(("llmdyno_requests_waiting",)),
            "kv_use": Series(("llmdyno_kv_cache_usage_ratio",), several="max"),
        },
    ),
    Server(
        # With the TensorRT-LLM backend. An ensemble and its parts each count every request, but
        # postprocessing counts each piece of a stream; what nobody calls counts none.
        kind="triton",
        prefix="nv_inference_",
        series={
            "output_tokens": Series(("nv_llm_output_token_len_sum",), several="max"),
            "input_tokens": Series(("nv_llm_input_token_len_sum",), several="max"),
            "requests": Series(("nv_inference_request_success",), several="least"),
            "ttft_sum_s": Series(
                ("nv_inference_first_response_histogram_ms_sum",), scale=1e-3, several="max"
            ),
            "ttft_count": Series(
                ("nv_inference_first_response_histogram_ms_count",), several="max"
            ),
            "queue_sum_s": Series(("nv_inference_queue_duration_us",), scale=1e-6, several="max"),
            "queue_count": Series(("nv_inference_request_success",), several="least"),
            "running": Series(("nv_trt_llm_request_metrics",), label='request_type="active"'),
            "waiting": Series(("nv_trt_llm_request_metrics",), label='request_type="waiting"'),
            "kv_use": Series(
                ("nv_trt_llm_kv_cache_block_metrics",),
                label='kv_cache_block_type="fraction"',
                several="max",
            ),
        },
    ),
    Server(
        kind="bentoml",
        prefix="bentoml_",
        series={
            "requests": _counter("bentoml_service_request"),
            "running": Series(("bentoml_service_request_in_progress",)),
        },
    ),
)


def recognise(page: bytes) -> Server | None:
    """Return whose page this is, or None: no page of metrics, or of a server we do not know."""
    lines = b"\n" + page
    for server in SERVERS:
        if b"\n" + server.prefix.encode() in lines:
            return server
    return None


def read_page(page: bytes, server: Server) -> dict[str, float]:
    """Return the values of a server's page that we know, under our names."""
    found = {}
    for name, series in server.series.items():
        value = _value(page, series)
        if value is not None:
            found[name] = value
    return found


def _value(page: bytes, series: Series) -> float | None:
    for name in series.names:
        values = [
            value * series.scale
            for labels, value in _lines(page, name)
            if series.label in labels and math.isfinite(value)
        ]
        if values and series.several == "least":
            return min((value for value in values if value), default=0.0)
        if values:
            return sum(values) if series.several == "sum" else max(values)
    return None


# Labels may hold braces and quotes; behind the value may come a time or an exemplar.
_LINE = re.compile(r'(\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)')


def _lines(page: bytes, name: str) -> Iterator[tuple[str, float]]:
    """Yield (labels, value) of the metric's lines; what cannot be read is left out."""
    needle = name.encode()
    at = page.find(needle)
    while at >= 0:
        end = page.find(b"\n", at)
        end = len(page) if end < 0 else end
        if at == 0 or page[at - 1] == ord("\n"):
            rest = page[at + len(needle) : end].decode("utf-8", "replace")
            if matched := _LINE.match(rest):
                with contextlib.suppress(ValueError):
                    yield matched[1] or "", float(matched[2])
        at = page.find(needle, end)


class Scraper:
    """Reads one server's page."""

    def __init__(self, target: Target, path: str, server: Server) -> None:
        self._target = target
        self._path = path
        self._server = server
        self._connection: Connection | None = None

    @contextlib.asynccontextmanager
    async def around(
        self, level: int, zero_ns: int, interval_s: float, sink: Sink
    ) -> AsyncIterator[None]:
        """Read the page before, every interval during, and after what is done inside."""
        await self._note(level, zero_ns, "before", sink)
        task = asyncio.create_task(self._note_regularly(level, zero_ns, interval_s, sink))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._settle()
        await self._note(level, zero_ns, "after", sink)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
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
        """Return what the page says now; nothing when it does not come."""
        if self._connection is None or not self._connection.usable:
            try:
                self._connection = await connect(self._target, Meter(), TIMEOUT_S)
            except ConnectError:
                return {}
        response = await get(self._connection, self._target, self._path)
        return read_page(response.body(), self._server) if response.status == 200 else {}


async def find(target: Target, endpoint: str, url: str = "") -> Scraper | None:
    """Find the page of the server behind a target; None if there is none that we can read.

    With the page's own URL nothing is looked for.
    """
    root = msgspec.structs.replace(target, prefix="")
    places = [(target, "/metrics"), (root, "/metrics"), (target, "/prometheus/metrics")]
    if target.rpc:  # a port of gRPC serves no page
        places = []
    if offset := endpoints.metrics_port_offset(endpoints.load(endpoint)):
        beside = msgspec.structs.replace(root, rpc=False, port=target.port + offset)
        places.insert(0, (beside, "/metrics"))
    if url:
        page = parse_url(url)
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
        if response.error == "timeout":  # a server that hangs at this would hang at the others
            return None
    return None
