"""Numbers of other tools that cannot be: they become null, and a note says which and why.

A tool writes what its code makes of a broken run: a latency below zero where a stream came in one
piece, more requests completed than asked, statistics of none. Such a number would be compared with
true ones. The rules are the same for every tool. The notes on load and length change no number: a
load or a length that was asked for and not reached makes latencies of something else.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from llmdyno.importers._contradictions import without_contradictions
from llmdyno.importers._level import ForeignLevel, Statistics, as_float
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.stats import STATISTICS
from llmdyno.results.wording import short

_ASCENDING = ("p50", "p90", "p95", "p99", "max")
_ROUNDING = 1e-6  # relative: tools round each statistic by itself
# As for our own levels: less than this share of the load that was asked for is another load.
_SENT_SHARE = 0.98
# The mean over a whole run includes ramp and tail, where fewer requests are in flight.
_BUSY_SHARE = 0.8
_UNLIKE_LENGTH = 0.02  # of the output length that was asked for
_COUNTS = {
    "completed": "completed requests",
    "failed": "failed requests",
    "cut": "requests that were cut off",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "duration_s": "the duration in seconds",
    "asked": "requests that were asked for",
    "asked_output_tokens": "output tokens that were asked for",
    "users": "users",
    "in_flight_mean": "requests in flight",
    "in_flight_max": "most requests in flight",
    "max_concurrency": "the most requests at once",
    "sent_rate": "requests sent a second",
}


def checked(level: ForeignLevel) -> tuple[ForeignLevel, list[str]]:
    """Return a level without the numbers that cannot be, and a note on each."""
    notes: list[str] = []
    level = _with_counts(level, notes)
    level = _of_answers(level, notes)
    latencies = {name: _latency(name, found, notes) for name, found in level.latencies.items()}
    level = msgspec.structs.replace(level, latencies=latencies, rates=_rates(level.rates, notes))
    level, contradictions = without_contradictions(level)
    return level, [*notes, *contradictions, *_missed_load(level), *_missed_length(level)]


def _with_counts(level: ForeignLevel, notes: list[str]) -> ForeignLevel:
    """Drop counts below zero or beyond all, and more answers than requests."""
    known = {
        name: _at_least_zero(said, getattr(level, name), notes) for name, said in _COUNTS.items()
    }
    # An endless rate is how tools write "as fast as possible".
    rate = None if level.rate is None or not math.isfinite(level.rate) else level.rate
    if level.rate is not None and (math.isnan(level.rate) or level.rate <= 0):
        notes.append(f"the rate that was asked for is {level.rate:g}; it is left out.")
        rate = None
    completed, asked = known["completed"], known["asked"]
    if completed is not None and asked is not None and completed > asked:
        notes.append(
            f"{completed:,.0f} requests completed of {asked:,.0f} that were asked for; how many"
            " did is left out."
        )
        known["completed"] = None
    others = [known[name] or 0 for name in ("completed", "failed", "cut")]
    if known["completed"] is not None and asked is not None and sum(others) > asked:
        notes.append(
            f"{sum(others):,.0f} requests ended of {asked:,.0f} that were asked for; how many"
            " failed is left out."
        )
        known["failed"] = None
    errors = {kind: count for kind, count in level.errors.items() if count >= 0}
    if len(errors) < len(level.errors):
        notes.append("errors of some kinds are counted below zero; those counts are left out.")
    return msgspec.structs.replace(level, rate=rate, errors=errors, **known)


def _of_answers(level: ForeignLevel, notes: list[str]) -> ForeignLevel:
    """Drop what a tool reports of answers when there were none."""
    if level.completed != 0:
        return level
    reported: Iterable[float | None] = (
        *level.rates.values(),
        *(found[stat] for found in level.latencies.values() for stat in STATISTICS),
        level.output_tokens,
    )
    if any(reported):
        notes.append(
            "no request completed: latencies, rates and output tokens are of none and are left out."
        )
    return msgspec.structs.replace(
        level,
        latencies={name: found for name, found in level.latencies.items() if _is_of_sending(name)},
        rates={},
        output_tokens=None if level.output_tokens else level.output_tokens,
    )


def _latency(name: str, found: Statistics, notes: list[str]) -> Statistics:
    """Return a latency's statistics; if they contradict one another, none of them."""
    short = BY_NAME[name].short
    values: dict[str, float | None] = {}
    for stat in STATISTICS:
        value = found[stat]
        if value is not None and not math.isfinite(value):
            notes.append(f"{short}: the {stat} is {value}; it is left out.")
            value = None
        # A minus zero is a rounded difference of two stamps.
        values[stat] = None if value is None else value + 0.0
    if _is_of_sending(name):  # a timer may fire early, and early is not late
        values = {stat: value and max(value, 0.0) for stat, value in values.items()}
    known = {stat: value for stat, value in values.items() if value is not None}
    if reason := _contradiction(known):
        notes.append(f"{short}: {reason}; its statistics are left out.")
        return {**found, **dict.fromkeys(STATISTICS), "n": None}
    n = found.get("n")
    return {**found, **values, "n": n if known and n is not None and n >= 0 else None}


def _contradiction(known: Mapping[str, float]) -> str:
    """Say why statistics cannot be those of one latency, or nothing."""
    negative = next((stat for stat, value in known.items() if value < 0), None)
    if negative is not None:
        return f"the {negative} is {known[negative]:g} ms, and no latency is negative"
    ascending = [stat for stat in _ASCENDING if stat in known]
    pairs = list(pairwise(ascending))
    if "mean" in known and "max" in known:
        pairs.append(("mean", "max"))
    for lower, upper in pairs:
        if known[upper] < known[lower] * (1 - _ROUNDING):
            return f"the {upper} of {known[upper]:g} ms is below the {lower} of {known[lower]:g} ms"
    return ""


def _rates(rates: Mapping[str, float | None], notes: list[str]) -> dict[str, float | None]:
    return {
        name: _at_least_zero(f"the {BY_NAME[name].short}", value, notes)
        for name, value in rates.items()
    }


def _at_least_zero(said: str, value: float | None, notes: list[str]) -> float | None:
    if value is None:
        return None
    number = as_float(value)
    if math.isfinite(number) and number >= 0:
        return value
    notes.append(f"{said}: {number:g} cannot be; it is left out.")
    return None


def _missed_load(level: ForeignLevel) -> list[str]:
    """Say that the load which was asked for was not the load that was measured."""
    found = []
    if level.rate is not None and level.sent_rate is not None:
        if level.sent_rate < _SENT_SHARE * level.rate:
            found.append(
                f"{level.rate:g} requests a second were asked for and {short(level.sent_rate)} were"
                " sent: the load is not the one in the level's name."
            )
    elif level.rate is not None and _ended_late(level):
        assert level.duration_s is not None, "it was compared"
        found.append(
            f"at {level.rate:g} requests a second the run would have ended well before the"
            f" {short(level.duration_s)} s that it took: the asked rate was not delivered."
        )
    busy, most = level.in_flight_mean, level.in_flight_max
    if level.users and not level.is_open:
        if most is not None and most < _SENT_SHARE * as_float(level.users):
            found.append(
                f"at most {short(most)} of {level.users:,.0f} users had a request in flight: the"
                " concurrency was never reached."
            )
        elif busy is not None and busy < _BUSY_SHARE * as_float(level.users):
            found.append(
                f"{short(busy)} of {level.users:,.0f} users had a request in flight on average: the"
                " concurrency was not reached."
            )
    return found


def _missed_length(level: ForeignLevel) -> list[str]:
    """Say that answers were not as long as asked."""
    asked = level.asked_output_tokens
    if not asked or not level.completed or level.output_tokens is None:
        return []
    each = as_float(level.output_tokens) / as_float(level.completed)
    if abs(each / asked - 1) <= _UNLIKE_LENGTH:
        return []
    said = f"answers have {short(each)} output tokens on average and {short(asked)} were asked for"
    return [f"{said}: the work is not what was asked."]


def _ended_late(level: ForeignLevel) -> bool:
    """Tell whether a run took longer than its requests at their rate and the slowest answer.

    Chance is allowed for: n arrivals of a Poisson process take n / rate, give or take √n / rate.
    """
    slowest_ms = _slowest_ms(level)
    counts = [level.completed, level.failed, level.cut]
    n = level.asked or sum(count for count in counts if count is not None)
    if not n or slowest_ms is None or level.duration_s is None or level.rate is None:
        return False
    arrivals_s = n / level.rate * (1 / _SENT_SHARE + 2 / math.sqrt(n))
    return level.duration_s > arrivals_s + 2 * slowest_ms / 1e3


def _slowest_ms(level: ForeignLevel) -> float | None:
    """Return about how long the slowest answer took: what the file says, or its slowest parts."""

    def tail(name: str) -> float | None:
        found = level.latencies.get(name, {})
        value: float | None = found.get("max") or found.get("p99")
        return value

    e2e, first, each = tail("e2e_ms"), tail("ttft_ms"), tail("tpot_ms")
    if e2e is not None or first is None or each is None:
        return e2e
    if not level.output_tokens or not level.completed:
        return None
    return first + each * as_float(level.output_tokens) / as_float(level.completed)


def _is_of_sending(name: str) -> bool:
    return name == "schedule_delay_ms"
