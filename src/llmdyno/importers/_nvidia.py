"""The layout that GenAI-Perf and its successor AIPerf share: an object a metric, with its unit.

    {"time_to_first_token": {"unit": "ms", "avg": …, "p50": …, "p99": …, "max": …},
     "request_throughput": {"unit": "requests/sec", "avg": …}, …, "input_config": {…}}

AIPerf's models.export_models says that it mimics GenAI-Perf on purpose. The two files differ in
`input_config`, and AIPerf names its version.
"""

from typing import Any

import msgspec

from llmdyno.importers import Foreign
from llmdyno.importers._level import Statistics, statistics

_MS = {"ms": 1.0, "ns": 1e-6, "us": 1e-3, "s": 1e3, "sec": 1e3}


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric as both tools write it."""

    unit: str = ""
    avg: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


def is_profile(document: Foreign) -> bool:
    """Tell whether a document is a profile of GenAI-Perf or of AIPerf."""
    latency = document.get("request_latency")
    return isinstance(latency, dict) and "unit" in latency and "input_config" in document


def is_of_aiperf(document: Foreign) -> bool:
    """Tell whether a profile is AIPerf's; otherwise it is GenAI-Perf's."""
    config = document.get("input_config")
    return "aiperf_version" in document or (
        isinstance(config, dict) and bool({"loadgen", "phases"} & config.keys())
    )


def metric(document: Foreign, name: str) -> Metric | None:
    """Return a metric, or None if the file does not have it.

    Raises:
        msgspec.ValidationError: a value is of the wrong type.
    """
    found = document.get(name)
    return None if found is None else msgspec.convert(found, Metric)


def average(document: Foreign, name: str) -> float | None:
    """Return a metric's average, which is the value itself for rates and counts."""
    found = metric(document, name)
    return None if found is None else found.avg


def latency(document: Foreign, name: str, n: float | None) -> Statistics | None:
    """Return the statistics of a latency in ms, or None if the file does not have it.

    Raises:
        msgspec.ValidationError: a value is of the wrong type, or its unit is not known.
    """
    found = metric(document, name)
    if found is None:
        return None
    return statistics(
        {
            "mean": found.avg,
            "p50": found.p50,
            "p90": found.p90,
            "p95": found.p95,
            "p99": found.p99,
            "max": found.max,
        },
        n=n,
        factor=_factor(found.unit, name),
    )


def seconds(document: Foreign, name: str) -> float | None:
    """Return a duration in seconds, or None if the file does not have it.

    Raises:
        msgspec.ValidationError: the value is of the wrong type, or its unit is not known.
    """
    found = metric(document, name)
    if found is None or found.avg is None:
        return None
    return found.avg * _factor(found.unit, name) / 1e3


def total(document: Foreign, name: str, sequence: str, n: float | None) -> float | None:
    """Return a count of tokens over all requests, or None if the file does not tell.

    Args:
        document: the file's content.
        name: of the metric with the count itself.
        sequence: of the metric with the tokens per request, where there is no count.
        n: how many requests there were.

    Raises:
        msgspec.ValidationError: a value is of the wrong type.
    """
    own = average(document, name)
    each = average(document, sequence)
    if own is not None or each is None or n is None:
        return own
    return each * n


def text(document: Foreign, *path: str | int) -> str | None:
    """Return the text at that path, or None if the path ends before."""
    found: Any = document
    for key in path:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            return None
    return found if isinstance(found, str) else None


def _factor(unit: str, name: str) -> float:
    if unit not in _MS:
        raise msgspec.ValidationError(
            f"`{name}` is in '{unit}', which is none of {', '.join(_MS)} - at `$.{name}.unit`"
        )
    return _MS[unit]
