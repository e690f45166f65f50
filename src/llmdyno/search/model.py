"""What the results so far say of a point: a Gaussian process over the logarithm of the value.

The speed of a server is nearly a product of effects, one a knob, and of some pairs of knobs. So the
logarithm is a sum: the kernel has a term a knob and a term a pair of knobs. How much each knob
matters, and over what distance, is not fitted but averaged over: many guesses are kept, each
weighed by how well it explains the results. Few results cannot tell one guess from another.
"""

import math
from collections.abc import Sequence

import numpy as np

from llmdyno.search.space import Axis, Floats, Key, Space

GUESSES = 60  # weighed at each question
SATURATION = 3.0
# The deviation of a knob's effect, in the logarithm of the value: of a number on a log scale (the
# size of a batch), another number, a choice, a flag.
WEIGHT_BATCH, WEIGHT_NUMBER, WEIGHT_CHOICE, WEIGHT_FLAG = 0.5, 0.25, 0.3, 0.2
_WEIGHT_WIDE = 0.7  # the deviation of its logarithm
LENGTH = 0.5  # the distance over which a knob's effect changes, as a share of its range
KEPT = 6  # that predict
_JITTER = 1e-8
_NUMBER_WITHOUT_PLACE = 0.4  # the likeness of a number and the engine's own choice
_OTHER_CHOICE = 0.1  # the likeness of two different choices
INACTIVE = -1
UNSET = -2


class Points:
    """Points as arrays: a position for numbers, a class for what is no number."""

    def __init__(self, space: Space, keys: Sequence[Key]) -> None:
        self.keys = list(keys)
        rows, classes = [], []
        for key in keys:
            row, kinds = [], []
            for number, (axis, value) in enumerate(zip(space.axes, key, strict=True)):
                inactive = not space.bites(number, key)
                row.append(axis.position(value) if axis.is_number else 0.0)
                if inactive:
                    kinds.append(INACTIVE)
                elif axis.is_number:
                    kinds.append(UNSET if value is None else 0)
                else:
                    kinds.append(axis.levels.index(value) if value in axis.levels else 99)
            rows.append(row)
            classes.append(kinds)
        shape = (len(keys), len(space.axes))
        self.at = np.array(rows, dtype=np.float64).reshape(shape)
        self.kinds = np.array(classes, dtype=np.int64).reshape(shape)
        # How much of its gain a batch knob has there: it saturates.
        self.rise = 1 - np.exp(-SATURATION * np.clip(self.at, 0.0, 1.0))


class Model:
    """Predicts the logarithm of the value; learns nothing until fit() is called.

    Args:
        space: of the points.
        draw: the search's random numbers.
    """

    def __init__(self, space: Space, draw: np.random.Generator) -> None:
        self._draw = draw
        self._numbers = np.array([axis.is_number for axis in space.axes])
        self._weights_before = np.log([_weight(axis) for axis in space.axes])
        self._guesses = self._drawn(GUESSES)

    def _drawn(self, count: int) -> Floats:
        """Return guesses, a row each: logs of weights, of lengths, of pairs' weight, of noise."""
        axes = len(self._numbers)
        weights = self._draw.normal(self._weights_before, _WEIGHT_WIDE, (count, axes))
        lengths = self._draw.normal(np.log(LENGTH), 0.4, (count, axes))
        pairs = self._draw.normal(np.log(0.3), 0.7, (count, 1))
        noise = self._draw.normal(np.log(0.04), 0.3, (count, 1))
        return np.concatenate([weights, lengths, pairs, noise], axis=1)

    def fit(self, points: Points, values: Floats, errors: Floats | None = None) -> None:
        """Weigh the guesses by these results: logarithms of values, one a point.

        Args:
            points: where.
            values: the logarithms.
            errors: of each, beside the noise that all have; None: there are none.
        """
        self._points = points
        self._mean = float(values.mean())
        rest = values - self._mean
        nudged = self._guesses[: GUESSES // 3] + self._draw.normal(
            0.0, 0.25, self._guesses[: GUESSES // 3].shape
        )
        guesses = np.concatenate(
            [self._guesses[: GUESSES // 3], nudged, self._drawn(GUESSES - 2 * (GUESSES // 3))]
        )
        kernel = self._kernel(guesses, points, points)
        noise = np.exp(2 * guesses[:, -1]) + _JITTER
        kernel += noise[:, None, None] * np.eye(len(values))
        if errors is not None:
            kernel += np.diag(errors**2)
        lower = np.linalg.cholesky(kernel)
        inverse = np.linalg.inv(lower)
        inner = inverse @ rest[:, None]
        fits = -0.5 * (inner[..., 0] ** 2).sum(1) - np.log(
            np.diagonal(lower, axis1=1, axis2=2)
        ).sum(1)
        fits += self._prior(guesses)
        order = np.argsort(-fits)
        self._guesses = guesses[order]
        best = order[:KEPT]
        weights = np.exp(fits[best] - fits[best].max())
        self._weights = weights / weights.sum()
        self._best = guesses[best]
        self._inverse = inverse[best]
        self._inner = inner[best]

    def _prior(self, guesses: Floats) -> Floats:
        axes = len(self._numbers)
        centre = np.array(
            [*self._weights_before, *[np.log(LENGTH)] * axes, np.log(0.3), np.log(0.04)]
        )
        wide = np.array([*[_WEIGHT_WIDE] * axes, *[0.4] * axes, 0.7, 0.3])
        total: Floats = -0.5 * (((guesses - centre) / wide) ** 2).sum(1)
        return total

    def _kernel(self, guesses: Floats, one: Points, other: Points) -> Floats:
        """Return the covariances: a matrix a guess."""
        axes = len(self._numbers)
        weights = np.exp(2 * guesses[:, :axes])
        lengths = np.exp(guesses[:, axes : 2 * axes])
        pairs = np.exp(2 * guesses[:, -2])
        total = np.zeros((len(guesses), len(one.at), len(other.at)))
        squares = np.zeros_like(total)
        for axis in range(axes):
            same = one.kinds[:, None, axis] == other.kinds[None, :, axis]
            if self._numbers[axis]:
                apart = one.at[:, None, axis] - other.at[None, :, axis]
                scaled = -0.5 * apart[None] ** 2 / lengths[:, axis, None, None] ** 2
                like = np.exp(scaled) * np.where(same, 1.0, _NUMBER_WITHOUT_PLACE)
            else:
                like = np.where(same, 1.0, _OTHER_CHOICE)[None]
            term = weights[:, axis, None, None] * like
            total += term
            squares += term**2
        crossed = 0.5 * (total**2 - squares)
        # A constant of its own for the level of all values.
        found: Floats = total + pairs[:, None, None] * crossed / 0.12 + 0.25
        return found

    def predict(self, points: Points) -> tuple[Floats, Floats, Floats]:
        """Return means and deviations of the logarithm, a row a guess, and the guesses' weights."""
        cross = self._kernel(self._best, self._points, points)
        solved = self._inverse @ cross
        mean = (solved * self._inner).sum(1) + self._mean
        whole = self._diagonal(points)
        variance = np.maximum(whole - (solved**2).sum(1), 1e-9)
        return mean, np.sqrt(variance), self._weights

    def _diagonal(self, points: Points) -> Floats:
        axes = len(self._numbers)
        weights = np.exp(2 * self._best[:, :axes])
        pairs = np.exp(2 * self._best[:, -2])
        total, squares = weights.sum(1), (weights**2).sum(1)
        one = total + pairs * 0.5 * (total**2 - squares) / 0.12 + 0.25
        return np.broadcast_to(one[:, None], (len(one), len(points.at)))

    def expected(self, points: Points) -> Floats:
        """Return the expected logarithm of the value of each point."""
        mean, _, weights = self.predict(points)
        found: Floats = weights @ mean
        return found

    def gains(self, points: Points, best: float, shift: Floats, sign: float) -> Floats:
        """Return the expected gain of each point over the best.

        Args:
            points: to look at.
            best: the level to beat, with its shift.
            shift: what is added to each point.
            sign: -1.0 if smaller is better.
        """
        mean, deviation, weights = self.predict(points)
        ahead = (sign * mean + shift - best) / deviation
        density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
        found: Floats = weights @ (deviation * np.maximum(ahead * normal(ahead) + density, 0.0))
        return found


def normal(x: Floats) -> Floats:
    """Return the normal distribution function, to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = series * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    found: Floats = np.where(x > 0, 1 - tail, tail)
    return found


def _weight(axis: Axis) -> float:
    """Return how much a knob is expected to matter, before any result."""
    if axis.is_number:
        return WEIGHT_BATCH if axis.knob.search_log else WEIGHT_NUMBER
    return WEIGHT_FLAG if len(axis.levels) == 2 else WEIGHT_CHOICE
