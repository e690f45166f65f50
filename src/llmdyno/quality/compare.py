"""How far two sets of answers to the same prompts agree, in numbers with intervals.

Greedy answers are compared up to the first token that differs: after it the two go on from
different texts, and their tokens say nothing of one another. So the unit is the position at which
both had the same text before them, and the disagreement is the share of such positions at which the
next token differs. Intervals are percentiles of a bootstrap over prompts, which are independent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno.quality.answers import Said
from llmdyno.results.stats import Array, Floats, interval95, significant

RESAMPLES = 2000
POSITIONS = (1, 2, 4, 8, 16, 32, 64, 128)
_PROBABILITY_MIN = 1e-12


class Couple(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers to one prompt, as far as they can be compared."""

    equal: int  # positions before the first difference
    differs: bool
    length: int  # of the longer answer
    logprob_differences: tuple[float, ...] = ()  # at the equal positions
    divergences: tuple[float, ...] = ()  # KL of the likeliest tokens, where both had the same text

    @property
    def positions(self) -> int:
        """At how many positions both had the same text before them."""
        return self.equal + self.differs


class Couples(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers to all prompts compare, couple by couple, and over all of them."""

    unit: str  # "tokens" or "characters"
    couples: list[Couple]

    def disagreement(self, drawn: Array | None = None) -> Floats:
        """Return the share of positions that differ, of each resample of prompts [resamples].

        Args:
            drawn: numbers of prompts [resamples, prompts]; None: each prompt once.
        """
        wrong = np.array([float(one.differs) for one in self.couples])
        seen = np.array([float(one.positions) for one in self.couples])
        rows = np.arange(len(wrong))[None, :] if drawn is None else drawn
        total = seen[rows].sum(axis=1)
        shares: Floats = wrong[rows].sum(axis=1) / np.maximum(total, 1.0)
        return shares


def couples(before: Sequence[Said], after: Sequence[Said]) -> Couples:
    """Compare answers one by one; by characters where one side tells no tokens."""
    pairs = list(zip(before, after, strict=True))
    by_tokens = all((a.tokens or not a.text) and (b.tokens or not b.text) for a, b in pairs)
    return Couples(
        unit="tokens" if by_tokens else "characters",
        couples=[_couple(a, b, by_tokens=by_tokens) for a, b in pairs],
    )


def _couple(before: Said, after: Said, *, by_tokens: bool) -> Couple:
    one, other = (before.tokens, after.tokens) if by_tokens else (before.text, after.text)
    shorter = min(len(one), len(other))
    equal = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    # One that ends where the other goes on differs there, too: it chose to end.
    differs = equal < shorter or len(one) != len(other)
    if not by_tokens:
        return Couple(equal=equal, differs=differs, length=max(len(one), len(other)))
    known = min(equal, len(before.logprobs), len(after.logprobs))
    places = min(equal + differs, len(before.top), len(after.top))
    return Couple(
        equal=equal,
        differs=differs,
        length=max(len(one), len(other)),
        logprob_differences=tuple(
            abs(a - b) for a, b in zip(before.logprobs[:known], after.logprobs[:known], strict=True)
        ),
        divergences=tuple(
            divergence(a, b) for a, b in zip(before.top[:places], after.top[:places], strict=True)
        ),
    )


def divergence(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return KL(before ‖ after) in nats, of the likeliest tokens of both.

    A token that only `before` names gets the most that `after` can give it: no more than the least
    that it names, and a share of what it leaves. All that neither names counts as one token.
    """
    left = max(0.0, 1 - sum(map(math.exp, after.values())))
    missing = [token for token in before if token not in after]
    least = min(map(math.exp, after.values()), default=1.0)
    given = min(least, left / len(missing)) if missing else 0.0
    p = np.exp(list(before.values()))
    q = np.array([math.exp(after[token]) if token in after else given for token in before])
    p = np.append(p, max(0.0, 1 - p.sum()))
    q = np.append(q, max(0.0, 1 - q.sum()))
    counted = p > _PROBABILITY_MIN
    ratios = np.log(p[counted] / np.maximum(q[counted], _PROBABILITY_MIN))
    return max(0.0, float((p[counted] * ratios).sum()))


def draw(count: int, *, seed: int = 0) -> Array:
    """Return numbers of prompts, drawn with replacement [RESAMPLES, count]."""
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def compared(found: Couples) -> dict[str, Any]:
    """Return the numbers of a comparison, ready for JSON."""
    pairs = found.couples
    drawn = draw(len(pairs))
    firsts = sorted(one.equal + 1 for one in pairs if one.differs)
    longest = max((one.length for one in pairs), default=0)
    shares = [one.equal / one.length if one.length else 1.0 for one in pairs]
    low, high = interval95(found.disagreement(drawn))
    positions = sum(one.positions for one in pairs)
    if not firsts and positions:  # a bootstrap of nothing but zeros has no width
        high = 1 - 0.025 ** (1 / positions)
    return {
        "unit": found.unit,
        "prompts": len(pairs),
        "positions": positions,
        "disagreement": {
            "mean": significant(float(found.disagreement()[0])),
            "ci95": [significant(low), significant(high)],
        },
        "same_answers": _mean(pairs, lambda one: [float(not one.differs)], drawn),
        "equal_prefix": _told(np.array(shares), drawn),
        "first_difference": {
            "count": len(firsts),
            "p50": firsts[len(firsts) // 2] if firsts else None,
            "positions": firsts,
        },
        "still_equal": [
            {
                "position": at,
                "share": significant(sum(one > at for one in _ends(pairs)) / len(pairs)),
            }
            for at in POSITIONS
            if at <= longest
        ],
        "logprob_difference": _mean(pairs, lambda one: one.logprob_differences, drawn),
        "kl": _mean(pairs, lambda one: one.divergences, drawn),
    }


def _ends(pairs: Sequence[Couple]) -> list[float]:
    """Return the position of each first difference; none is at infinity."""
    return [one.equal + 1 if one.differs else math.inf for one in pairs]


def _mean(
    pairs: Sequence[Couple], values: Callable[[Couple], Sequence[float]], drawn: Array
) -> dict[str, Any] | None:
    """Return the mean over all positions, resampled by prompts; None: there are no values."""
    sums = np.array([float(sum(values(one))) for one in pairs])
    counts = np.array([float(len(values(one))) for one in pairs])
    if not counts.sum():
        return None
    total = counts[drawn].sum(axis=1)
    means = sums[drawn].sum(axis=1)[total > 0] / total[total > 0]
    low, high = interval95(means)
    return {
        "mean": significant(float(sums.sum() / counts.sum())),
        "ci95": [significant(low), significant(high)],
        "n": int(counts.sum()),
    }


def _told(values: Floats, drawn: Array) -> dict[str, Any]:
    low, high = interval95(values[drawn].mean(axis=1))
    return {
        "mean": significant(float(values.mean())),
        "ci95": [significant(low), significant(high)],
    }
