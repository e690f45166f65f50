"""Results of GuideLLM: benchmarks.json of `guidellm benchmark`.

Keys: guidellm/benchmark/schemas (report, benchmark, metrics) and guidellm/schemas/statistics.py. A
file has one benchmark for each strategy; each becomes a level. Files from before 0.4 have the
strategy in `args` and the counts in `run_stats`; both places are looked at.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import (
    ForeignLevel,
    Statistics,
    level_document,
    statistics,
    without_secrets,
)

_MS_PER_S = 1e3


class _Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    p90: float
    p95: float
    p99: float


class _Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Their DistributionSummary."""

    mean: float
    median: float
    max: float
    count: float
    total_sum: float
    percentiles: _Percentiles


class _ByStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution for each fate of a request."""

    successful: _Distribution | None = None
    total: _Distribution | None = None


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    successful: int
    incomplete: int = 0
    errored: int = 0


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    requests_per_second: _ByStatus
    request_latency: _ByStatus
    prompt_token_count: _ByStatus = _ByStatus()
    output_token_count: _ByStatus = _ByStatus()
    time_to_first_token_ms: _ByStatus
    inter_token_latency_ms: _ByStatus
    output_tokens_per_second: _ByStatus
    request_totals: _Counts | None = None


class _Strategy(msgspec.Struct, frozen=True, kw_only=True):
    type_: str
    streams: int | None = None
    rate: float | None = None
    max_concurrency: int | None = None


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    strategy: _Strategy
    backend: dict[str, Any] = {}


class _RunStats(msgspec.Struct, frozen=True, kw_only=True):
    requests_made: _Counts


class _Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    metrics: _Metrics
    duration: float
    start_time: float
    config: _Settings | None = None
    args: _Settings | None = None
    run_stats: _RunStats | None = None
    warmup_duration: float = 0.0
    cooldown_duration: float = 0.0

    def settings(self) -> _Settings:
        """Return what was asked, from where this version keeps it."""
        found = self.config or self.args
        if found is None:
            raise msgspec.ValidationError(
                "Object missing required field `config` - at `$.benchmarks[...]`"
            )
        return found


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    guidellm_version: str | None = None
    python_version: str | None = None
    platform: str | None = None


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    benchmarks: list[_Benchmark]
    metadata: _Metadata = _Metadata()
    args: dict[str, Any] = {}


class GuidellmImporter:
    """Reads the benchmark report that GuideLLM saves as JSON."""

    name = "guidellm"
    definitions: Mapping[str, str] = {
        "ttft_ms": "by the wall clock, from the moment the headers are sent",
        "tpot_ms": "(last - first token) / (output tokens - 1), weighted by tokens",
        "e2e_ms": "sent to the end of the response, which may come after the last token",
        "token_rate": "output tokens of all requests, spread evenly over each one's stream",
        "tokens": "as the server counts them, or stream iterations; the file does not say which",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise a list of benchmarks whose metrics have a rate of requests."""
        benchmarks = document.get("benchmarks")
        return (
            isinstance(benchmarks, list)
            and bool(benchmarks)
            and isinstance(benchmarks[0], dict)
            and isinstance(benchmarks[0].get("metrics"), dict)
            and "requests_per_second" in benchmarks[0]["metrics"]
        )

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each benchmark.

        Raises:
            msgspec.ValidationError: a value is missing or of the wrong type.
        """
        report = msgspec.convert(documents[0], _Report)
        if not report.benchmarks:
            raise msgspec.ValidationError("`benchmarks` is empty - at `$.benchmarks`")
        strategies = [benchmark.settings().strategy for benchmark in report.benchmarks]
        backend = report.benchmarks[0].settings().backend
        said = {**report.args, **backend}
        return Findings(
            levels=[level_document(_level(benchmark)) for benchmark in report.benchmarks],
            version=report.metadata.guidellm_version,
            started=_iso(report.benchmarks[0].start_time),
            environment={
                name: value
                for name, value in (
                    ("os", report.metadata.platform),
                    ("python", report.metadata.python_version),
                )
                if value is not None
            },
            spec={
                "url": without_secrets(_text(said, "target")),
                "model": _text(said, "model"),
                "load": {
                    "users": [_users(strategy) for strategy in strategies],
                    "request_rate": [strategy.rate for strategy in strategies],
                },
            },
        )


def _level(benchmark: _Benchmark) -> ForeignLevel:
    metrics = benchmark.metrics
    strategy = benchmark.settings().strategy
    counts = metrics.request_totals or (
        benchmark.run_stats.requests_made if benchmark.run_stats else None
    )
    windowed = benchmark.warmup_duration > 0 or benchmark.cooldown_duration > 0
    start_s = benchmark.warmup_duration
    return ForeignLevel(
        users=_users(strategy),
        arrival=_arrival(strategy),
        rate=strategy.rate,
        duration_s=start_s + benchmark.duration + benchmark.cooldown_duration,
        completed=counts.successful if counts else None,
        failed=counts.errored if counts else None,
        cut=counts.incomplete if counts else None,
        input_tokens=_sum(metrics.prompt_token_count),
        output_tokens=_sum(metrics.output_token_count),
        window=(start_s, start_s + benchmark.duration) if windowed else None,
        method=(
            "between the warm-up and the cool-down that GuideLLM was told to leave out (imported)"
            if windowed
            else "whole run: GuideLLM counts ramp and tail too (imported)"
        ),
        latencies={
            "ttft_ms": _latency(metrics.time_to_first_token_ms),
            "tpot_ms": _latency(metrics.inter_token_latency_ms),
            "e2e_ms": _latency(metrics.request_latency, factor=_MS_PER_S),
        },
        rates={
            "token_rate": _mean(metrics.output_tokens_per_second, "total"),
            "request_rate": _mean(metrics.requests_per_second, "successful"),
        },
    )


def _latency(found: _ByStatus, *, factor: float = 1.0) -> Statistics:
    one = found.successful
    if one is None:
        return statistics({})
    return statistics(
        {
            "mean": one.mean,
            "p50": one.median,
            "p90": one.percentiles.p90,
            "p95": one.percentiles.p95,
            "p99": one.percentiles.p99,
            "max": one.max,
        },
        n=one.count,
        factor=factor,
    )


def _sum(found: _ByStatus) -> float | None:
    return None if found.successful is None else found.successful.total_sum


def _mean(found: _ByStatus, status: Literal["successful", "total"]) -> float | None:
    one = (found.total if status == "total" else None) or found.successful
    return None if one is None else one.mean


def _users(strategy: _Strategy) -> int | None:
    return 1 if strategy.type_ == "synchronous" else strategy.streams or strategy.max_concurrency


def _arrival(strategy: _Strategy) -> str:
    closed = strategy.type_ in {"synchronous", "concurrent", "throughput"}
    return "closed" if closed else strategy.type_


def _iso(time_s: float) -> str | None:
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # no time that a calendar has
        return None


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


IMPORTER: Importer = GuidellmImporter()
