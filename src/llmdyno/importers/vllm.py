"""Results of `vllm bench serve --save-result`, also with --save-detailed and --append-result.

Keys: vllm/benchmarks/serve.py (benchmark() and main_async()) of vLLM; a file that was appended to
holds one result a line, and each becomes a level. With --save-detailed the file has the stamps of
every request: then all statistics are worked out anew from them, which also gives those that the
summary lacks (it has by default mean, median and p99, and no end-to-end latency).
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import (
    ForeignLevel,
    Statistics,
    count_errors,
    level_document,
    statistics,
)
from llmdyno.results.measures import distribution
from llmdyno.results.observations import Values

# Our names and theirs.
_SUFFIXES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "e2e_ms": "e2el"}
_STATS = {
    "mean": ("mean_{}_ms",),
    "p50": ("median_{}_ms", "p50_{}_ms"),
    "p90": ("p90_{}_ms",),
    "p95": ("p95_{}_ms",),
    "p99": ("p99_{}_ms",),
    "max": ("p100_{}_ms",),
}


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of one result, by their names."""

    duration: float
    completed: int
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    output_throughput: float
    model_id: str
    date: str | None = None
    backend: str | None = None
    num_prompts: int | None = None
    request_rate: float | str | None = None
    burstiness: float | None = None
    max_concurrency: int | None = None
    failed: int | None = None
    request_goodput: float | None = None
    # As older versions write it.
    misspelt_goodput: float | None = msgspec.field(default=None, name="request_goodput:")
    latencies: list[float] = []  # newer versions: of every request, failed ones too
    # With --save-detailed: lists of one entry a request, in order of sending.
    ttfts: list[float] = []
    itls: list[list[float]] = []
    output_lens: list[int] = []
    errors: list[str] = []


class VllmImporter:
    """Reads the result that `vllm bench serve` saves as JSON."""

    name = "vllm"
    definitions: Mapping[str, str] = {
        "ttft_ms": "ends at the first chunk with a choice, even if it is empty or only a role",
        "itl_ms": "gap between chunks, however many tokens are in one",
        "tpot_ms": "(last - first chunk) / (output tokens - 1)",
        "e2e_ms": "ends at the last chunk with a choice, even if it is empty",
        "token_rate": "output tokens of the completed requests / the whole run, tail included",
        "tokens": "as the server counts them, or its own tokenizer; the file does not say which",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise its throughputs; SGLang's file, which is similar, has no `model_id`."""
        return {"request_throughput", "output_throughput", "model_id"} <= document.keys()

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each result."""
        results = [msgspec.convert(document, _Result) for document in documents]
        levels, notes = [], []
        for result, document in zip(results, documents, strict=True):
            detailed = _detailed(result)
            if result.ttfts and detailed is None:
                notes.append(
                    f"{_level_name(result)}: the details of the requests do not fit the summary;"
                    " the summary is used."
                )
            levels.append(_level(result, detailed or _summarised(result, document)))
        first = results[0]
        return Findings(
            levels=levels,
            started=_iso(first.date),
            spec={
                "model": first.model_id,
                "endpoint": first.backend,
                "load": {
                    "users": [result.max_concurrency for result in results],
                    "requests": first.num_prompts,
                    "request_rate": first.request_rate,
                    "burstiness": first.burstiness,
                },
            },
            notes=tuple(notes),
        )


def _level(result: _Result, latencies: Mapping[str, Statistics]) -> dict[str, Any]:
    failed = result.failed
    if failed is None and result.num_prompts is not None:
        failed = result.num_prompts - result.completed
    return level_document(
        ForeignLevel(
            users=result.max_concurrency,
            arrival=_arrival(result),
            rate=_rate(result),
            duration_s=result.duration,
            completed=result.completed,
            failed=failed,
            cut=0,
            errors=count_errors(_error_kind(error) for error in result.errors if error),
            input_tokens=result.total_input_tokens,
            output_tokens=result.total_output_tokens,
            method="whole run: vLLM counts ramp and tail too (imported)",
            latencies=latencies,
            rates={
                "token_rate": result.output_throughput,
                "request_rate": result.request_throughput,
                "goodput": (
                    result.misspelt_goodput
                    if result.request_goodput is None
                    else result.request_goodput
                ),
            },
        )
    )


def _summarised(result: _Result, document: Foreign) -> dict[str, Statistics]:
    """Return the statistics that the summary has."""
    found = {}
    for name, suffix in _SUFFIXES.items():
        values = {
            stat: next((document[key] for key in keys if key in document), None)
            for stat, patterns in _STATS.items()
            for keys in [[pattern.format(suffix) for pattern in patterns]]
        }
        checked = msgspec.convert(values, dict[str, float | None])
        n = result.completed if name in {"ttft_ms", "e2e_ms"} else None
        found[name] = statistics(checked, n=n)
    if found["e2e_ms"]["mean"] is None and len(result.latencies) == result.completed > 0:
        found["e2e_ms"] = _distribution(result.latencies)
    return found


def _detailed(result: _Result) -> dict[str, Statistics] | None:
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
        "ttft_ms": _distribution([ttft for ttft, _, _ in done]),
        "itl_ms": _distribution(list(chain.from_iterable(itl for _, itl, _ in done))),
        "tpot_ms": _distribution(
            [sum(itl) / (tokens - 1) for _, itl, tokens in done if tokens > 1]
        ),
        "e2e_ms": _distribution([ttft + sum(itl) for ttft, itl, _ in done]),
    }


def _distribution(values_s: list[float]) -> Statistics:
    return distribution(Values(np.array(values_s) * 1e3))


def _arrival(result: _Result) -> str:
    if result.request_rate in {None, "inf"}:
        return "closed" if result.max_concurrency else "burst"
    return "poisson" if result.burstiness in {None, 1.0} else "gamma"


def _rate(result: _Result) -> float | None:
    """Return the rate that was asked; None: none, all requests were sent at once."""
    try:
        rate = float(result.request_rate or "inf")
    except ValueError:
        return None
    return rate if math.isfinite(rate) else None


def _level_name(result: _Result) -> str:
    return f"{result.max_concurrency or 'unlimited'} users"


def _error_kind(error: str) -> str:
    """Return the class of the exception in a traceback; a text without one is an HTTP reason."""
    last = error.strip().splitlines()[-1] if error.strip() else "unknown"
    exception = re.match(r"(?:\w+\.)*(\w*(?:Error|Exception|Timeout)\w*)\b", last)
    return exception[1] if exception else last[:60]


def _iso(date: str | None) -> str | None:
    try:
        return datetime.strptime(date or "", "%Y%m%d-%H%M%S").isoformat()  # noqa: DTZ007  # it has none
    except ValueError:
        return None


IMPORTER: Importer = VllmImporter()
