"""Results of MLPerf's loadgen: mlperf_log_summary.txt.

Lines: PerformanceSummary::LogSummary() in loadgen/results.cc and TestSettings in
loadgen/test_settings_internal.cc of mlcommons/inference (05a9cec). It is text, "name : value" a
line, with times in nanoseconds. A summary that says INVALID stays so: the level has a doubt with
what was not satisfied. Several summaries in one file are levels.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel, Statistics, statistics
from llmdyno.importers._serving import one_or_each

_TITLE = "MLPerf Results Summary"
_MS_PER_NS = 1e-6
_LINE = re.compile(r"\s*(?P<name>[^:*=][^:]*?)\s*:\s*(?P<value>.*?)\s*")
_FAULT = re.compile(r"\d+ (ERRORS?|WARNINGS?) encountered", re.IGNORECASE)
_ACCURACY = "it ran for accuracy, so its times mean nothing"
# Our names; the words in a percentile's line, and in the lines of mean and max.
_LATENCIES = {
    "e2e_ms": ("latency (ns)", "latency (ns)"),
    "ttft_ms": ("first token latency (ns)", "First Token latency (ns)"),
    "tpot_ms": ("time to output token (ns)", "Time to Output Token (ns)"),
}
_PERCENTILES = {"p50": "50.00", "p90": "90.00", "p95": "95.00", "p99": "99.00"}
# How a scenario sends: all at once, one after the other, or by the clock.
_ARRIVALS = {
    "Server": "poisson",
    "Offline": "burst",
    "SingleStream": "closed",
    "MultiStream": "closed",
}


class MlperfImporter:
    """Reads the summary that MLPerf's loadgen writes as text."""

    name = "mlperf"
    definitions: Mapping[str, str] = {
        "ttft_ms": "from when the query was due until the system reports its first token",
        "tpot_ms": "(last - first token) / (output tokens - 1), as the system reports them",
        "e2e_ms": "from when the query was due until the system reports it complete",
        "token_rate": "output tokens of all samples / until the last one completed",
        "request_rate": "samples, of which a query may have several; between first and last",
        "users": "the loadgen calls the system in its own process: no network is in the times",
    }

    def parse(self, text: str) -> list[Foreign]:
        """Return each summary in a text as its lines by name; none: it has no such title."""
        summaries = text.split(_TITLE)[1:]
        return [{_TITLE: _lines(summary)} for summary in summaries]

    def recognises(self, document: Foreign) -> bool:
        """Recognise what `parse` returns."""
        return _TITLE in document

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each summary."""
        summaries: list[dict[str, Any]] = [document[_TITLE] for document in documents]
        for name in ("Scenario", "Result is"):
            if not all(name in summary for summary in summaries):
                raise msgspec.ValidationError(f"it has no line `{name} : …`")
        levels = [_level(summary) for summary in summaries]
        faults = [fault for summary in summaries for fault in summary["faults"]]
        return Findings(
            levels=[*levels],
            spec={
                "model": "",
                "system": one_or_each([summary.get("SUT name") for summary in summaries]),
                "scenario": one_or_each([summary.get("Scenario") for summary in summaries]),
                "load": {
                    "users": [level.users for level in levels],
                    "request_rate": one_or_each([level.rate for level in levels]),
                },
            },
            notes=(
                "The file names neither the model nor how many samples completed.",
                *(f"The loadgen says: {fault}" for fault in faults),
            ),
        )


def _lines(summary: str) -> dict[str, Any]:
    """Return the lines of a summary by name, and what it says went wrong under "faults"."""
    found: dict[str, Any] = {"faults": []}
    for line in summary.splitlines():
        if _FAULT.match(line.strip()) or line.startswith(("ERROR", "WARNING")):
            found["faults"].append(line.strip())
        elif (match := _LINE.fullmatch(line)) and match["value"]:
            found.setdefault(match["name"], match["value"])
    return found


def _level(summary: Mapping[str, Any]) -> ForeignLevel:
    scenario = summary["Scenario"]
    arrival = _ARRIVALS.get(scenario)
    if arrival is None:
        raise msgspec.ValidationError(
            f"the scenario is '{scenario}', which is none of {', '.join(_ARRIVALS)}"
        )
    is_server = scenario == "Server"
    completed = _first(
        summary, "Completed samples per second", "Samples per second", "QPS w/ loadgen overhead"
    )
    tokens = _first(
        summary, "Completed tokens per second", "Tokens per second", "TPS w/ loadgen overhead"
    )
    is_timed = "Accuracy" not in summary.get("Mode", "")
    return ForeignLevel(
        users=1 if arrival == "closed" else None,
        arrival=arrival,
        rate=_number(summary, "target_qps") if is_server else None,
        sent_rate=_number(summary, "Scheduled samples per second") if is_server else None,
        config={"scenario": scenario, "system": summary.get("SUT name", "")},
        duration_s=None,
        completed=None,
        failed=None,
        method="whole run: the loadgen counts ramp and tail too (imported)",
        latencies={name: _latency(summary, *words) for name, words in _LATENCIES.items()}
        if is_timed
        else {},
        rates={"token_rate": tokens, "request_rate": completed} if is_timed else {},
        invalid=_invalid(summary),
    )


def _latency(summary: Mapping[str, Any], percentile: str, other: str) -> Statistics:
    return statistics(
        {
            "mean": _number(summary, f"Mean {other}"),
            **{
                stat: _number(summary, f"{percent} percentile {percentile}")
                for stat, percent in _PERCENTILES.items()
            },
            "max": _number(summary, f"Max {other}"),
        },
        factor=_MS_PER_NS,
    )


def _invalid(summary: Mapping[str, Any]) -> str | None:
    """Say why the result does not count, if it does not."""
    reasons = [
        name.removesuffix(" satisfied").lower() + " not satisfied"
        for name, value in summary.items()
        if name.endswith(" satisfied") and str(value).upper() == "NO"
    ]
    if "Accuracy" in summary.get("Mode", ""):
        reasons.append(_ACCURACY)
    if summary["Result is"] == "VALID" and not reasons:
        return None
    return "; ".join([f"it says {summary['Result is']}", *reasons])


def _first(summary: Mapping[str, Any], *names: str) -> float | None:
    return next((value for name in names if (value := _number(summary, name)) is not None), None)


def _number(summary: Mapping[str, Any], name: str) -> float | None:
    """Return the number in a line, or None if there is no such line, or no number in it."""
    try:
        return float(summary[name])
    except (KeyError, ValueError):
        return None


IMPORTER: Importer = MlperfImporter()
