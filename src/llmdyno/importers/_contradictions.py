"""Numbers of another tool that contradict one another, though each could be.

Where it is plain which one cannot be, it becomes null; else both stay or both go, and a note says
what is wrong. The bounds are wide: tools divide by windows of their own.
"""

import math
from collections.abc import Mapping

import msgspec

from llmdyno.importers._level import ForeignLevel, Statistics, as_float
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.stats import STATISTICS
from llmdyno.results.wording import short, significant

_ROUNDING = 0.01  # relative
# A rate times the run's length may be so many times the count: a window leaves out ramp and tail.
_OF_COUNT = 2.0
# A rate → what it counts, and that in words.
_RATES = {
    "token_rate": ("output_tokens", "output tokens"),
    "request_rate": ("completed", "answers"),
}


def without_contradictions(level: ForeignLevel) -> tuple[ForeignLevel, list[str]]:
    """Return a level without what its other numbers exclude, and a note on each contradiction."""
    notes = _rates_against_counts(level)
    latencies, found = _first_after_last(level.latencies)
    notes += found
    rates = dict(level.rates)
    good, whole = rates.get("goodput"), rates.get("request_rate")
    if good is not None and whole is not None and good > whole * (1 + _ROUNDING):
        notes.append(
            f"the goodput of {short(good)} requests a second is above the request rate of"
            f" {short(whole)}, of which it is a part; it is left out."
        )
        rates["goodput"] = None
    duration_s = level.duration_s
    if duration_s == 0 and level.completed:
        notes.append("the duration is 0 s, and requests completed in it; it is left out.")
        duration_s = None
    level = msgspec.structs.replace(level, latencies=latencies, rates=rates, duration_s=duration_s)
    return level, notes


def _rates_against_counts(level: ForeignLevel) -> list[str]:
    """Say that a rate times the run's length is far from what the file counts."""
    notes = []
    for name, (counted, words) in _RATES.items():
        rate, count = level.rates.get(name), getattr(level, counted)
        if not rate or not count or not level.duration_s:
            continue
        length_s = as_float(level.duration_s)
        ratio = rate * length_s / as_float(count)
        if not math.isfinite(ratio) or 1 / _OF_COUNT <= ratio <= _OF_COUNT:
            continue
        notes.append(
            f"the {BY_NAME[name].short} of {significant(rate)}/s over {significant(length_s)} s"
            f" would be {rate * length_s:,.0f} {words}, and {count:,.0f} are counted: one of the"
            " three is wrong."
        )
    return notes


def _first_after_last(
    latencies: Mapping[str, Statistics],
) -> tuple[Mapping[str, Statistics], list[str]]:
    """Drop TTFT and E2E where the first token comes after the last one."""
    first, last = latencies.get("ttft_ms", {}), latencies.get("e2e_ms", {})
    for stat in ("mean", "p50"):
        before, after = first.get(stat), last.get(stat)
        if before is not None and after is not None and before > after * (1 + _ROUNDING):
            none = {**dict.fromkeys(STATISTICS), "n": None}
            dropped = {"ttft_ms": {**first, **none}, "e2e_ms": {**last, **none}}
            said = (
                f"the {stat} of TTFT of {before:g} ms is above that of E2E of {after:g} ms, and no"
                " first token comes after the last; both are left out."
            )
            return {**latencies, **dropped}, [said]
    return latencies, []
