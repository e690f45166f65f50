"""Statistics of a run: quantiles, the steady state, intervals, and the ratio of two sets of runs.

Observations of a server under load are not independent: a slow step slows every request in it. So
an interval of one run comes from a block bootstrap, which resamples stretches of time and not
single observations. Between runs there is more: see ratio(). Seeds are fixed: the same records
always give the same summary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmdyno.results.quantiles import linear
from llmdyno.results.series import period

Array = NDArray[Any]
Floats = NDArray[np.float64]

RESAMPLES = 1000
# The resamples of a series have so many draws in all at most. With more, a summary could take
# longer than its run.
_DRAWS_MAX = 4_000_000
# So many draws are made at a time: what stays in a core's cache is drawn several times as fast.
_DRAWS_AT_ONCE = 2**17
_PERIODIC_BLOCKS = 16
_SPREAD_RESAMPLES = 200  # enough for a variance
# The degrees of freedom of two arms of two runs each that are equally noisy, as runs on one machine
# are. With more runs Welch's own number is never smaller.
_FREEDOM_MIN = 2.0


def quantile(values: Floats, q: float, weights: Floats | None = None) -> float:
    """Return the q-quantile of `values`, each counting `weights` times; see quantiles()."""
    return quantiles(values, (q,), weights)[0]


def quantiles(
    values: Floats, shares: Sequence[float], weights: Floats | None = None
) -> list[float]:
    """Return quantiles of `values`, each of which counts `weights` times, sorting once for all.

    Without weights: linear interpolation between order statistics (Hyndman & Fan type 7). With
    weights: the smallest value at which the cumulated weight reaches that share of the whole.
    """
    if weights is None:
        return [float(value) for value in linear(values, shares)]
    if weights.min() == weights.max():  # the usual case: ranks need no whole order
        ranks = np.ceil(np.asarray(shares) * len(values)).astype(np.int64) - 1
        ranks = np.clip(ranks, 0, len(values) - 1)
        return [float(value) for value in np.partition(values, np.unique(ranks))[ranks]]
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    indices = np.searchsorted(cumulated, np.asarray(shares) * cumulated[-1])
    return [float(value) for value in values[order[np.minimum(indices, len(values) - 1)]]]


def steady_start(counts: Floats, *, batch: int = 5) -> int:
    """Return how many leading bins of a series to leave out: MSER-5.

    The Marginal Standard Error Rule truncates where the standard error of what remains is smallest
    (White 1997, "An effective truncation heuristic for bias reduction in simulation output";
    batches of five: White, Cobb & Spratt 2000). As there, no more than half is ever cut.

    Args:
        counts: one number a bin, e.g. tokens per 100 ms, in order of time.
        batch: bins per batch.
    """
    n = len(counts) // batch
    if n < 4:
        return 0
    means = counts[: n * batch].reshape(n, batch).mean(axis=1)
    errors = [means[cut:].var() / (n - cut) for cut in range(n // 2 + 1)]
    return int(np.argmin(errors)) * batch


def block_length(n: int) -> int:
    """Return the block length for n observations in order of time: n^(1/3) rounded up.

    The rate at which the optimal block grows (Hall, Horowitz & Jing 1995), at least 1.
    """
    return max(1, int(np.ceil(n ** (1 / 3))))


class Blocks(NamedTuple):
    """The blocks that a bootstrap draws from a series."""

    length: int
    wraps: bool  # whether the first observation comes after the last one


def blocks_of(values: Floats) -> Blocks:
    """Return which blocks suit a series: of block_length(n), and of a periodic one whole periods.

    A block that is shorter than a period, or ends within one, has a mean that says where in the
    period it began, and nothing about how far runs differ. Blocks of whole periods keep the
    dependence (Politis 2001, "Resampling time series with seasonal components"). They do not wrap
    (Kunsch 1989): where the end meets the beginning a period is broken.
    """
    n = len(values)
    every = period(values)
    if every is None:
        return Blocks(block_length(n), wraps=True)
    # What a jitter of the period moves over the ends of a block is the less the fewer blocks.
    periods = math.ceil(max(block_length(n), n / _PERIODIC_BLOCKS) / every)
    return Blocks(round(periods * every), wraps=False)


def block_resamples(
    values: Array, resamples: int, rng: np.random.Generator, blocks: Blocks | None = None
) -> Array:
    """Return resamples [resamples, n] of a block bootstrap (circular: Politis & Romano 1992).

    Args:
        values: observations in order of time.
        resamples: how many.
        rng: the source of chance.
        blocks: what to draw; None: blocks_of(values).
    """
    n = len(values)
    length, wraps = blocks or blocks_of(values)
    starts = rng.integers(0, n if wraps else n - length + 1, size=(resamples, -(-n // length)))
    around = np.concatenate([values, values[: length - 1]])
    drawn: Array = np.lib.stride_tricks.sliding_window_view(around, length)[starts]
    return drawn.reshape(resamples, -1)[:, :n]


def bootstrap(
    values: Array,
    statistic: Callable[[Array], Floats],
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> Floats:
    """Return bootstrap replicates of a statistic of one series in order of time.

    Args:
        values: observations in order of time.
        statistic: takes [resamples, n] and returns [resamples], e.g. a mean over axis 1.
        resamples: how many replicates; None: affordable_resamples(n).
        seed: of the resampling.
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    left = resamples or affordable_resamples(n)
    blocks = blocks_of(values)
    replicates = []
    while left:
        some = min(left, max(1, _DRAWS_AT_ONCE // n))
        replicates.append(statistic(block_resamples(values, some, rng, blocks)))
        left -= some
    return np.concatenate(replicates)


def bootstrap_medians(values: Floats, *, seed: int = 0) -> Floats:
    """Return what bootstrap(values, median_over_time) does, at a third of the cost.

    Ranks are resampled instead of values: half the bytes, and quicker to partition.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(len(values), dtype=np.int32)
    ranks[order] = np.arange(len(values), dtype=np.int32)

    def median(drawn: Array) -> Floats:
        middle = drawn.shape[1] // 2
        parted = np.partition(drawn, middle, axis=1)
        upper: Floats = ordered[parted[:, middle]]
        if drawn.shape[1] % 2:
            return upper
        return np.asarray((ordered[parted[:, :middle].max(axis=1)] + upper) / 2, dtype=np.float64)

    return bootstrap(ranks, median, seed=seed)


def affordable_resamples(n: int) -> int:
    """Return how many resamples of n observations are worth their time: 100 to 1,000."""
    return max(100, min(RESAMPLES, _DRAWS_MAX // n))


def interval95(replicates: Floats) -> tuple[float, float]:
    """Return the percentile interval that holds 95 % of the replicates."""
    low, high = linear(replicates, (0.025, 0.975))
    return float(low), float(high)


def mean_over_time(values: Floats) -> Floats:
    """Return the mean of each resample [resamples, n] → [resamples]."""
    return np.asarray(values.mean(axis=1), dtype=np.float64)


def median_over_time(values: Floats) -> Floats:
    """Return the median of each resample [resamples, n] → [resamples]."""
    middle = values.shape[1] // 2
    parted = np.partition(values, middle, axis=1)  # half the cost of np.median, which looks for NaN
    if values.shape[1] % 2:
        return np.asarray(parted[:, middle], dtype=np.float64)
    return np.asarray((parted[:, :middle].max(axis=1) + parted[:, middle]) / 2, dtype=np.float64)


class Statistic(NamedTuple):
    """What makes one number of many: a mean, or the quantile at `share`."""

    name: str
    share: float | None  # of the values that are no greater: 0.99 of "p99"; None: a mean

    def of(self, values: Floats, weights: Floats | None = None) -> float:
        """Return its value of observations, each counting `weights` times."""
        if self.share is None:
            return float(np.average(values, weights=weights))
        return quantile(values, self.share, weights)

    def over_time(self, values: Floats) -> Floats:
        """Return its value of each resample [resamples, n] → [resamples], for bootstrap()."""
        if self.share is None:
            return mean_over_time(values)
        if self.share == 0.5:
            return median_over_time(values)
        return linear(values, self.share)


def _statistic(name: str) -> Statistic:
    """Read "mean", "max" or "p99"."""
    shares = {"mean": None, "max": 1.0}
    return Statistic(name, shares[name] if name in shares else float(name[1:]) / 100)


# The statistics of a latency in a summary, in the order of the summary.
STATISTICS: Mapping[str, Statistic] = {
    name: _statistic(name) for name in ("mean", "p50", "p90", "p95", "p99", "max")
}


def significant(value: float) -> float:
    """Return a value with six significant digits: more than any clock gives."""
    return float(f"{value:.6g}")


class Spread(NamedTuple):
    """How far apart equal runs lie: the variance of the logarithm of a statistic between them."""

    variance: float
    freedom: float  # degrees of freedom with which it was estimated


class Ratio(NamedTuple):
    """A ratio of two sets of runs; no interval when nothing says how far apart equal runs lie."""

    mean: float
    ci95: tuple[float, float] | None


def ratio(
    before: Sequence[Floats],
    after: Sequence[Floats],
    statistic: Callable[[Floats], Floats],
    *,
    known: Spread | None = None,
) -> Ratio:
    """Return after ÷ before over interleaved runs, and its 95 % interval by Welch's t.

    A run is one observation: the logarithm of its statistic. What sets equal runs apart (a server
    that starts otherwise, a machine that drifts) does not show inside any of them, and two or three
    runs are too few to be resampled, so Student's t has to pay for their number. Runs are not taken
    as pairs: at two pairs that would leave one degree of freedom. Their ABBA order cancels a steady
    drift in the mean, and drift counts as noise. The arms need not be equally noisy, except at two
    runs each, which cannot tell. dev/LOG.md has the rates of false alarms.

    Args:
        before: one series in order of time a run.
        after: likewise.
        statistic: as in bootstrap().
        known: how far apart equal runs lie, if other runs have told; one run an arm is then enough.
    """
    return ratio_of_arms(_logs(before, statistic), _logs(after, statistic), known=known)


class Arm(NamedTuple):
    """Equal runs: a statistic or its logarithm [runs], and its variance inside each run [runs]."""

    values: Floats
    inside: Floats

    @property
    def between(self) -> Spread | None:
        """The variance between the runs; None with one run."""
        freedom = len(self.values) - 1
        return Spread(float(self.values.var(ddof=1)), freedom) if freedom else None


def ratio_of_arms(before: Arm, after: Arm, *, known: Spread | None = None) -> Ratio:
    """Return what ratio() does, for arms whose values are logarithms already."""
    mean, half = _welch((before, after), known=known, freedom_min=_FREEDOM_MIN)
    ci95 = None if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Ratio(math.exp(mean), ci95)


class Difference(NamedTuple):
    """A difference of two sets of runs; no interval with one run each."""

    mean: float
    ci95: tuple[float, float] | None


def difference(
    before: Sequence[Floats], after: Sequence[Floats], statistic: Callable[[Floats], Floats]
) -> Difference:
    """Return after - before, and its 95 % interval by Welch's t: for what was 0 in some run.

    Of such runs there is no ratio: nothing can be divided by 0. A run is one observation, as in
    ratio(). An arm of nothing but zeros is not as noisy as the other one, so two runs an arm leave
    one degree of freedom here.
    """
    arms = (_of_runs(before, statistic), _of_runs(after, statistic))
    mean, half = _welch(arms, known=None, freedom_min=1.0)
    return Difference(mean, None if half is None else (mean - half, mean + half))


def _welch(
    arms: tuple[Arm, Arm], *, known: Spread | None, freedom_min: float
) -> tuple[float, float | None]:
    """Return after - before, and half the width of its 95 % interval if anything tells it."""
    before, after = arms
    mean = float(after.values.mean() - before.values.mean())
    spreads = [known or arm.between for arm in arms]
    if None in spreads:
        return mean, None
    # An arm's variance is at least the one inside its runs: two runs may be alike by chance.
    squares = [
        max(spread.variance, float(arm.inside.mean())) / len(arm.values)
        for arm, spread in zip(arms, spreads, strict=True)
        if spread is not None
    ]
    variance = sum(squares)
    if not variance:
        return mean, 0.0
    freedom = (
        known.freedom
        if known
        else max(freedom_min, _welch_freedom(squares, [len(arm.values) for arm in arms]))
    )
    return mean, student_quantile(freedom) * math.sqrt(variance)


def _welch_freedom(squares: Sequence[float], runs: Sequence[int]) -> float:
    """Return the degrees of freedom of a difference of two means (Welch 1947, Satterthwaite)."""
    parts = [square**2 / (count - 1) for square, count in zip(squares, runs, strict=True)]
    return float(sum(squares) ** 2 / sum(parts))


def spread(
    before: Sequence[Floats], after: Sequence[Floats], statistic: Callable[[Floats], Floats]
) -> Spread | None:
    """Return how far apart equal runs lie, pooled over two arms; None with one run each."""
    return pooled([_logs(before, statistic), _logs(after, statistic)])


def pooled(arms: Sequence[Arm]) -> Spread | None:
    """Return how far apart equal runs lie, over all arms; None with one run each."""
    known = [arm.between for arm in arms if arm.between is not None]
    freedom = sum(between.freedom for between in known)
    if not freedom:
        return None
    return Spread(sum(one.variance * one.freedom for one in known) / freedom, freedom)


def _of_runs(runs: Sequence[Floats], statistic: Callable[[Floats], Floats]) -> Arm:
    values = np.array([float(statistic(series[None, :])[0]) for series in runs])
    inside = [bootstrap(series, statistic, resamples=_SPREAD_RESAMPLES).var() for series in runs]
    return Arm(values, np.array(inside))


def _logs(runs: Sequence[Floats], statistic: Callable[[Floats], Floats]) -> Arm:
    values, inside = _of_runs(runs, statistic)
    return Arm(np.log(values), inside / values**2)


def student_interval95(values: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent observations, at least two."""
    half = student_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def student_quantile(freedom: float, share: float = 0.975) -> float:
    """Return a quantile of Student's t above its median, for any real degrees of freedom from 1 on.

    With t = sqrt(freedom) tan(angle) its density is a power of a cosine, which is integrated here
    on a grid: numpy has no quantile of t, and scipy is 100 MB.
    """
    angles = np.linspace(0.0, np.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * share - 1, mass / mass[-1], angles)))
