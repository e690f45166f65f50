"""What a run that is still going on says of its end: a bound, and whether it can still win.

A run is looked at a few times that are fixed before it begins. At each look there is a bound of
what comes a second, or of what a request takes:

- The risk is spent over the looks: each has its equal part of it (Bonferroni), which holds however
  the looks depend on one another.
- Samples depend on one another. The error of their mean is the larger of two: that of batches,
  each at least as long as a request takes (by Little's law: users in lockstep are alike again only
  after that), and that of the samples with their memory as of a process of first order. With fewer
  than four batches, or a memory that is nearly as long as the run, nothing is said.
- A trend goes on to the run's end: a rate that still rises is bounded by where its line would end.

Equal runs differ by more than what happens inside them. So a run is lost only if its bound lies
beyond the best run before it by more than what may lie between equal runs.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmdyno.results.stats import Floats, Spread, student_quantile

LOOKS = 8
FIRST_LOOK, LAST_LOOK = 0.2, 0.9  # of the run after its ramp; after the last nothing is saved
RISK = 0.01  # that a bound is wrong at any look of a run; and that equal runs lie so far apart
_LEFT_OUT = 0.25  # of the time since the ramp: what a transient may take
_BATCHES_MIN, _BATCHES_MAX = 4, 12
_INDEPENDENT_MIN = 3.0  # as many samples without memory say as much: less says nothing
_MEMORY_MAX = 0.97  # a longer one cannot be told from a trend
_CAUTION = 0.5  # of its own standard error, by which a memory is taken to be longer
_ERROR_MIN = 0.01  # of the mean: a steady flow has no smaller error
_FREEDOM_MIN = 2.0
# How far equal runs lie apart is known from the study itself and from other machines; the latter
# counts as so many degrees of freedom here, as it holds for nearly all of them.
_FREEDOM_OF_OTHERS = 8.0
_LUCK = 4.0  # deviations below the best: what is worse has not been the best by luck
_quantile = functools.cache(student_quantile)


class Bound(NamedTuple):
    """What a run has shown so far, and where it may be at its end."""

    mean: float
    low: float
    high: float


class Sample(NamedTuple):
    """What a run has had since it began, at a moment of it."""

    at_s: float
    total: float  # of what is bounded: tokens; or what the ended requests took
    divisor: float  # seconds; or ended requests
    ended: float  # requests
    in_flight: float  # at this moment


class Flow:
    """The samples of a run, and the bound that they give.

    Args:
        ramp_s: how long its load grows.
        end_s: when it will end.
    """

    def __init__(self, ramp_s: float, end_s: float) -> None:
        self._ramp_s, self._end_s = ramp_s, end_s
        self._samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Take a sample; one that is not later than the last is passed over."""
        if not self._samples or sample.at_s > self._samples[-1].at_s:
            self._samples.append(sample)

    def bound(self, *, is_share: bool = False) -> Bound | None:
        """Return the bound of total ÷ divisor; None: too little has come to say it.

        Args:
            is_share: the sum counts some of the requests, so its error is never less than that of
                independent ones.
        """
        if len(self._samples) < 2 * _BATCHES_MIN:
            return None
        at_s, sums, counts, ended, in_flight = np.array(self._samples).T
        now_s = float(at_s[-1])
        from_s = max(float(at_s[0]), self._ramp_s + _LEFT_OUT * (now_s - self._ramp_s))
        kept = at_s >= from_s
        edges = _edges(at_s, ended, in_flight, kept)
        if edges is None:
            return None
        steps = _Parts(at_s[kept], sums[kept], counts[kept])
        batches = _Parts(edges, np.interp(edges, at_s, sums), np.interp(edges, at_s, counts))
        whole = float(batches.counts.sum())
        if whole <= 0:
            return None
        mean = float(batches.sums.sum()) / whole
        memory = steps.memory(mean)
        independent = len(steps.sums) * (1 - memory) / (1 + memory)
        if independent < _INDEPENDENT_MIN:
            return None
        error = max(steps.error(mean, memory), batches.error(mean, batches.memory(mean)))
        error = max(error, _ERROR_MIN * abs(mean))
        if is_share:  # Laplace's share: none of a few is not none
            share = (mean * whole + 1) / (whole + 2)
            error = max(error, math.sqrt(share * (1 - share) / whole))
        freedom = max(_FREEDOM_MIN, min(len(batches.sums), independent) - 1)
        half = _quantile(math.floor(freedom), 1 - RISK / LOOKS) * error
        onwards = batches.slope(mean) * (self._end_s - (from_s + now_s) / 2)
        return Bound(mean, mean - half + min(0.0, onwards), mean + half + max(0.0, onwards))


def _edges(at_s: Floats, ended: Floats, in_flight: Floats, kept: Floats) -> Floats | None:
    """Return where the batches begin and end, in s; None: there are too few."""
    if kept.sum() < 2 * _BATCHES_MIN:
        return None
    from_s, now_s = float(at_s[kept][0]), float(at_s[-1])
    done = float(ended[-1] - ended[kept][0])
    if done <= 0:
        return None
    takes_s = float(in_flight[kept].mean()) * (now_s - from_s) / done
    count = int((now_s - from_s) / max(takes_s, float(np.diff(at_s[kept]).max())))
    if count < _BATCHES_MIN:
        return None
    return np.linspace(from_s, now_s, min(count, _BATCHES_MAX) + 1)


class _Parts:
    """A run cut into parts: the sum and the count of each."""

    def __init__(self, edges_s: Floats, sums: Floats, counts: Floats) -> None:
        self.sums, self.counts = np.diff(sums), np.diff(counts)
        self._middle_s = (edges_s[1:] + edges_s[:-1]) / 2

    def _apart(self, mean: float) -> Floats:
        """Return by how much the sum of each part is more than its count would give."""
        apart: Floats = self.sums - mean * self.counts
        return apart

    def memory(self, mean: float) -> float:
        """Return how alike neighbours are: the first autocorrelation, less its bias, and some more.

        Of few parts it is known badly, and one that is taken for too small is the worse mistake.
        """
        apart = self._apart(mean)
        whole = float((apart**2).sum())
        if not whole:
            return 0.0
        found = float((apart[1:] * apart[:-1]).sum()) / whole
        found += (1 + 3 * found) / len(apart)  # Marriott & Pope 1954
        found += _CAUTION / math.sqrt(len(apart))
        return min(_MEMORY_MAX, max(0.0, found))

    def error(self, mean: float, memory: float) -> float:
        """Return the standard error of the mean, if parts remember so much of the one before."""
        count, whole = len(self.sums), float(self.counts.sum())
        squares = float((self._apart(mean) ** 2).sum()) * count / (count - 1)
        return math.sqrt(squares * (1 + memory) / (1 - memory)) / whole

    def slope(self, mean: float) -> float:
        """Return by how much total ÷ divisor rises a second."""
        since_s = self._middle_s - float(self._middle_s.mean())
        rises = float((self._apart(mean) * since_s).sum()) / float((since_s**2).sum())
        return rises / float(self.counts.mean())


def luck(equals: int, noise: Spread, *, error: float = 0.0) -> float:
    """Return by how much a run may be worse than the best of its equals by chance alone.

    Args:
        equals: runs that may be equally good; the best of many is best by luck, too.
        noise: how far equal runs lie apart.
        error: of the logarithm of the best one's value, by what happened inside that run.

    Returns:
        It as a factor above 1, which is exceeded in one case of 100.
    """
    quantile = _quantile(noise.freedom + _FREEDOM_OF_OTHERS, 1 - RISK / equals)
    return math.exp(quantile * math.hypot(math.sqrt(2 * noise.variance), error))


def value_to_reach(
    values: Sequence[float], noise: Spread, *, maximise: bool, error: float = 0.0
) -> float:
    """Return what a run must be able to reach to be as good as the best of those before it.

    Args:
        values: of the runs before it, at least one; they are above 0.
        noise: how far equal runs lie apart.
        maximise: whether larger values are better.
        error: of the logarithm of the best value, by what happened inside its run.
    """
    sign = 1.0 if maximise else -1.0
    best = max(values, key=lambda value: sign * value)
    apart = math.hypot(math.sqrt(2 * noise.variance), error)
    near = sum(sign * math.log(best / value) < _LUCK * apart for value in values)
    factor: float = luck(near, noise, error=error) ** -sign
    return best * factor


def looks_s(ramp_s: float, end_s: float) -> list[float]:
    """Return when a run is looked at, in s since it began.

    Args:
        ramp_s: how long its load grows.
        end_s: when it will end.
    """
    span_s = end_s - ramp_s
    return [ramp_s + span_s * float(at) for at in np.linspace(FIRST_LOOK, LAST_LOOK, LOOKS)]
