"""The names on a server's page of metrics: each engine and front has such a table in its file.

bench/server_metrics.py reads pages by them. Our names for the values, counters since the server's
start unless said otherwise: output_tokens, input_tokens, requests; ttft_sum_s, ttft_count and
queue_sum_s, queue_count; running and waiting (requests now); kv_use (0 to 1); prefix_hits of
prefix_queries (tokens); preemptions; of speculative decoding drafts, drafted_tokens and
accepted_tokens, or accept_length (tokens a step) and accept_rate now.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec


class Series(msgspec.Struct, frozen=True):
    """Where a value is on the page: a metric, which of its lines, and how they become one value."""

    names: tuple[str, ...]  # older and newer names of the same; the first that is there counts
    label: str = ""  # text that must be among the labels, e.g. 'request_type="waiting"'
    scale: float = 1.0
    several: Literal["sum", "max", "least"] = "sum"  # of models, ranks and the like; least above 0


def counter(name: str, *older: str) -> Series:
    """Return a counter; exporters differ in whether its name ends with _total on the page."""
    return Series(tuple(full for each in (name, *older) for full in (f"{each}_total", each)))


def histogram(name: str, prefix: str, *, scale: float = 1.0) -> dict[str, Series]:
    """Return the sum (in seconds) and the count of a histogram."""
    return {
        f"{prefix}_sum_s": Series((f"{name}_sum",), scale=scale),
        f"{prefix}_count": Series((f"{name}_count",)),
    }


class MetricsPage(msgspec.Struct, frozen=True, kw_only=True):
    """The names of one kind of server."""

    kind: str  # what the journal calls the server
    prefix: str  # a page with a metric that begins so is this server's
    series: Mapping[str, Series]  # our name → where it is
