"""Statistics of a run: quantiles, the steady state, intervals, and the ratio of two sets of runs.

Observations of a server under load are not independent: a slow step slows every request in it. So
every interval here comes from a block bootstrap, which resamples stretches of time and not single
observations. Seeds are fixed: the same records always give the same summary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

RESAMPLES = 1000
# A resample may cost at most so many draws in all, so that a long run does not take minutes.
_DRAWS_MAX = 20_000_000


def quantile(values: Floats, q: float, weights: Floats | None = None) -> float:
    """Return the q-quantile of `values`, each counting `weights` times.

    Without weights: linear interpolation between order statistics (Hyndman & Fan type 7). With
    weights: the smallest value at which the cumulated weight reaches q of the whole.
    """
    if weights is None:
        return float(np.quantile(values, q))
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    index = int(np.searchsorted(cumulated, q * cumulated[-1]))
    return float(values[order][min(index, len(values) - 1)])


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


def block_resamples(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return indices [resamples, n] of a circular block bootstrap (Politis & Romano 1992)."""
    length = block_length(n)
    blocks = -(-n // length)
    starts = rng.integers(0, n, size=(resamples, blocks, 1))
    return ((starts + np.arange(length)) % n).reshape(resamples, -1)[:, :n]


def bootstrap(
    values: Floats,
    statistic: Callable[[Floats], Floats],
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
    return statistic(values[block_resamples(n, resamples or affordable_resamples(n), rng)])


def affordable_resamples(n: int) -> int:
    """Return how many resamples of n observations are worth their time: 100 to 1,000."""
    return max(100, min(RESAMPLES, _DRAWS_MAX // n))


def interval95(replicates: Floats) -> tuple[float, float]:
    """Return the percentile interval that holds 95 % of the replicates."""
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)


def mean_over_time(values: Floats) -> Floats:
    """Return the mean of each resample [resamples, n] → [resamples]."""
    return np.asarray(values.mean(axis=1), dtype=np.float64)


def median_over_time(values: Floats) -> Floats:
    """Return the median of each resample [resamples, n] → [resamples]."""
    return np.asarray(np.median(values, axis=1), dtype=np.float64)


def quantile_over_time(q: float) -> Callable[[Floats], Floats]:
    """Return a statistic: the q-quantile of each resample [resamples, n] → [resamples]."""
    return lambda values: np.asarray(np.quantile(values, q, axis=1), dtype=np.float64)


def ratio_replicates(
    pairs: Sequence[tuple[Floats, Floats]],
    statistic: Callable[[Floats], Floats],
    *,
    seed: int = 0,
) -> Floats:
    """Return replicates of the ratio after ÷ before over interleaved pairs of runs.

    Two levels are resampled: the pairs themselves (drift of the machine between them), and blocks
    of time within each run (noise inside it). The ratio of a replicate is the geometric mean of the
    ratios of its pairs.

    Args:
        pairs: (before, after), each a series in order of time.
        statistic: as in bootstrap().
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    resamples = min(affordable_resamples(len(series)) for pair in pairs for series in pair)
    logs = np.stack(
        [
            np.log(bootstrap(after, statistic, resamples=resamples, seed=seed + 2 * i + 1))
            - np.log(bootstrap(before, statistic, resamples=resamples, seed=seed + 2 * i))
            for i, (before, after) in enumerate(pairs)
        ]
    )
    chosen = rng.integers(0, len(pairs), size=(resamples, len(pairs)))
    return np.asarray(np.exp(logs[chosen, np.arange(resamples)[:, None]].mean(axis=1)))
