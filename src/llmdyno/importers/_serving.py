"""What the descendants of vLLM's benchmark_serving.py share: the same keys, in ms and seconds.

vLLM's `bench serve` and SGLang's bench_serving write them at the top of a result, BentoML's
llm-optimizer under "results".
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from llmdyno.importers._documents import Foreign
from llmdyno.importers._level import Statistics, count_errors, statistics
from llmdyno.results.measures import distribution
from llmdyno.results.observations import Values

_STATS = {
    "mean": ("mean_{}_ms",),
    "p50": ("median_{}_ms", "p50_{}_ms"),
    "p90": ("p90_{}_ms",),
    "p95": ("p95_{}_ms",),
    "p99": ("p99_{}_ms",),
    "max": ("max_{}_ms", "p100_{}_ms"),
}


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of one result, by their names."""

    duration: float
    completed: float | None
    total_input_tokens: float | None
    total_output_tokens: float | None
    request_throughput: float | None
    output_throughput: float | None
    backend: str | None = None
    request_rate: float | str | None = None  # "inf" or a bare Infinity: as fast as possible
    burstiness: float | None = None
    max_concurrency: float | None = None
    concurrency: float | None = None  # sum of the latencies / duration
    max_concurrent_requests: float | None = None
    # With the details: lists of one entry a request, in order of sending.
    ttfts: list[float] = []
    itls: list[list[float]] = []
    output_lens: list[int] = []
    errors: list[str | None] = []

    @property
    def rate(self) -> float | None:
        """The rate that was asked for, in requests a second; None: as fast as possible."""
        rate = self.request_rate
        if isinstance(rate, str):  # "inf", or SGLang's "trace"
            try:
                rate = float(rate)
            except ValueError:
                return None
        return None if rate in {None, float("inf")} else rate

    @property
    def arrival(self) -> str:
        """How requests were sent."""
        if self.request_rate == "trace":
            return "trace"
        if self.rate is None:
            return "closed" if self.max_concurrency else "burst"
        return "poisson" if self.burstiness in {None, 1.0} else "gamma"

    @property
    def users(self) -> float | None:
        """The users of a closed loop."""
        return self.max_concurrency if self.arrival == "closed" else None

    @property
    def has_details(self) -> bool:
        """Whether the file has the stamps of every request."""
        return bool(self.ttfts)

    def load(self) -> dict[str, Any]:
        """Return the fields of a level that say how it was loaded, and what came of that."""
        is_closed = self.arrival == "closed"
        return {
            "users": self.users,
            "arrival": self.arrival,
            "rate": self.rate,
            "max_concurrency": None if is_closed else self.max_concurrency,
            "in_flight_mean": self.concurrency,
            "in_flight_max": self.max_concurrent_requests or None,
            "duration_s": self.duration,
            "completed": self.completed,
            "errors": count_errors(_error_kind(error) for error in self.errors if error),
            "input_tokens": self.total_input_tokens,
            "output_tokens": self.total_output_tokens,
        }


def summarised(
    document: Foreign, completed: float | None, suffixes: Mapping[str, str]
) -> dict[str, Statistics]:
    """Return the statistics that a summary has.

    Args:
        document: the one with the statistics.
        completed: how many requests did.
        suffixes: what the tool calls our latencies within its keys.
    """
    found = {}
    for name, suffix in suffixes.items():
        values = {
            stat: next((document[key] for key in keys if document.get(key) is not None), None)
            for stat, patterns in _STATS.items()
            for keys in [[pattern.format(suffix) for pattern in patterns]]
        }
        checked = msgspec.convert(values, dict[str, float | None])
        n = completed if name in {"ttft_ms", "e2e_ms"} else None
        found[name] = statistics(checked, n=n)
    return found


def detailed(result: Serving) -> dict[str, Statistics] | None:
    """Return all statistics from the stamps, or None if stamps are missing or contradict."""
    columns = (result.ttfts, result.itls, result.output_lens, result.errors)
    if not result.ttfts or len({len(column) for column in columns}) != 1:
        return None
    done = [
        (ttft, itl, tokens)
        for ttft, itl, tokens, error in zip(*columns, strict=True)
        if not error and ttft > 0
    ]
    if len(done) != result.completed:
        return None
    return {
        "ttft_ms": in_ms([ttft for ttft, _, _ in done]),
        "itl_ms": in_ms(list(chain.from_iterable(itl for _, itl, _ in done))),
        "tpot_ms": in_ms([sum(itl) / (tokens - 1) for _, itl, tokens in done if tokens > 1]),
        "e2e_ms": in_ms([ttft + sum(itl) for ttft, itl, _ in done]),
    }


def in_ms(values_s: list[float]) -> Statistics:
    """Return the statistics of observations in seconds."""
    return distribution(Values(np.array(values_s) * 1e3))


def failed_of(asked: float | None, completed: float | None) -> float | None:
    """Return how many requests failed where a file has the others; None: it contradicts itself."""
    if asked is None or completed is None or math.isnan(completed) or asked < completed:
        return None
    return asked - completed


def one_or_each(values: Sequence[Any]) -> Any:
    """Return what stands in every line of a file if it is one value, else that of each line."""
    return values[0] if all(value == values[0] for value in values) else list(values)


def models(names: Sequence[str | None]) -> str:
    """Return the models of a file's lines as one text."""
    return ", ".join(dict.fromkeys(name for name in names if name))


def _error_kind(error: str) -> str:
    """Return the class of the exception in a traceback; a text without one is an HTTP reason."""
    last = error.strip().splitlines()[-1] if error.strip() else "unknown"
    exception = re.match(r"(?:\w+\.)*(\w*(?:Error|Exception|Timeout)\w*)\b", last)
    return exception[1] if exception else last[:60]
