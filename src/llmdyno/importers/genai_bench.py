"""Results of genai-bench: the JSON of one run, SCENARIO_TASK_concurrency_N_time_Ts.json.

Keys: AggregatedMetrics in genai_bench/metrics/metrics.py and save() in
genai_bench/metrics/aggregated_metrics_collector.py of sgl-project/genai-bench, 0.0.5 (7fd04d8).
Times are in `_time_unit`, seconds if it is not there. The model is in experiment_metadata.json
beside it. Statistics leave out what --warmup-ratio and --cooldown-ratio said; counts do not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel, Statistics, statistics

_MS = {"s": 1e3, "ms": 1.0}
# Our names and theirs.
_LATENCIES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "e2e_ms": "e2e_latency"}


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics of one quantity over the requests."""

    mean: float | None = None
    sum: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class _Aggregated(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a run, by their names."""

    scenario: str | None = None
    num_concurrency: float = 1
    batch_size: int = 1
    iteration_type: str = "num_concurrency"
    run_duration: float | None = None
    mean_output_throughput_tokens_per_s: float | None = None
    requests_per_second: float | None = None
    requests_per_minute: float | None = None  # of older versions
    error_codes_frequency: dict[str, int] = {}
    num_error_requests: float | None = None
    num_completed_requests: float | None = None
    num_requests: float | None = None
    stats: dict[str, _Field | None]


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    aggregated_metrics: _Aggregated
    time_unit: Literal["s", "ms"] = msgspec.field(default="s", name="_time_unit")


class GenaiBenchImporter:
    """Reads the result of a run that genai-bench saves as JSON."""

    name = "genai-bench"
    definitions: Mapping[str, str] = {
        "tpot_ms": "(end-to-end latency - TTFT) / (output tokens - 1)",
        "e2e_ms": "sent to the end of the response, which may come after the last token",
        "token_rate": "output tokens of the requests that count / the whole run, tail included",
        "request_rate": "completed requests / the whole run, tail included",
        "tokens": "its average a request times requests; by the server or its own tokenizer",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise its aggregated metrics."""
        found = document.get("aggregated_metrics")
        return isinstance(found, Mapping) and {"stats", "num_completed_requests"} <= found.keys()

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each run."""
        runs = [msgspec.convert(document, _Run) for document in documents]
        return Findings(
            levels=[_level(run) for run in runs],
            spec={
                "model": "",
                "load": {"users": [run.aggregated_metrics.num_concurrency for run in runs]},
            },
            notes=("The file does not name the model; experiment_metadata.json beside it does.",),
        )


def _level(run: _Run) -> ForeignLevel:
    found = run.aggregated_metrics
    per_minute = found.requests_per_minute
    return ForeignLevel(
        users=found.num_concurrency,
        arrival="closed",
        asked=found.num_requests,
        asked_output_tokens=_length(found.scenario),
        config=_workload(found),
        # Before there was a duration it is 0 where the run failed.
        duration_s=found.run_duration or None,
        completed=found.num_completed_requests,
        failed=found.num_error_requests,
        errors={f"HTTP {code}": count for code, count in found.error_codes_frequency.items()},
        input_tokens=_total(found, "num_input_tokens"),
        output_tokens=_total(found, "num_output_tokens"),
        method="whole run, less the warm-up that genai-bench was told to leave out (imported)",
        latencies={
            name: _in_ms(field, _MS[run.time_unit])
            for name, theirs in _LATENCIES.items()
            if (field := found.stats.get(theirs)) is not None
        },
        rates={
            "token_rate": found.mean_output_throughput_tokens_per_s,
            "request_rate": found.requests_per_second if per_minute is None else per_minute / 60,
        },
    )


def _workload(found: _Aggregated) -> dict[str, Any]:
    batch = {"batch_size": found.batch_size} if found.iteration_type == "batch_size" else {}
    return {**({"scenario": found.scenario} if found.scenario else {}), **batch}


def _in_ms(field: _Field, factor: float) -> Statistics:
    # The sum over the mean is the number of requests that count.
    n = field.sum / field.mean if field.sum and field.mean else None
    stats = {name: getattr(field, name) for name in ("mean", "p50", "p90", "p95", "p99", "max")}
    return statistics(stats, n=n, factor=factor)


def _total(found: _Aggregated, name: str) -> float | None:
    field, n = found.stats.get(name), found.num_completed_requests
    return None if field is None or field.mean is None or n is None else field.mean * n


def _length(scenario: str | None) -> float | None:
    """Return the output length of a scenario in which all are as long: D(100,200)."""
    fixed = re.fullmatch(r"D\(\d+,\s*(\d+)\)", scenario or "")
    return float(fixed[1]) if fixed else None


IMPORTER: Importer = GenaiBenchImporter()
