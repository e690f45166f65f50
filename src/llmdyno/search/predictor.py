"""What a sample of guesses says of points, and what measuring one of them would be worth."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from llmdyno.search.points import Points
from llmdyno.search.space import Floats

VARIANCE_MIN = 1e-9
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


class Moments(NamedTuple):
    """What is believed of the logarithm of the value: a row a guess."""

    mean: Floats  # of points, (guesses, points)
    variance: Floats  # of the same
    noise: Floats  # the variance between equal runs, (guesses,)
    mean_measured: Floats  # of what was measured, (guesses, measured)
    deviation_measured: Floats
    covariances: Floats  # of what was measured with points, (guesses, measured, points)


class Predictor:
    """What can be said once guesses predict; they all count alike."""

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Return means and deviations of the logarithm, a row a guess."""
        raise NotImplementedError

    def moments(self, points: Points) -> Moments:
        """Return what is believed of points, and of what was measured beside them."""
        raise NotImplementedError

    def expected(self, points: Points) -> Floats:
        """Return the expected logarithm of the value of each point."""
        found: Floats = self.predict(points)[0].mean(0)
        return found

    def gains(self, points: Points, best: float, shift: Floats, sign: float) -> Floats:
        """Return the expected gain of each point over the best.

        Args:
            points: to look at.
            best: the level to beat, with its shift.
            shift: what is added to each point.
            sign: -1.0 if smaller is better.
        """
        mean, deviation = self.predict(points)
        ahead = (sign * mean + shift - best) / deviation
        density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
        found: Floats = (deviation * np.maximum(ahead * normal(ahead) + density, 0.0)).mean(0)
        return found

    def knowledge(self, points: Points, shift: Floats, shift_measured: Floats) -> Floats:
        """Return by how much better the choice is expected to be after each point is measured.

        That is the knowledge gradient (Frazier, Powell, Dayanik 2009) of one noisy measurement. It
        tells of the point and of its neighbours, so it may also show that another is the best.

        Args:
            points: that could be measured.
            shift: what is added to each point.
            shift_measured: what is added to each that was measured, and can be chosen, too.
        """
        of = self.moments(points)
        # The choice is made by the mean of all guesses.
        level, levels = of.mean.mean(0) + shift, of.mean_measured.mean(0) + shift_measured
        # What was measured moves by no more than its own deviation: some can never be the choice.
        reach = _NODES[-1] * of.deviation_measured.max(0)
        some = levels + reach >= (levels - reach).max()
        levels = levels[some]
        deviation = np.sqrt(of.variance + of.noise[:, None])
        moves, moves_measured = (
            of.variance / deviation,
            of.covariances[:, some] / deviation[:, None],
        )
        after = np.zeros_like(moves)
        for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
            others = (levels[None, :, None] + moves_measured * node).max(1)
            after += weight * np.maximum(others, level + moves * node)
        found: Floats = np.maximum(after.mean(0) - levels.max(), 0.0)
        return found


class Fitted(Protocol):
    """A predictor that learns."""

    def fit(self, points: Points, values: Floats, errors: Floats | None = None) -> None:
        """Learn the logarithms of values, one a point."""

    def assume(self, points: Points) -> None:
        """Take points whose values are not known yet, until the next fit(), as measured."""

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Return means and deviations of the logarithm, a row a guess."""

    def moments(self, points: Points) -> Moments:
        """Return what is believed of points, and of what was measured beside them."""


class Mixture(Predictor):
    """Several models as one: each has its guesses, and all guesses count alike.

    Args:
        models: with equally many guesses each, if they are to count alike.
    """

    def __init__(self, models: Sequence[Fitted]) -> None:
        self.models = tuple(models)

    def fit(self, points: Points, values: Floats, errors: Floats | None = None) -> None:
        """Let each model learn the logarithms of values, one a point."""
        for model in self.models:
            model.fit(points, values, errors)

    def assume(self, points: Points) -> None:
        """Take points whose values are not known yet, until the next fit(), as measured."""
        for model in self.models:
            model.assume(points)

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Return means and deviations of the logarithm, a row a guess."""
        found = [model.predict(points) for model in self.models]
        return np.concatenate([mean for mean, _ in found]), np.concatenate([d for _, d in found])

    def moments(self, points: Points) -> Moments:
        """Return what is believed of points, and of what was measured beside them."""
        found = [model.moments(points) for model in self.models]
        return Moments(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def normal(x: Floats) -> Floats:
    """Return the normal distribution function, to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = series * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    found: Floats = np.where(x > 0, 1 - tail, tail)
    return found
