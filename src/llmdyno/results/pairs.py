"""A confirmation's pairs: their ratio with drift fitted, and how many pairs an effect needs.

Runs are in a row, and the machine drifts along it. Fitted jointly with the effect of the arm, a
slow trend is no noise: the logarithm of a run's value is a level, plus the arm's effect, plus a
polynomial of the run's position in the row. The degree rests on the number of runs alone, because a
choice by the data would make intervals too narrow. The order of the arms (see order()) keeps the
trend and the effect apart.

Where the noise decides how many pairs there are, runs that were alike by luck would end them early,
with an interval that is too narrow. So the first pairs alone decide (deciding_spread()), once, and
what they showed of the noise is left out of the interval's width (compared()). The rest is
independent of it where both arms are equally noisy: the interval holds the truth in 95 % of the
studies of each number of pairs then. Where the winner is three times as noisy, five or six pairs
hold it in 86 to 94 %, all in 94 to 95 % (benchmarks/tuner/README.md).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmdyno.results.stats import Arm, Floats, Spread, ratio_of_arms, student_quantile

POWER = 0.8
# Two pairs are the least that tell runs apart, see stats.ratio(). With more than twelve a study
# would measure pairs for longer than configs.
PAIRS_MIN, PAIRS_MAX = 2, 12
# The noise in so many pairs decides how many there will be: so many at least, for what the deciding
# ones have shown is left out of the interval's width.
DECIDING_PAIRS, DECIDED_MIN = 3, 5
# A trend costs a degree of freedom for each of its terms. With fewer runs than six a line costs
# more than it saves; with twelve there are enough for a curve.
_RUNS_FOR_LINE, _RUNS_FOR_CURVE = 6, 12
_FREEDOM_MIN = 2.0  # as stats.ratio() has it
_CURVE = 2  # the degree of a trend that is taken out of the deciding runs, whatever comes after
# How far equal runs lie apart where nothing was measured, and how many degrees of freedom that
# guess is worth beside what was: a spread of two runs alone may be nearly 0 by chance.
PRIOR = Spread(0.05**2, 3.0)


class Run(NamedTuple):
    """One run of a pair."""

    position: int  # in the row of all runs
    after: bool  # whether it is the winner's
    log: float  # of its value
    inside: float  # the variance of that logarithm by what happened inside the run; 0: unknown


class Paired(NamedTuple):
    """What the pairs say of after ÷ before."""

    mean: float
    ci95: tuple[float, float] | None  # None: one run an arm
    drift: float | None  # from the first run to the last, as a factor; None: no trend was fitted
    freedom: float | None  # degrees of freedom; None where Welch's own number counts

    @property
    def half_width(self) -> float:
        """Half the interval as a share of the ratio; infinite without an interval."""
        if self.ci95 is None:
            return math.inf
        return (self.ci95[1] - self.ci95[0]) / 2 / self.mean


def order(pair: int) -> tuple[bool, bool]:
    """Return the arms of a pair in order, False for before: ABBA BAAB BAAB ABBA.

    And so on: the sequence of Thue and Morse. In it two pairs balance a steady drift, four a curved
    one as well, which ABBA ABBA does not.
    """
    turned = pair.bit_count() % 2 == 1
    return turned, not turned


def compared(runs: Sequence[Run], *, decided: bool = False) -> Paired:
    """Return after ÷ before of at least one run an arm, and its 95 % interval.

    Least squares with a trend; variances are estimated for each arm by itself, as one config may
    be noisier than the other, and joined as Welch (1947) and Satterthwaite (1946) do. With fewer
    than six runs it is stats.ratio().

    Args:
        runs: in a row, each pair's.
        decided: whether the noise of the first pairs has decided how many there are. From
            DECIDED_MIN pairs on it does not count for the interval then.
    """
    before, after = _arm(runs, after=False), _arm(runs, after=True)
    degree = _degree(len(runs))
    if not degree:
        mean, ci95 = ratio_of_arms(before, after)
        return Paired(mean, ci95, None, None)
    arms = np.array([run.after for run in runs])
    logs = np.array([run.log for run in runs])
    design = _design([run.position for run in runs], arms, degree)
    solve = np.linalg.pinv(design)
    fit = solve @ logs
    known = design
    if decided and len(runs) >= 2 * DECIDED_MIN:
        known = np.column_stack([design, _deciding(runs)])
    taken = known @ np.linalg.pinv(known)
    residuals = logs - taken @ logs
    left = 1.0 - np.diag(taken)  # of each run's variance, after the fit
    parts, freedoms = [], []
    for arm, side in ((before, ~arms), (after, arms)):
        freedom = float(left[side].sum())
        # An arm's variance is at least the one inside its runs, as in stats.ratio().
        variance = max(float((residuals[side] ** 2).sum()) / freedom, float(np.mean(arm.inside)))
        parts.append(variance * float((solve[1][side] ** 2).sum()))
        freedoms.append(freedom)
    whole = sum(parts)
    divisor = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = max(_FREEDOM_MIN, whole**2 / divisor) if divisor else float(len(runs))
    half = student_quantile(freedom) * math.sqrt(whole)
    mean = float(fit[1])
    trend = design[:, 2:] @ fit[2:]
    return Paired(
        math.exp(mean),
        (math.exp(mean - half), math.exp(mean + half)),
        math.exp(float(trend[-1] - trend[0])),
        freedom,
    )


def deciding_spread(runs: Sequence[Run]) -> Spread | None:
    """Return how far equal runs lie apart in the pairs that decide; None: there are too few."""
    basis = _deciding(runs)
    if not basis.shape[1]:
        return None
    shown = basis.T @ np.array([run.log for run in runs])
    return Spread(float((shown**2).mean()), float(basis.shape[1]))


def _deciding(runs: Sequence[Run]) -> Floats:
    """Return what the deciding pairs show of noise: an orthonormal basis [runs, freedom].

    It is what arm and trend leave of their runs. The trend is a curve whatever the number of pairs
    will be: so the basis is orthogonal to every later fit.
    """
    rows = [row for row, run in enumerate(runs) if run.position < 2 * DECIDING_PAIRS]
    if not rows:
        return np.zeros((len(runs), 0))
    chosen = [runs[row] for row in rows]
    arms = np.array([run.after for run in chosen])
    vectors, sizes, _ = np.linalg.svd(_design([run.position for run in chosen], arms, _CURVE))
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    basis = np.zeros((len(runs), len(rows) - rank))
    basis[rows] = vectors[:, rank:]
    return basis


def residual_spread(runs: Sequence[Run]) -> Spread | None:
    """Return how far equal runs lie apart once arm and trend are taken out; None: too few runs."""
    if len(runs) < 3:
        return None
    arms = np.array([run.after for run in runs])
    design = _design([run.position for run in runs], arms, _degree(len(runs)))
    logs = np.array([run.log for run in runs])
    freedom = len(runs) - int(np.linalg.matrix_rank(design))
    if freedom < 1:
        return None
    residuals = logs - design @ (np.linalg.pinv(design) @ logs)
    return Spread(float((residuals**2).sum()) / freedom, freedom)


def pooled_noise(spreads: Sequence[Spread | None], prior: Spread = PRIOR) -> float:
    """Return the standard deviation of the logarithm between equal runs, by all that was seen.

    Args:
        spreads: from groups of equal runs; None: such a group told nothing.
        prior: what is believed before; its degrees of freedom say how firmly.
    """
    known = [prior, *(spread for spread in spreads if spread is not None)]
    freedom = sum(spread.freedom for spread in known)
    return math.sqrt(sum(spread.variance * spread.freedom for spread in known) / freedom)


def power(effect: float, noise: float, pairs: int, *, decided: bool = False) -> float:
    """Return how often so many pairs show an effect.

    The power of Student's test, with the normal approximation to the non-central t of Johnson &
    Welch 1940.

    Args:
        effect: as a share, 0.1 for 10 % more.
        noise: see pooled_noise().
        pairs: at least two.
        decided: as compared() takes it.
    """
    runs = [
        Run(number, arm, 0.0, 0.0)
        for number, arm in enumerate(arm for pair in range(pairs) for arm in order(pair))
    ]
    arms = np.array([run.after for run in runs])
    design = _design([run.position for run in runs], arms, _degree(2 * pairs))
    error = max(noise, 1e-9) * math.sqrt(float(np.linalg.inv(design.T @ design)[1, 1]))
    freedom = float(2 * pairs - design.shape[1])
    if decided and pairs >= DECIDED_MIN:
        freedom -= _deciding(runs).shape[1]
    t = student_quantile(freedom)
    shift = (abs(math.log1p(effect)) / error - t) / math.sqrt(1.0 + t * t / (2.0 * freedom))
    return 0.5 * (1.0 + math.erf(shift / math.sqrt(2.0)))


def pairs_for(effect: float, noise: float, *, decided: bool = False, most: int = PAIRS_MAX) -> int:
    """Return how many pairs find an effect in 80 % of cases; `most` if even more would do.

    Args:
        effect: as a share.
        noise: see pooled_noise().
        decided: as compared() takes it; then there are at least DECIDED_MIN.
        most: pairs that there may be.
    """
    counts = range(DECIDED_MIN if decided else PAIRS_MIN, most + 1)
    enough = (pairs for pairs in counts if power(effect, noise, pairs, decided=decided) >= POWER)
    return next(enough, most)


def detectable(noise: float, pairs: int, *, decided: bool = False) -> float:
    """Return the smallest effect, as a share, that so many pairs find in 80 % of cases."""

    def finds(effect: float) -> bool:
        return power(effect, noise, pairs, decided=decided) >= POWER

    low, high = 0.0, 1.0
    while not finds(high):
        high *= 2.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


def _degree(runs: int) -> int:
    return (runs >= _RUNS_FOR_LINE) + (runs >= _RUNS_FOR_CURVE)


def _design(positions: Sequence[int], arms: Floats, degree: int) -> Floats:
    """Return the matrix of the fit [runs, 2 + degree]: level, arm, powers of the position."""
    row = np.asarray(positions, dtype=np.float64)
    middle, half = (row[0] + row[-1]) / 2, max(1.0, (row[-1] - row[0]) / 2)
    scaled = (row - middle) / half
    columns = [np.ones(len(row)), np.asarray(arms, dtype=np.float64)]
    return np.column_stack([*columns, *(scaled**power for power in range(1, degree + 1))])


def _arm(runs: Sequence[Run], *, after: bool) -> Arm:
    chosen = [run for run in runs if run.after == after]
    return Arm(np.array([run.log for run in chosen]), np.array([run.inside for run in chosen]))
