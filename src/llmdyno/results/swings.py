"""Swings of a server's speed that last for a good part of a run, and what they do to its mean.

Where a server is slow for ten seconds and fast for the next ten, a run of twenty has met one swing
or two. What happens inside it then says little of how far equal runs lie apart: a block bootstrap
takes its blocks for independent, and Sokal's rule wants a run of some fifty autocorrelation times
before it can even measure one. So the memory is not estimated here but left open. A run is cut into
batches. They are white noise; or a part of their variance is a process of first order (AR(1)) which
forgets within a tenth of a run, within a third, or within a whole one. Each of these cases has its
likelihood, with the mean of each run taken out (REML), and its variance of a run's mean. The wider
ones count as much as the batches speak for them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmdyno.results.series import period
from llmdyno.results.stats import Floats, Statistic

# By this factor the batches must speak for swings rather than against them.
SHOWN = 2.0
# Of swings that are not shown: the chance that they are there all the same.
_CHANCE = 0.03
_BATCHES = (32, 16, 8)
_PER_BATCH_MIN = 2
_PERIODIC_MAX = 20_000  # in a longer series a batch holds so many periods that a broken one is lost
_MEMORIES = (0.1, 0.3, 1.0)  # of a run: after so much of it a swing has fallen to 1/e
_SHARES = (0.25, 0.5, 0.75, 0.95)  # of the variance of the batches: what is swing
_NOISE_MIN = 1e-18  # of a series that does not vary at all


def batches(series: Floats, statistic: Statistic, value: float) -> Floats | None:
    """Return a statistic of each of some equal parts of a series, less their mean, as shares.

    A part of a periodic series, as of users in lockstep, holds whole periods: otherwise parts
    differ by where in a period they begin, and a run that repeats itself would seem to swing.

    Args:
        series: what was observed, in order of time.
        statistic: of it.
        value: of the whole.

    Returns:
        32, 16 or 8 of them; None: there are too few observations, or the whole is 0.
    """
    every = (period(series) if len(series) <= _PERIODIC_MAX else None) or 1.0
    periods = int(len(series) / every)
    most = min(periods, len(series) // _PER_BATCH_MIN)
    count = next((one for one in _BATCHES if most >= one), None)
    if count is None or not value:
        return None
    edges = [every * part[0] for part in np.array_split(np.arange(periods), count)][1:]
    whole = series[: round(every * periods)]
    cut = np.split(whole, np.round(edges).astype(int))
    parts = np.array([statistic.of(part) for part in cut]) / value
    return np.asarray(parts - parts.mean(), dtype=np.float64)


class Swings(NamedTuple):
    """What the batches of two runs say of slow swings."""

    evidence: float  # how many times as likely the batches are with swings as without
    weights: Floats  # of the cases with swings, given that there are some
    variances: Floats  # of a run's mean by its swings, in each case; as a share, squared
    freedom: float  # the degrees of freedom of each

    @property
    def is_shown(self) -> bool:
        """Whether the batches speak for them clearly."""
        return self.evidence >= SHOWN

    def spread(self, *, certain: bool) -> list[tuple[float, float]]:
        """Return the variances that swings may give a run's mean, each with its weight.

        Args:
            certain: whether there are swings, as another metric of these runs may have shown.
        """
        cases = list(zip(self.variances.tolist(), self.weights.tolist(), strict=True))
        if certain:
            return cases
        odds = _CHANCE / (1 - _CHANCE) * self.evidence
        chance = odds / (1 + odds)
        return [(0.0, 1 - chance), *((variance, chance * weight) for variance, weight in cases)]


def swings(runs: Sequence[Floats]) -> Swings:
    """Return what the batches() of runs of one length say of slow swings."""
    count = min(len(run) for run in runs)
    alike = [run.reshape(count, -1).mean(axis=1) for run in runs]
    cases = _cases(count)
    freedom = len(runs) * (count - 1)
    squares = sum(np.einsum("i,kij,j->k", run, cases.precisions, run) for run in alike)
    squares = np.maximum(squares, _NOISE_MIN)
    likelihoods = len(runs) * cases.logs - freedom / 2 * np.log(squares)
    white, slow = likelihoods[0], likelihoods[1:]
    highest = slow.max()
    weights = np.exp(slow - highest)
    # More than this is all the same, and would be too large a number.
    evidence = float(np.exp(min(50.0, highest + np.log(weights.mean()) - white)))
    return Swings(
        evidence=evidence,
        weights=weights / weights.sum(),
        variances=cases.excesses[1:] * squares[1:] / freedom,
        freedom=float(freedom),
    )


class _Cases(NamedTuple):
    """White noise, and then what may be instead; the variance of a batch is 1."""

    precisions: Floats  # [cases, batches, batches]: of the batches, their mean taken out
    logs: Floats  # of the determinants: what a likelihood has beside its squares
    excesses: Floats  # by how much the variance of the mean is more than white noise would have it


@functools.cache
def _cases(count: int) -> _Cases:
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    covariances, excesses = [np.eye(count)], [0.0]
    for memory in _MEMORIES:
        alike = np.exp(-apart / (memory * count))
        for share in _SHARES:
            covariances.append(share * alike + (1 - share) * np.eye(count))
            excesses.append(share * float(alike.mean() - 1 / count))
    precisions, logs = [], []
    for covariance in covariances:
        inverse = np.linalg.inv(covariance)
        sums = inverse.sum(axis=1)
        precisions.append(inverse - np.outer(sums, sums) / sums.sum())
        logs.append(-(np.linalg.slogdet(covariance)[1] + np.log(sums.sum())) / 2)
    return _Cases(np.array(precisions), np.array(logs), np.array(excesses))
