"""What a level delivered of what was asked: length of answers, rate, users at once, a steady TTFT.

A level that sent less than asked, or answers of another length, measured another load; one whose
TTFT grows from request to request measured how long it lasted. These are the facts, the level's
`delivered`; load_checks.py has the bounds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, CUT, FAILED
from llmdyno.results.facts import LevelFacts
from llmdyno.results.quantiles import median
from llmdyno.results.rates import tokens_in_bins
from llmdyno.results.series import rank_trend
from llmdyno.results.standstill import standstill
from llmdyno.results.stats import Floats, significant
from llmdyno.units import Lengths

# A trend is looked for in the medians of so many equal groups of requests, in order of sending.
# Requests near to one another depend on one another; their groups do so much less.
GROUPS = 10
_REQUESTS_MIN = 4 * GROUPS
# A change of speed is looked for between so many stretches of a level at most; a part of it has at
# least so many of them.
_STRETCHES_MAX, _PART_MIN = 20, 4
_STRETCH_S_MIN = 0.2
_T_MAX = 1e6  # of rates without any spread
_ENDS = 2  # groups at either end whose median is told


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for."""

    osl: Lengths | None = None  # None: answers may be as long as they like
    think_s: float = 0.0  # in the mean

    @property
    def output_tokens(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the asked lengths of answers."""
        if self.osl is None:
            return None
        if self.osl.shape == "uniform":
            return (self.osl.a + self.osl.b) / 2, (self.osl.b - self.osl.a) / 12**0.5
        return self.osl.a, self.osl.b

    @property
    def output_tokens_mean(self) -> float | None:
        """The mean of the asked lengths of answers."""
        return None if self.output_tokens is None else self.output_tokens[0]


def asked_of(spec: Mapping[str, Any]) -> Asked:
    """Read what was asked from a journal's spec, an old one too."""
    osl = (spec.get("workload") or {}).get("osl")
    think_s = (spec.get("load") or {}).get("think_s", 0.0)
    return Asked(
        osl=None if osl is None else msgspec.convert(osl, Lengths),
        think_s=float(np.mean(think_s)),
    )


def delivered_part(facts: LevelFacts, window: Window, asked: Asked) -> dict[str, Any]:
    """Return a level's `delivered`; a part that does not apply to it is null."""
    columns, started = facts.columns, facts.started
    return {
        "output_tokens": _output_tokens(columns, asked.output_tokens),
        "rate": None if started.users is not None else _rate(facts),
        "in_flight": (
            None
            if started.users is None
            else _in_flight(columns, window, started.users, asked.think_s)
        ),
        "speed": _speed(facts) if window.steady and started.users is not None else None,
        "standstill": standstill(columns, window, started.start_ns),
        # While users start, TTFT grows by itself.
        "ttft_trend": (
            _ttft_trend(columns, window) if window.steady or not started.ramp_ns else None
        ),
    }


def of_rounds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `delivered` of a load point: of each part that of the round that was worst."""
    worst: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
        "output_tokens": lambda told: told.get("missed_by", 0.0),
        "rate": lambda told: -told["sent"] / (told["due"] or 1.0),
        "in_flight": lambda told: -told["peak"],
        "speed": lambda told: (
            told["t"] * abs(told["before"] - told["after"]) / max(told["before"], told["after"], 1)
        ),
        "standstill": lambda told: told["total_s"],
        "ttft_trend": lambda told: told["tau"],
    }
    return {
        name: max((one[name] for one in rounds if one[name] is not None), key=bad, default=None)
        for name, bad in worst.items()
    }


def _output_tokens(columns: Columns, asked: tuple[float, float] | None) -> dict[str, Any] | None:
    """Return how long the completed answers were, and by which share they missed what was asked.

    Each answer's own miss counts: half of them too long and half too short are not right in the
    mean. Journals from before 28 November 2026 do not say what each answer was asked for: of drawn
    lengths they know the mean alone, within `noise` (three standard errors).
    """
    completed = columns.outcome == COMPLETED
    tokens, each = columns.output_tokens[completed], columns.asked_tokens[completed]
    if not len(tokens):
        return None
    found: dict[str, Any] = {"mean": significant(float(tokens.mean())), "asked": None}
    if each.min() > 0:
        return {
            **found,
            "asked": significant(float(each.mean())),
            "missed_by": significant(float(np.abs(tokens - each).sum() / each.sum())),
            "noise": 0.0,
        }
    if asked is None:
        return found
    mean, deviation = asked
    off = np.abs(tokens - mean).mean() if not deviation else abs(tokens.mean() - mean)
    return {
        **found,
        "asked": mean,
        "missed_by": significant(float(off) / mean),
        "noise": significant(3 * deviation / mean / len(tokens) ** 0.5),
    }


def _rate(facts: LevelFacts) -> dict[str, Any] | None:
    """Return how many requests a second were due and were sent, from the ramp until the load fell.

    Requests that were due and never sent are among the due ones.
    """
    columns = facts.columns
    start_ns = facts.started.start_ns + facts.started.ramp_ns
    length_s = (facts.full_until_ns - start_ns) / 1e9
    if length_s <= 0:
        return None
    due = (columns.due_ns >= start_ns) & (columns.due_ns <= facts.full_until_ns)
    sent = int((due & (columns.sent_ns <= facts.full_until_ns)).sum())
    unsent = facts.ended.unsent if facts.ended else 0
    due_count = int(due.sum()) + unsent
    return {
        "asked": facts.started.rate,
        "due": significant(due_count / length_s),
        "sent": significant(sent / length_s),
        "not_sent": due_count - sent,
    }


def _in_flight(columns: Columns, window: Window, users: int, think_s: float) -> dict[str, Any]:
    """Return how many requests were in flight at once, and how many the users should keep there.

    A user thinks between two requests, so that of the users this share is in flight in the mean:
    the time of a request, over that and the time to think.
    """
    start_ns = np.maximum(columns.sent_ns, window.start_ns)
    end_ns = np.minimum(columns.sent_ns + columns.end_ns, window.end_ns)
    inside = end_ns > start_ns
    busy_ns = float((end_ns - start_ns)[inside].sum())
    took_s = columns.end_ns[inside & (columns.outcome != FAILED)] / 1e9
    mean_s = float(took_s.mean()) if len(took_s) else 0.0
    share = mean_s / (mean_s + think_s) if mean_s else 0.0
    return {
        "users": users,
        "expected": significant(users * share),
        "peak": _most_at_once(start_ns[inside], end_ns[inside]),
        "mean": significant(busy_ns / max(1, window.end_ns - window.start_ns)),
    }


def _most_at_once(start_ns: Any, end_ns: Any) -> int:
    """Return the most of these times that overlap at any moment."""
    moments = np.concatenate([start_ns, end_ns])
    steps = np.repeat([1, -1], len(start_ns))
    # One that ends at the moment at which another starts is gone.
    order = np.lexsort((steps, moments))
    return int(np.cumsum(steps[order]).max(initial=0))


def _speed(facts: LevelFacts) -> dict[str, Any] | None:
    """Return where the token rate changed most, from the ramp until the load fell.

    Of two parts of that time the rate before and after is told, and how many standard errors of
    their difference lie between (Student's t, of equal stretches of time): the parts for which
    these are the most. It begins before the window, once first answers have had time to end: what
    the window leaves out as a transient may be half of the level.

    The t takes stretches as independent. Those that share answers are not: a slow one makes all of
    them slow. So no stretch is shorter than the median answer (E2E p50), and a level that has too
    few of that length tells nothing.
    """
    columns = facts.columns
    answered = columns.outcome == COMPLETED
    if not answered.any():
        return None
    start_ns = facts.started.start_ns + facts.started.ramp_ns
    answer_ns = round(median(columns.end_ns[answered]))
    start_ns += answer_ns
    length_s = (facts.full_until_ns - start_ns) / 1e9
    count = min(_STRETCHES_MAX, int(length_s / max(_STRETCH_S_MIN, answer_ns / 1e9)))
    if count < 2 * _PART_MIN:
        return None
    rates = tokens_in_bins(columns, start_ns, facts.full_until_ns, count)
    rates *= count / length_s
    places = range(_PART_MIN, count - _PART_MIN + 1)
    place, t = max(((place, _t_of(rates, place)) for place in places), key=lambda one: one[1])
    return {
        "at_s": round((start_ns - facts.started.start_ns) / 1e9 + place * length_s / count, 3),
        "before": significant(float(rates[:place].mean())),
        "after": significant(float(rates[place:].mean())),
        "t": significant(t),
    }


def _t_of(rates: Floats, place: int) -> float:
    parts = rates[:place], rates[place:]
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    error = (squares / (len(rates) - 2) * sum(1 / len(part) for part in parts)) ** 0.5
    apart = abs(float(parts[0].mean() - parts[1].mean()))
    return min(apart / error, _T_MAX) if error else _T_MAX if apart else 0.0


def _ttft_trend(columns: Columns, window: Window) -> dict[str, Any] | None:
    """Return whether TTFT grows with the number of the request, of those sent in the window.

    Requests count with what they had after the window, too; a cut one with how long it had waited.
    """
    waits_ns = np.where(columns.ttft_ns >= 0, columns.ttft_ns, columns.end_ns)
    counted = (columns.ttft_ns >= 0) | (columns.outcome == CUT)
    counted &= columns.outcome != FAILED
    counted &= (columns.sent_ns >= window.start_ns) & (columns.sent_ns <= window.end_ns)
    chosen = np.flatnonzero(counted)
    if len(chosen) < _REQUESTS_MIN:
        return None
    chosen = chosen[np.argsort(columns.sent_ns[chosen], kind="stable")]
    medians = _medians(waits_ns[chosen] / 1e6)
    inputs = _medians(np.maximum(columns.input_tokens[chosen], 0).astype(np.float64))
    return {
        "first_ms": significant(median(medians[:_ENDS])),
        "last_ms": significant(median(medians[-_ENDS:])),
        "tau": round(rank_trend(medians), 3),
        # Prompts that grow, as a history does, take longer by themselves.
        "input_tau": round(rank_trend(inputs), 3),
    }


def _medians(values: Floats) -> Floats:
    return np.array([median(group) for group in np.array_split(values, GROUPS)])
