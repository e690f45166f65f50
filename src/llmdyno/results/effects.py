"""By how much two sides differ, and how sure that is: single runs, rounds, or pairs of runs.

Three things set two runs apart that serve the same: what happens inside a run, what a start leaves
behind for the whole of it, and how the machine drifts. Several starts a side show all three: a
start is one observation then, by Welch's t, or as pairs.compared() has it where the starts took
turns. One start a side shows the first alone, so two things are put on top of the block bootstrap:
what slow swings of a run may do to its mean (swings.py), and a spread between starts that is
assumed, ASSUMED_SPREAD. docs/compare.md says what that costs.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from llmdyno.results import pairs, stats
from llmdyno.results.stats import Floats, Statistic
from llmdyno.results.swings import Swings, batches, swings

# The standard deviation, as a share, that is assumed between two starts where there is one a side.
# Of a quantile in the tail it is larger: few requests make it.
ASSUMED_SPREAD, ASSUMED_SPREAD_FIRST, ASSUMED_SPREAD_TAIL = 0.005, 0.01, 0.02
ALPHA = 0.02  # how often equal sides may be called different in any of the numbers that decide
_RESAMPLES = 200  # enough for a variance
_BOOTSTRAP_MAX = 20_000  # of more observations the batches tell as much, and sooner
_BATCHES = 64
_OBSERVATIONS_MIN = 8  # fewer tell no variance
# The degrees of freedom of a bootstrap's variance (a rule of thumb), and of one that is assumed.
_FREEDOM_INSIDE, _FREEDOM_SURE = 30.0, 10_000.0
_FREEDOM_MIN = 2.0  # as stats.ratio() has it
_LUCKS = (0.05, 0.005)  # of the intervals by which a mixture is told as one t
_WIDER = 2.0  # times: an interval that swings make so much wider is mostly theirs
_PAIRS_RUNS_MIN = 6  # with fewer, pairs.compared() is Welch's t, too


class Observation(NamedTuple):
    """A statistic of one round of one start, and what its own variance is."""

    value: float
    inside: float | None = None  # by the block bootstrap; None: not known, as of an imported file
    batches: Floats | None = None  # as swings.batches() has them; None: not known
    freedom: float = _FREEDOM_INSIDE  # the degrees of freedom of `inside`

    def scaled(self, *, logs: bool) -> "Observation":
        """Return it as a logarithm, if that is asked."""
        if not logs:
            return self
        square = self.value**2
        return Observation(
            math.log(self.value),
            None if self.inside is None else self.inside / square,
            self.batches,
            self.freedom,
        )


Start = Sequence[Observation]  # the rounds of one start
Tail = Callable[[Floats], Floats]


class Effect(NamedTuple):
    """After against before: a logarithm of a ratio, or where some value is 0 a difference."""

    mean: float
    error: float  # its standard error
    freedom: float
    is_ratio: bool
    assumed: bool  # whether the spread between starts was assumed
    swings: bool = False  # whether slow swings of the server make most of its interval

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval, of the ratio or of the difference."""
        half = stats.student_quantile(self.freedom) * self.error
        return self._told(self.mean - half), self._told(self.mean + half)

    @property
    def value(self) -> float:
        """The ratio, or the difference."""
        return self._told(self.mean)

    @property
    def p(self) -> float:
        """How often equal sides would differ so much."""
        if not self.error:
            return 0.0 if self.mean else 1.0
        return two_sided(abs(self.mean) / self.error, self.freedom)

    def _told(self, value: float) -> float:
        return math.exp(value) if self.is_ratio else value


def observation(series: Floats, statistic: Statistic, value: float) -> Observation:
    """Return what one round tells of a statistic.

    Args:
        series: what was observed, in order of time; not empty.
        statistic: of it.
        value: the statistic's value, in which observations may have weights.
    """
    n = len(series)
    if n < _OBSERVATIONS_MIN:
        return Observation(value)
    if n <= _BOOTSTRAP_MAX:
        inside = float(stats.bootstrap(series, statistic.over_time, resamples=_RESAMPLES).var())
    else:
        parts = [statistic.of(part) for part in np.array_split(series, _BATCHES)]
        inside = float(np.var(parts, ddof=1)) / _BATCHES
    # A quantile is known as well as the observations beyond it are many.
    beyond = n if statistic.share is None else n * min(statistic.share, 1 - statistic.share)
    freedom = min(_FREEDOM_INSIDE, max(_FREEDOM_MIN, beyond))
    return Observation(value, inside, batches(series, statistic, value), freedom)


def swings_of(before: Sequence[Start], after: Sequence[Start]) -> Swings | None:
    """Return what one run each says of slow swings; None: there are several, or it says nothing."""
    known = [start[0].batches for side in (before, after) for start in side if len(start) == 1]
    seen = [one for one in known if one is not None]
    single = len(before) == len(after) == 1 and len(seen) == 2
    return swings(seen) if single else None


def effect(
    before: Sequence[Start],
    after: Sequence[Start],
    *,
    assumed: float = ASSUMED_SPREAD,
    row: Sequence[bool] = (),
    swinging: bool = False,
) -> Effect | None:
    """Return after against before; None: nothing says how far equal sides lie apart.

    Args:
        before: the starts of this side, at least one; each has at least one round.
        after: likewise.
        assumed: the spread between starts where each side has one, as a share.
        row: the starts of both sides in the order in which they were made, True for after; empty:
            they did not take turns.
        swinging: whether another metric of these runs has shown slow swings of the server.
    """
    logs = all(one.value > 0 for side in (before, after) for start in side for one in start)
    sides = [
        [[one.scaled(logs=logs) for one in start] for start in side] for side in (before, after)
    ]
    single = len(before) == len(after) == 1
    arms = [
        _Arm(side[0]) if single else _Arm([_mean_of_rounds(start) for start in side])
        for side in sides
    ]
    if logs and len(row) >= _PAIRS_RUNS_MIN:
        return _paired(arms[0], arms[1], row)
    mean = arms[1].mean - arms[0].mean
    if single:
        level = 1.0 if logs else max(abs(arm.mean) for arm in arms)
        found = _of_single_starts(arms, mean, assumed * level, is_ratio=logs)
        slow = swings_of(before, after)
        if found is None or slow is None:
            return found
        return _swinging(found, slow, level, certain=swinging)
    parts = _between(arms)
    return None if parts is None else _joined(mean, parts, is_ratio=logs, assumed=False)


class _Arm:
    """The observations of one side."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.count = len(observations)
        self.values = np.array([one.value for one in observations])
        self.mean = float(self.values.mean())
        known = [one.inside for one in observations if one.inside is not None]
        self.inside = float(np.mean(known)) if len(known) == self.count else None
        self.freedom = float(sum(one.freedom for one in observations))

    @property
    def between(self) -> float | None:
        return float(self.values.var(ddof=1)) if self.count > 1 else None


_Part = tuple[float, float]  # a variance, and its degrees of freedom


def _mean_of_rounds(start: Start) -> Observation:
    """Return a start's rounds as one observation."""
    known = [one.inside for one in start if one.inside is not None]
    inside = float(np.mean(known)) / len(start) if len(known) == len(start) else None
    return Observation(float(np.mean([one.value for one in start])), inside)


def _between(arms: Sequence[_Arm]) -> list[_Part] | None:
    """Return the variance of each side's mean, by what lies between its observations.

    A side of one observation is as noisy as the other one.
    """
    known = [(arm.between, arm.count - 1) for arm in arms if arm.between is not None]
    if not known:
        return None
    parts = []
    for arm in arms:
        variance, freedom = (arm.between, arm.count - 1) if arm.between is not None else known[0]
        # Two observations may be alike by chance: an arm varies at least as much as its runs do.
        parts.append((max(variance, arm.inside or 0.0) / arm.count, float(freedom)))
    return parts


def _of_single_starts(
    arms: Sequence[_Arm], mean: float, assumed: float, *, is_ratio: bool
) -> Effect | None:
    """Return the effect of one start a side, each with one round or several."""
    parts = _between(arms) if any(arm.count > 1 for arm in arms) else _within(arms)
    if parts is None:
        return None
    parts.append((2 * assumed**2, _FREEDOM_SURE))
    return _joined(mean, parts, is_ratio=is_ratio, assumed=True)


def _within(arms: Sequence[_Arm]) -> list[_Part] | None:
    """Return the variances inside two single rounds; None: of one it is not known."""
    parts = [(arm.inside, arm.freedom) for arm in arms if arm.inside is not None]
    return parts if len(parts) == len(arms) else None


def _swinging(found: Effect, slow: Swings, level: float, *, certain: bool) -> Effect:
    """Return an effect whose runs may swing: their variances are weighed against one another.

    What it is then distributed as is a mixture of Student's t. It is told as the t that has the
    same 95 and 99.5 % intervals.

    Args:
        found: the effect without swings.
        slow: what the runs show of them.
        level: what the swings are a share of.
        certain: whether there are swings for sure.
    """
    certain = certain or slow.is_shown
    cases = slow.spread(certain=certain)
    weights = np.array([weight for _, weight in cases])
    added = np.array([2 * level**2 * variance for variance, _ in cases])
    mean, own = float(weights @ added), found.error**2
    if not mean:
        return found
    freedom = (own + mean) ** 2 / (own**2 / found.freedom + mean**2 / slow.freedom)
    tail = _tail(round(freedom, 1))
    errors = np.sqrt(own + added)
    halves = [_half(luck, weights, errors, tail) for luck in _LUCKS]
    freedoms, wider = _freedoms()
    matched = float(np.interp(halves[1] / halves[0], wider, freedoms))
    before = stats.student_quantile(found.freedom) * found.error
    return found._replace(
        error=halves[0] / stats.student_quantile(matched),
        freedom=matched,
        swings=certain and halves[0] >= _WIDER * before,
    )


@functools.cache
def _freedoms() -> tuple[Floats, Floats]:
    """Return degrees of freedom, and by how much the 99.5 % interval is wider than the 95 % one."""
    freedoms = np.concatenate([np.geomspace(1, 100, 40), [_FREEDOM_SURE]])[::-1]
    inner, outer = (
        np.array([stats.student_quantile(float(freedom), 1 - luck / 2) for freedom in freedoms])
        for luck in _LUCKS
    )
    return freedoms, outer / inner


def _half(luck: float, weights: Floats, errors: Floats, tail: Tail) -> float:
    """Return what a mixture of t goes beyond so often, to either side."""
    low, high = 0.0, float(errors.max()) * 1e4
    for _ in range(60):
        half = (low + high) / 2
        low, high = (half, high) if weights @ tail(half / errors) > luck else (low, half)
    return high


def _joined(mean: float, parts: Sequence[_Part], *, is_ratio: bool, assumed: bool) -> Effect:
    """Join variances, each with its degrees of freedom, as Satterthwaite (1946) does."""
    whole = sum(variance for variance, _ in parts)
    divisor = sum(variance**2 / freedom for variance, freedom in parts)
    freedom = whole**2 / divisor if divisor else _FREEDOM_SURE
    freedom = min(_FREEDOM_SURE, max(_FREEDOM_MIN, freedom))
    return Effect(mean, math.sqrt(whole), freedom, is_ratio, assumed)


def _paired(before: _Arm, after: _Arm, row: Sequence[bool]) -> Effect:
    """Return the effect of starts that took turns, with the drift along their row fitted."""
    arms = (before, after)
    places = [0, 0]
    runs = []
    for position, is_after in enumerate(row):
        arm = arms[is_after]
        log = float(arm.values[places[is_after]])
        places[is_after] += 1
        runs.append(pairs.Run(position, is_after, log, arm.inside or 0.0))
    found = pairs.compared(runs)
    assert found.ci95 is not None, "there are several runs a side"
    assert found.freedom is not None, "a trend was fitted"
    half = math.log(found.ci95[1] / found.ci95[0]) / 2
    error = half / stats.student_quantile(found.freedom)
    return Effect(math.log(found.mean), error, found.freedom, is_ratio=True, assumed=False)


def two_sided(t: float, freedom: float) -> float:
    """Return how often Student's t is further from 0 than this."""
    return float(_tail(freedom)(np.array([t]))[0])


@functools.lru_cache(maxsize=64)
def _tail(freedom: float) -> Tail:
    """Return what two_sided() computes, for many t at once.

    By the substitution of stats.student_quantile(): t = sqrt(freedom) tan(angle).
    """
    angles = np.linspace(0.0, np.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    steps = density[1:] + density[:-1]
    # From the far end, so that a small tail is not the difference of two large masses.
    tail = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])

    def beyond(t: Floats) -> Floats:
        return np.asarray(np.interp(np.arctan(t / math.sqrt(freedom)), angles, tail) / tail[0])

    return beyond


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values that count how many there are (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def middle(observations: Sequence[Observation]) -> float:
    """Return what stands for several values: the geometric mean, or with a 0 the mean."""
    values = np.array([one.value for one in observations])
    return float(np.exp(np.log(values).mean()) if (values > 0).all() else values.mean())
