"""Ratios in the words of people: "63 times shorter", "a third more", "half as long".

Every sentence that tells how much larger or smaller something became comes through `worded`; tables
keep the plain figure (wording.ratio). A ratio's words say its direction by themselves, so nobody
has to know whether 0.0158x is good.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from llmdyno.results import wording
from llmdyno.results.documents import Interval
from llmdyno.results.titles import unit


class Words(NamedTuple):
    """How one kind of quantity grows and shrinks."""

    more: str  # "longer"
    less: str  # "shorter"
    same: str  # "as long", for "twice as long"


_TIMES = Words("longer", "shorter", "as long")
_AMOUNTS = Words("higher", "lower", "as high")
_WORDS_OF_UNITS: Mapping[str, Words] = {"ms": _TIMES, "s": _TIMES}

UNCHANGED = "the same"
NOTHING = "down to zero"
NOT_SHOWN = "not shown to differ:"

_SAME = 0.005  # of the whole; a smaller difference is below what three digits show
# Parts that have a name; a percentage that rounds to within one point of one is called by it.
_PARTS = ((25, "a quarter"), (33, "a third"), (67, "two thirds"))
_TWO = 1.995  # from here on, and below its inverse, a ratio is a number of times
_TWICE = 0.05  # of the factor: from 1.95 to 2.05 is twice


def worded(ratio: float | None, key: str, bounds: Interval | None = None) -> str:
    """Say a ratio of after ÷ before in words, with its 95 % interval behind it if there is one.

    Args:
        ratio: after ÷ before; None, below 0 or not finite: the text is empty.
        key: of the metric, e.g. "ttft_ms_p50": a time is longer or shorter, all else higher or
            lower.
        bounds: of the 95 % interval of the ratio.

    Returns:
        "a third higher (30 % to 37 %)", "63 times shorter", "the same".
    """
    if ratio is None or not math.isfinite(ratio) or ratio < 0:
        return ""
    words = _WORDS_OF_UNITS.get(unit(key), _AMOUNTS)
    said = _one(ratio, words)
    return f"{said} ({_between(bounds, words, said)})" if bounds else said


def up_to(bounds: Interval) -> str:
    """Return how large a difference may be whose interval holds 1: "12 %", "3.1 times"."""
    low, high = bounds
    times = max(high, 1 / low if low > 0 else math.inf)
    if not math.isfinite(times):
        return "any number of times"
    if times >= _TWO:
        return f"{_times(times)} times"
    percent = 100 * max(high - 1, 1 - low)
    return f"{percent:.1f} %" if percent < 1 else f"{percent:.0f} %"


def judged(ratio: float | None, key: str, bounds: Interval | None = None) -> str:
    """Say a ratio as worded() does, and before it that it is not shown if the interval holds 1."""
    said = worded(ratio, key, bounds)
    is_shown = not (bounds and bounds[0] <= 1 <= bounds[1])
    return said if is_shown or not said else f"{NOT_SHOWN} {said}"


def _one(ratio: float, words: Words) -> str:
    """Say one ratio, with the name of a part where it is near one."""
    if ratio == 0:
        return NOTHING
    if abs(ratio - 1) < _SAME:
        return UNCHANGED
    grows = ratio > 1
    if not grows and abs(ratio - 0.5) < _TWICE / 4:
        return f"half {words.same}"
    if grows and abs(ratio - 2) < _TWICE:
        return f"twice {words.same}"
    percent = round(100 * abs(ratio - 1))
    if _is_part(ratio):
        name = next((name for at, name in _PARTS if abs(percent - at) <= 1), None)
        if name is not None:
            return f"{name} {words.more if grows else words.less}"
    amount, tail = _figure(ratio, words)
    return f"{amount} {tail}"


def _is_part(ratio: float) -> bool:
    """Tell whether a ratio reads best as a part of one, not as a number of times."""
    return 1 / _TWO < ratio < _TWO


def _figure(ratio: float, words: Words) -> tuple[str, str]:
    """Return a ratio's figure and what it is of: ("12 %", "shorter"), ("3.1 times", "as high")."""
    if _is_part(ratio):
        return _percent(ratio), words.more if ratio > 1 else words.less
    if ratio > 1:
        return f"{_times(ratio)} times", words.same
    return f"{_times(1 / ratio)} times", words.less


def _percent(ratio: float) -> str:
    """Write how far a ratio is from one, never a change as 0 % or what is left as 100 %."""
    percent = 100 * abs(ratio - 1)
    return f"{percent:.1f} %" if percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def _times(factor: float) -> str:
    """Write a factor the way it is spoken: 3.1, 63, 1,200."""
    if factor < 9.95:
        return f"{factor:.1f}".removesuffix(".0")
    return f"{factor:,.0f}" if factor < 100 else wording.significant(factor)


def _between(bounds: Interval, words: Words, said: str) -> str:
    """Say both ends of an interval, what they share once, or not if it was just `said`."""
    low, high = bounds
    if not all(math.isfinite(end) for end in bounds):
        return "no interval"
    if low <= 0:
        return f"at most {_end(high, words)}"
    if " times " in said and (low > 1) == (high > 1):
        ends = (low, high) if low > 1 else (1 / high, 1 / low)
        return " to ".join(dict.fromkeys(_times(end) for end in ends))
    first, last = (_end(low, words), _end(high, words))
    if first == last:
        return first
    if UNCHANGED in {first, last}:
        return f"{first} to {last}"
    (one, tail), (other, other_tail) = _figure(low, words), _figure(high, words)
    if high < 1 and _is_part(low) != _is_part(high):  # "39 % to 2.3 times" is read twice
        one, other = _percent(low), _percent(high)
    if tail != other_tail:
        return f"{first} to {last}"
    if tail == words.less:  # the lower ratio is the larger change
        one, other = other, one
    if one.endswith(" times") and other.endswith(" times"):
        one = one.removesuffix(" times")
    return f"{one} to {other}" if said.endswith(f" {tail}") else f"{one} to {other} {tail}"


def _end(ratio: float, words: Words) -> str:
    """Say one end of an interval, in figures: an end has no name of a part."""
    if ratio == 0:
        return NOTHING
    if abs(ratio - 1) < _SAME:
        return UNCHANGED
    return " ".join(_figure(ratio, words))
