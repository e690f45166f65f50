"""Results of llm-d-benchmark: its benchmark report, YAML or JSON, of versions 0.1, 0.2 and 0.2.1.

Keys: llmdbenchmark/analysis/benchmark_report/ (schema_v0_1.py, schema_v0_2.py, schema_v0_2_1.py and
their examples) of llm-d/llm-d-benchmark, v0.8.0 (8bc9f1d). A report is one stage of another tool,
whose name stands in it; each quantity names its unit. What that tool means by a metric, it means
here, too.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel, Statistics, statistics
from llmdyno.importers._serving import models, one_or_each

_MS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}
# Our names and theirs.
_LATENCIES = {
    "ttft_ms": "time_to_first_token",
    "itl_ms": "inter_token_latency",
    "tpot_ms": "time_per_output_token",
    "e2e_ms": "request_latency",
}
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_ARRIVALS = ("constant", "poisson")


class _Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics of one quantity, in its own unit."""

    units: str
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class _Requests(msgspec.Struct, frozen=True, kw_only=True):
    total: float
    failures: float | None = None
    incomplete: float | None = None
    input_length: _Statistics | None = None
    output_length: _Statistics | None = None


class _Performance(msgspec.Struct, frozen=True, kw_only=True):
    """What both versions have: numbers of requests, latencies, rates."""

    requests: _Requests
    latency: dict[str, _Statistics | None] | None = None
    throughput: dict[str, _Statistics | float | None] | None = None


class _Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, from where either version keeps it."""

    tool: str = ""
    rate: float | None = None
    concurrency: float | None = None
    arrival: str = "open"
    output_tokens: float | None = None  # of each request


class LlmDImporter:
    """Reads the benchmark reports that llm-d-benchmark makes of its harnesses' results."""

    name = "llm-d"
    definitions: Mapping[str, str] = {
        "latencies": "as the tool that the report was made from defines them",
        "token_rate": "as the tool that the report was made from defines it",
        "tokens": "its mean length times the number of requests",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise a version, a scenario, and the results where either version has them."""
        return (
            {"version", "scenario"} <= document.keys()
            and isinstance(document["scenario"], Mapping)
            and (_is_mapping(document, "metrics", "requests") or _is_mapping(document, "results"))
        )

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each report."""
        loads = [_load(document) for document in documents]
        names = [_model(document) for document in documents]
        levels = [
            _level(document, load, model)
            for document, load, model in zip(documents, loads, names, strict=True)
        ]
        return Findings(
            levels=[*levels],
            version=str(documents[0]["version"]),
            started=_started(documents[0]),
            spec={
                "model": models(names),
                "harness": one_or_each([load.tool for load in loads]),
                "load": {
                    "users": [level.users for level in levels],
                    "requests": one_or_each([level.asked for level in levels]),
                    "request_rate": one_or_each([level.rate for level in levels]),
                },
            },
            notes=() if all(names) else ("The file does not name the model.",),
        )


def _level(document: Foreign, load: _Load, model: str | None) -> ForeignLevel:
    found = _performance(document)
    requests = found.requests
    cut = requests.incomplete
    completed = requests.total - (requests.failures or 0) - (cut or 0)
    is_closed = load.rate is None
    concurrency = load.concurrency
    users = round(concurrency) if is_closed and concurrency else None
    return ForeignLevel(
        users=users,
        arrival="closed" if is_closed else load.arrival,
        rate=load.rate,
        max_concurrency=None if is_closed else concurrency,
        model=model,
        asked=requests.total,
        asked_output_tokens=load.output_tokens,
        config={"harness": load.tool} if load.tool else {},
        duration_s=_duration_s(document),
        completed=completed,
        failed=requests.failures,
        cut=cut,
        input_tokens=_total(requests.input_length, requests.total),
        output_tokens=_total(requests.output_length, completed),
        method="as the tool counts that the report was made from (imported)",
        latencies={
            name: _in_ms(one, theirs)
            for name, theirs in _LATENCIES.items()
            if (one := (found.latency or {}).get(theirs)) is not None
        },
        rates={
            "token_rate": _rate(found, "output_token_rate", "output_tokens_per_sec"),
            "request_rate": _rate(found, "request_rate", "requests_per_sec"),
        },
    )


def _performance(document: Foreign) -> _Performance:
    if "metrics" in document:
        return msgspec.convert(document["metrics"], _Performance)
    found = _at(document, "results", "request_performance", "aggregate")
    if found is None:
        raise msgspec.ValidationError(
            "Object missing required field `aggregate` - at `$.results.request_performance`"
        )
    return msgspec.convert(found, _Performance)


def _load(document: Foreign) -> _Load:
    load = _at(document, "scenario", "load")
    if _at(load, "standardized") is None:  # 0.1: the arguments are those of the tool
        args = _at(load, "args")
        rate = _first(args, "request_rate", "request-rate", "rate", "qps", "qps_values")
        users = _first(args, "max_concurrency", "max-concurrency", "concurrency", "num_users")
        return _Load(tool=str(_at(load, "name") or ""), rate=rate, concurrency=users)
    standard = _at(load, "standardized")
    length = _at(standard, "output_seq_len")
    kind = _at(load, "native", "config", "load", "type")
    return _Load(
        tool=str(_at(standard, "tool") or ""),
        rate=_first(standard, "rate_qps"),
        concurrency=_first(standard, "concurrency"),
        arrival=kind if kind in _ARRIVALS else "open",
        output_tokens=_first(length, "value") if _at(length, "distribution") == "fixed" else None,
    )


def _model(document: Foreign) -> str | None:
    name = _at(document, "scenario", "model", "name")
    stack = _at(document, "scenario", "stack")
    stack = stack if isinstance(stack, list) else []
    names = [name, *(_at(one, "standardized", "model", "name") for one in stack)]
    return next((found for found in names if isinstance(found, str) and found), None)


def _in_ms(found: _Statistics, name: str) -> Statistics:
    factor = _MS.get(found.units.removesuffix("/token"))
    if factor is None:
        raise msgspec.ValidationError(
            f"`{name}` is in '{found.units}', which is none of {', '.join(_MS)}"
        )
    stats = {stat: getattr(found, stat) for stat in ("mean", "p50", "p90", "p95", "p99", "max")}
    return statistics(stats, factor=factor)


def _rate(found: _Performance, *names: str) -> float | None:
    for name in names:
        one = (found.throughput or {}).get(name)
        if one is not None:
            return one.mean if isinstance(one, _Statistics) else one
    return None


def _total(each: _Statistics | None, n: float) -> float | None:
    return None if each is None or each.mean is None else each.mean * n


def _duration_s(document: Foreign) -> float | None:
    """Return the duration: seconds, or as ISO 8601 writes it, e.g. PT1M49.97S."""
    found = _at(document, "metrics", "time", "duration") or _at(document, "run", "time", "duration")
    if isinstance(found, str) and (match := _DURATION.fullmatch(found)):
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return float(found) if isinstance(found, int | float) else None


def _started(document: Foreign) -> str | None:
    found = _at(document, "run", "time", "start") or _at(document, "metrics", "time", "start")
    if isinstance(found, str):
        return found
    try:
        return datetime.fromtimestamp(found, UTC).isoformat(timespec="seconds")
    except (TypeError, OverflowError, ValueError, OSError):  # no time that a calendar has
        return None


def _first(found: Any, *names: str) -> float | None:
    """Return the first of these that is a number; endless, and "inf", is none."""
    for name in names:
        value = _at(found, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
    return None


def _at(found: Any, *path: str) -> Any:
    """Return what stands at that path, or None."""
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _is_mapping(document: Foreign, *path: str) -> bool:
    return isinstance(_at(document, *path), Mapping)


IMPORTER: Importer = LlmDImporter()
