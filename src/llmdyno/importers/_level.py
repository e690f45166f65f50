"""Levels of a summary from what other tools report, with our keys; null where they report nothing.

Every importer describes its levels as a ForeignLevel. So an imported level has the keys of a
measured one, and each goes through the same checks (_plausible.py).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from llmdyno.results import metrics
from llmdyno.results.stats import STATISTICS

Statistics = dict[str, Any]

_SECRET_WORDS = ("key", "token", "secret", "passw", "auth", "credential")


class ForeignLevel(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool reports of one load point, in our units; None: it does not report it."""

    users: float | None = None  # of a closed loop
    arrival: str
    # Of an open loop: what was asked, requests a second; the cap on requests in flight; what was
    # sent, where the tool tells it apart from what completed.
    rate: float | None = None
    max_concurrency: float | None = None
    sent_rate: float | None = None
    # What else was asked. It stands in each level, because the lines of one file may differ.
    model: str | None = None
    endpoint: str | None = None
    asked: float | None = None  # requests
    asked_output_tokens: float | None = None  # of each request, where all were to be as long
    config: Mapping[str, Any] = {}  # the server's settings, or the workload's name
    duration_s: float | None
    completed: float | None
    failed: float | None
    cut: float | None = None
    errors: Mapping[str, int] = {}
    input_tokens: float | None = None
    output_tokens: float | None = None
    token_source: str | None = None
    window: tuple[float | None, float | None] | None = None  # None: the whole run
    method: str
    latencies: Mapping[str, Statistics]
    rates: Mapping[str, float | None]
    # Requests in flight at once: the mean over the run, and the most.
    in_flight_mean: float | None = None
    in_flight_max: float | None = None
    interrupted: bool = False
    invalid: str | None = None  # why the tool itself calls the result invalid

    @property
    def is_open(self) -> bool:
        """Whether requests were sent by the clock, whatever became of those before."""
        return self.arrival != "closed"


def level_document(level: ForeignLevel) -> dict[str, Any]:
    """Return one level of the summary."""
    measured = {
        **{
            row.name: level.latencies.get(row.name) or statistics({})
            for row in metrics.latencies()
            if not row.open_loop or (level.is_open and row.name in level.latencies)
        },
        **{row.name: _rate(row, level.rates.get(row.name)) for row in metrics.rates()},
    }
    start_s, end_s = level.window or (0.0 if level.duration_s else None, level.duration_s)
    return {
        "users": _whole(level.users),
        "arrival": level.arrival,
        **_load(level),
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


def _load(level: ForeignLevel) -> dict[str, Any]:
    """Return what was asked of the level, and what became of it: only what the tool tells."""
    asked = {
        "requests": _whole(level.asked),
        "output_tokens": _whole(level.asked_output_tokens),
        "endpoint": level.endpoint,
        "config": without_secret_keys(level.config) or None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    in_flight = {"mean": level.in_flight_mean, "max": level.in_flight_max}
    found = {
        "sent_rate": level.sent_rate,
        "model": level.model,
        "asked": asked or None,
        "in_flight": in_flight if any(value is not None for value in in_flight.values()) else None,
        "invalid": level.invalid,
    }
    return {
        **(
            {"rate": level.rate, "max_concurrency": _whole(level.max_concurrency)}
            if level.is_open
            else {}
        ),
        **{name: value for name, value in found.items() if value is not None},
    }


def _rate(row: metrics.Metric, mean: float | None) -> Statistics | None:
    if row.may_lack:  # tools judge by limits of their own, and tell no interval
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


def without_secret_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are one word or number, less those whose name sounds secret."""
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, int | float)
        or (isinstance(value, str) and not any(word in name.lower() for word in _SECRET_WORDS))
    }


def as_float(value: float) -> float:
    """Return a number as a float; JSON may hold whole numbers beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(as_float(value)) else round(value)
