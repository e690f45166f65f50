"""Results of inference-perf: stage_N_lifecycle_metrics.json and the summary over all stages.

Keys: summarize_requests() in inference_perf/reportgen/base.py of kubernetes-sigs/inference-perf,
v0.6.1 (7de5ef2), and the demos of v0.2 (demos/kubecon-na-2025), which lack the duration and some
counts. 0.7.0 was run: its files hold the server's count of output tokens (output_tokens) and its
tokenizer's (output_len), and one of the two is in its rates. Times are in seconds. A stage names
the rate that was asked for and the one that was sent. Import the stages one by one: the summary
mixes their loads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel, Statistics, statistics
from llmdyno.importers._serving import one_or_each

_MS_PER_S = 1e3
_SAME_COUNT = 0.005  # counts of the same tokens are so near
# Our names and theirs.
_LATENCIES = {
    "ttft_ms": "time_to_first_token",
    "itl_ms": "inter_token_latency",
    "tpot_ms": "time_per_output_token",
    "e2e_ms": "request_latency",
}


class _Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics of one quantity."""

    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    total: float | None = None


class _Load(msgspec.Struct, frozen=True, kw_only=True):
    count: float
    schedule_delay: _Summary | None = None
    requested_rate: float | None = None
    achieved_rate: float | None = None
    concurrency: float | None = None


class _Throughput(msgspec.Struct, frozen=True, kw_only=True):
    output_tokens_per_sec: float | None = None
    requests_per_sec: float | None = None


class _Goodput(msgspec.Struct, frozen=True, kw_only=True):
    request_goodput: float | None = None


class _Successes(msgspec.Struct, frozen=True, kw_only=True):
    count: float
    latency: dict[str, _Summary | None] | None
    throughput: _Throughput | None
    # The first two are of newer versions.
    prompt_tokens: _Summary | None = None
    output_tokens: _Summary | None = None
    prompt_len: _Summary | None = None
    output_len: _Summary | None = None
    goodput_metrics: _Goodput | None = None


class _Label(msgspec.Struct, frozen=True, kw_only=True):
    count: int


class _Failures(msgspec.Struct, frozen=True, kw_only=True):
    count: float | None = None
    by_label: dict[str, _Label] = {}


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of one report, by their names."""

    load_summary: _Load
    successes: _Successes
    failures: _Failures | None = None
    benchmark_time_seconds: float | None = None


class InferencePerfImporter:
    """Reads the reports on a request's life that inference-perf saves as JSON."""

    name = "inference-perf"
    definitions: Mapping[str, str] = {
        "ttft_ms": "ends at the first chunk with text, of answers of more than one token",
        "itl_ms": "each token has its chunk's time: within a chunk the gap is 0",
        "tpot_ms": "(last - first token) / (output tokens - 1)",
        "e2e_ms": "sent to the end of the response, which may come after the last token",
        "schedule_delay_ms": "percentiles below zero, of requests sent early, count as 0",
        "token_rate": "output tokens of the completed requests / first sent to last ended",
        "tokens": "counted by its own tokenizer, unless it was told to take the server's count",
        "arrival": "the file does not say whether arrivals are even or a Poisson process",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise its load and the latencies of its successes; those of Prometheus have none."""
        load, successes = document.get("load_summary"), document.get("successes")
        return (
            isinstance(load, Mapping)
            and "count" in load
            and isinstance(successes, Mapping)
            and {"count", "latency", "throughput"} <= successes.keys()
        )

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each report."""
        reports = [msgspec.convert(document, _Report) for document in documents]
        levels = [_level(report) for report in reports]
        notes = ["The file names neither the model nor the server; config.yaml beside it does."]
        notes += [said for report in reports if (said := _counted(report).said)]
        if any(level.arrival == "mixed" for level in levels):
            notes.append("The file mixes all stages: latencies are those of several loads.")
        return Findings(
            levels=[*levels],
            spec={
                "model": "",
                "load": {
                    "users": [level.users for level in levels],
                    "requests": one_or_each([report.load_summary.count for report in reports]),
                    "request_rate": one_or_each([level.rate for level in levels]),
                },
            },
            notes=tuple(notes),
        )


def _level(report: _Report) -> ForeignLevel:
    load, successes, throughput = (
        report.load_summary,
        report.successes,
        report.successes.throughput or _Throughput(),
    )
    # A stage of so many users has a rate as well, which it made up to count its requests.
    is_closed = load.concurrency is not None
    failures = report.failures or _Failures()
    is_stage = load.requested_rate is not None
    delay = load.schedule_delay
    goodput = successes.goodput_metrics
    counted = _counted(report)
    return ForeignLevel(
        users=load.concurrency,
        arrival="closed" if is_closed else "open" if is_stage else "mixed",
        rate=None if is_closed else load.requested_rate,
        sent_rate=None if is_closed else load.achieved_rate,
        asked=load.count,
        duration_s=_duration_s(report),
        completed=successes.count,
        failed=failures.count,
        errors={label: found.count for label, found in failures.by_label.items()},
        input_tokens=_total(successes.prompt_tokens, successes.prompt_len, successes.count),
        output_tokens=counted.tokens,
        token_source=counted.source,
        method="whole stage: inference-perf counts ramp and tail too (imported)",
        latencies={
            **{
                name: _in_ms(found, successes.count if name != "itl_ms" else None)
                for name, theirs in _LATENCIES.items()
                if (found := (successes.latency or {}).get(theirs)) is not None
            },
            **(
                {}
                if is_closed or delay is None
                else {"schedule_delay_ms": _in_ms(delay, load.count)}
            ),
        },
        rates={
            "token_rate": throughput.output_tokens_per_sec,
            "request_rate": throughput.requests_per_sec,
            "goodput": None if goodput is None else goodput.request_goodput,
        },
    )


class _Counted(NamedTuple):
    tokens: float | None
    source: str
    said: str = ""  # that the two counts differ


def _counted(report: _Report) -> _Counted:
    """Return the output tokens that its rates count: the server's, or those of its tokenizer."""
    successes, seconds = report.successes, _duration_s(report)
    server = _total(successes.output_tokens, None, successes.count)
    own = _total(None, successes.output_len, successes.count)
    if server is None or own is None or math.isclose(server, own, rel_tol=_SAME_COUNT):
        return _Counted(own if server is None else server, "usage" if own is None else "tokenizer")
    rate = (successes.throughput or _Throughput()).output_tokens_per_sec
    counts = f"The server counted {server:,.0f} output tokens, the tool's tokenizer {own:,.0f}"
    made = (rate or 0.0) * (seconds or 0.0)
    if not made:
        return _Counted(
            own, "tokenizer", f"{counts}; the file does not tell which its rates count."
        )
    is_server = abs(made - server) < abs(made - own)
    which = "former" if is_server else "latter"
    return _Counted(
        server if is_server else own,
        "usage" if is_server else "tokenizer",
        f"{counts}; its token rate and TPOT go by the {which}.",
    )


def _in_ms(found: _Summary, n: float | None) -> Statistics:
    return statistics(
        {
            "mean": found.mean,
            "p50": found.median,
            "p90": found.p90,
            "p95": found.p95,
            "p99": found.p99,
            "max": found.max,
        },
        n=n,
        factor=_MS_PER_S,
    )


def _duration_s(report: _Report) -> float | None:
    """Return how long it took; older versions have it in the throughput alone."""
    rate = (report.successes.throughput or _Throughput()).requests_per_sec
    if report.benchmark_time_seconds is not None or not rate:
        return report.benchmark_time_seconds
    return report.successes.count / rate


def _total(counted: _Summary | None, each: _Summary | None, n: float) -> float | None:
    if counted is not None and counted.total is not None:
        return counted.total
    return None if each is None or each.mean is None else each.mean * n


IMPORTER: Importer = InferencePerfImporter()
