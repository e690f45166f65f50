"""Levels of a summary from what other tools report, with our keys; null where they report nothing.

Every importer makes its levels here, so that an imported level has the keys of a measured one.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from llmdyno.results import metrics
from llmdyno.results.stats import STATISTICS

Statistics = dict[str, Any]


class ForeignLevel(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool reports of one load point, in our units; None: it does not report it."""

    users: int | None
    arrival: str
    rate: float | None = None  # of an open loop: the requests a second that were asked
    duration_s: float | None
    completed: float | None
    failed: float | None
    cut: float | None = None
    errors: Mapping[str, int] = {}
    input_tokens: float | None = None
    output_tokens: float | None = None
    token_source: str | None = None
    output_tokens_asked: float | None = None  # of an answer, in the mean
    window: tuple[float | None, float | None] | None = None  # None: the whole run
    method: str
    latencies: Mapping[str, Statistics]
    rates: Mapping[str, float | None]
    interrupted: bool = False


def level_document(level: ForeignLevel) -> dict[str, Any]:
    """Return one level of the summary."""
    measured = {
        **{
            row.name: level.latencies.get(row.name) or statistics({})
            for row in metrics.latencies(open_loop=False)
        },
        **{row.name: _rate(row, level.rates.get(row.name)) for row in metrics.rates()},
    }
    start_s, end_s = level.window or (0.0 if level.duration_s else None, level.duration_s)
    return {
        "users": level.users,
        "arrival": level.arrival,
        **({} if level.arrival == "closed" else {"rate": level.rate}),
        "duration_s": level.duration_s,
        "interrupted": level.interrupted,
        "requests": {
            "completed": _whole(level.completed),
            "failed": _whole(level.failed),
            "cut": _whole(level.cut),
            "errors": dict(level.errors),
        },
        "tokens": {
            "input": _whole(level.input_tokens),
            "output": _whole(level.output_tokens),
            "source": level.token_source,
        },
        "window": {
            "start_s": start_s,
            "end_s": end_s,
            "steady": level.window is not None,
            "method": level.method,
        },
        **_delivered(level),
        **measured,
        # A tool that leaves out a warm-up does not report the level with it.
        "whole": measured if level.window is None else None,
        "samples": [],
        "client": {
            "cpu_s": None,
            "cpu_us_per_token": None,
            "loop_lag_ms_p99": None,
            "tokens_per_read": None,
            "verdict": None,
            "reasons": [],
        },
    }


def _delivered(level: ForeignLevel) -> dict[str, Any]:
    """Return how long answers were beside what was asked, where a tool tells both."""
    if not level.output_tokens_asked or not level.output_tokens or not level.completed:
        return {}
    mean = level.output_tokens / level.completed
    return {"delivered": {"output_tokens": {"mean": mean, "asked": level.output_tokens_asked}}}


def _rate(row: metrics.Metric, mean: float | None) -> Statistics | None:
    if row.needs_slo:  # tools judge by limits of their own, and tell no interval
        return None if mean is None else {"mean": mean}
    return {"mean": mean, "ci95": None}


def statistics(
    found: Mapping[str, float | None], *, n: float | None = None, factor: float = 1.0
) -> Statistics:
    """Return a latency's statistics in ms. All zeros are what tools write for "not measured"."""
    if not any(found.values()):
        found = {}
    values = {stat: found.get(stat) for stat in STATISTICS}
    return {
        "n": _whole(n) if found else None,
        **{stat: None if value is None else value * factor for stat, value in values.items()},
        "p50_ci95": None,
    }


def count_errors(kinds: Iterable[str]) -> dict[str, int]:
    """Return how often each kind of error is there, the most frequent first."""
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query; nothing if it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)
