"""What the results so far say of a point: a Gaussian process over the logarithm of the value.

The speed of a server is nearly a product of effects, one a knob, and of some pairs of knobs. So the
logarithm is a sum: the kernel has a term a knob and a term a pair of knobs. How much each knob
matters, and over what distance, is not fitted but averaged over: many guesses are kept, a sample
of all that explain the results. Few results cannot tell one guess from another.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmdyno.knobs import Value
from llmdyno.search.space import Axis, Floats, Key, Space

GUESSES = 24  # that predict
_DRAWN_A_GUESS = 8  # before the first result, to choose one from
_STEPS, _STEPS_AT_FIRST = 6, 18  # of all guesses, at each question
_STEP, _STEP_BESIDE = 1.7, 0.1  # a share of the difference, the deviation of what comes beside
_STEP_TERMS = 0.5  # the share of a guess's terms that a step moves
_WHOLE_EVERY = 5  # steps
_VARIANCE_MIN = 1e-9
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
SATURATION = 3.0
# The deviation of a knob's effect, in the logarithm of the value: of a number on a log scale (the
# size of a batch), another number, a choice, a flag.
WEIGHT_BATCH, WEIGHT_NUMBER, WEIGHT_CHOICE, WEIGHT_FLAG = 0.4, 0.2, 0.3, 0.2
_WEIGHT_WIDE = 0.7  # the deviation of its logarithm
LENGTH = 0.5  # the distance over which a knob's effect changes, as a share of its range
_LENGTH_WIDE = 0.6  # the deviation of its logarithm
_PAIRS, _PAIRS_WIDE = 0.8, 0.7  # the weight of pairs of knobs, the deviation of its logarithm
_NOISE, _NOISE_WIDE = 0.04, 0.3  # between equal runs, the deviation of its logarithm
_JITTER = 1e-8
_NUMBER_WITHOUT_PLACE = 0.4  # the likeness of a number and the engine's own choice
_OTHER_CHOICE = 0.1  # the likeness of two different choices
INACTIVE = -1
UNSET = -2


class Points:
    """Points as arrays: a position for numbers, a class for what is no number."""

    def __init__(self, space: Space, keys: Sequence[Key]) -> None:
        self.keys = list(keys)
        shape = (len(keys), len(space.axes))
        self.at, self.kinds = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        for number, axis in enumerate(space.axes):
            values = [key[number] for key in self.keys]
            if axis.is_number:
                places = {value: axis.position(value) for value in set(values)}
                self.at[:, number] = [places[value] for value in values]
                self.kinds[:, number] = [UNSET if value is None else 0 for value in values]
            else:
                kinds: dict[Value | None, int] = {
                    level: kind for kind, level in enumerate(axis.levels)
                }
                self.kinds[:, number] = [kinds.get(value, 99) for value in values]
            if axis.knob.needs is not None:
                without = [not space.bites(number, key) for key in self.keys]
                self.kinds[without, number] = INACTIVE
        # How much of its gain a batch knob has there: it saturates.
        self.rise = 1 - np.exp(-SATURATION * np.clip(self.at, 0.0, 1.0))


class _Apart(NamedTuple):
    """How far points are apart on an axis: rows and columns as in a covariance matrix."""

    squares: Floats | None  # of their distances, times -0.5; None: it has no positions
    like: Floats | None  # a factor of their likeness; None: 1 for all


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
        self._guesses: Floats | None = None

    def _drawn(self, count: int) -> Floats:
        """Return guesses, a row each: logs of weights, of lengths, of pairs' weight, of noise."""
        axes = len(self._numbers)
        weights = self._draw.normal(self._weights_before, _WEIGHT_WIDE, (count, axes))
        lengths = self._draw.normal(np.log(LENGTH), _LENGTH_WIDE, (count, axes))
        pairs = self._draw.normal(np.log(_PAIRS), _PAIRS_WIDE, (count, 1))
        noise = self._draw.normal(np.log(_NOISE), _NOISE_WIDE, (count, 1))
        return np.concatenate([weights, lengths, pairs, noise], axis=1)

    def fit(self, points: Points, values: Floats, errors: Floats | None = None) -> None:
        """Move the guesses to what explains these results: logarithms of values, one a point.

        The guesses are a sample of the posterior. A few steps of Markov chains move them on with
        each new result: a step is a part of the difference of two other guesses (differential
        evolution, ter Braak 2006); one half of the guesses moves by the other half.

        Args:
            points: where.
            values: the logarithms.
            errors: of each, beside the noise that all have; None: there are none.
        """
        self._points = points
        self._within = self._apart(points, points)
        self._mean = float(values.mean())
        self._rest = values - self._mean
        self._variances = np.zeros(len(values)) if errors is None else errors**2
        steps = _STEPS
        if self._guesses is None:
            self._guesses = self._first()
            steps = _STEPS_AT_FIRST
        self._posterior = self._explained(self._guesses)
        halves = np.arange(GUESSES) < GUESSES // 2
        for step in range(steps):
            whole = step % _WHOLE_EVERY == _WHOLE_EVERY - 1
            for half in (halves, ~halves):
                self._move(half, whole=whole)

    def assume(self, points: Points) -> None:
        """Take points whose values are not known yet, until the next fit(), as measured.

        Each guess takes what it expects of them itself. So no mean moves, and what is uncertain
        near them is less so (Desautels, Krause, Burdick 2014: hallucinated updates).

        Args:
            points: those that were fitted, in their order, and after them those that are assumed.
        """
        assert self._guesses is not None
        fitted, more = self._rest.shape[-1], len(points.keys) - self._rest.shape[-1]
        expected = self.predict(points)[0][:, fitted:] - self._mean
        measured = np.broadcast_to(self._rest, (len(self._guesses), fitted))
        self._points, self._within = points, self._apart(points, points)
        self._rest = np.concatenate([measured, expected], axis=1)
        self._variances = np.concatenate([self._variances, np.zeros(more)])
        self._posterior = self._explained(self._guesses)

    def _first(self) -> Floats:
        """Return guesses to begin with: drawn before any result, kept by how well they explain."""
        drawn = self._drawn(GUESSES * _DRAWN_A_GUESS)
        fits = self._explained(drawn)[0] - self._prior(drawn)
        weights = np.exp(fits - fits.max())
        found: Floats = drawn[self._draw.choice(len(drawn), GUESSES, p=weights / weights.sum())]
        return found

    def _move(self, half: NDArray[np.bool_], *, whole: bool) -> None:
        """Propose a step to one half of the guesses, and let the posterior decide."""
        assert self._guesses is not None
        here, others = self._guesses[half], self._guesses[~half]
        count, terms = here.shape
        one = self._draw.integers(len(others), size=count)
        other = (one + self._draw.integers(1, len(others), size=count)) % len(others)
        # Now and then a whole difference: it leads from one mode to another.
        share = 1.0 if whole else _STEP / math.sqrt(2 * terms)
        step = share * (others[one] - others[other])
        step += self._draw.normal(0.0, _STEP_BESIDE, here.shape)
        moved = here + np.where(self._draw.random(here.shape) < _STEP_TERMS, step, 0.0)
        found = self._explained(moved)
        taken = np.log(self._draw.random(count)) < found[0] - self._posterior[0][half]
        places = np.flatnonzero(half)[taken]
        self._guesses[places] = moved[taken]
        for kept, new in zip(self._posterior, found, strict=True):
            kept[places] = new[taken]

    def _explained(self, guesses: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the logarithm of each guess's posterior density, and what predicts with it.

        Returns:
            the density; the inverse of the covariances' Cholesky factor; that times the results.
        """
        kernel = self._kernel(guesses, self._within)
        noise = np.exp(2 * guesses[:, -1]) + _JITTER
        kernel += noise[:, None, None] * np.eye(len(self._variances)) + np.diag(self._variances)
        lower = np.linalg.cholesky(kernel)
        inverse = np.linalg.inv(lower)
        inner = inverse @ self._rest[..., None]
        fits = -0.5 * (inner[..., 0] ** 2).sum(1) - np.log(
            np.diagonal(lower, axis1=1, axis2=2)
        ).sum(1)
        return fits + self._prior(guesses), inverse, inner

    def _prior(self, guesses: Floats) -> Floats:
        axes = len(self._numbers)
        centre = np.array(
            [*self._weights_before, *[np.log(LENGTH)] * axes, np.log(_PAIRS), np.log(_NOISE)]
        )
        wide = np.array([*[_WEIGHT_WIDE] * axes, *[_LENGTH_WIDE] * axes, _PAIRS_WIDE, _NOISE_WIDE])
        total: Floats = -0.5 * (((guesses - centre) / wide) ** 2).sum(1)
        return total

    def _apart(self, one: Points, other: Points) -> list[_Apart]:
        """Return how far points are apart on each axis, for _kernel()."""
        found = []
        for axis, is_number in enumerate(self._numbers):
            same = one.kinds[:, None, axis] == other.kinds[None, :, axis]
            if is_number:
                apart = one.at[:, None, axis] - other.at[None, :, axis]
                like = None if same.all() else np.where(same, 1.0, _NUMBER_WITHOUT_PLACE)
                found.append(_Apart(-0.5 * apart**2, like))
            else:
                found.append(_Apart(None, np.where(same, 1.0, _OTHER_CHOICE)))
        return found

    def _kernel(self, guesses: Floats, apart: Sequence[_Apart]) -> Floats:
        """Return the covariances: a matrix a guess."""
        axes = len(self._numbers)
        weights = np.exp(2 * guesses[:, :axes, None, None])
        scales = np.exp(-2 * guesses[:, axes : 2 * axes, None, None])
        pairs = np.exp(2 * guesses[:, -2])
        total: Floats = np.zeros(())
        crossed: Floats = np.zeros(())
        for axis, (squares, like) in enumerate(apart):
            if squares is None:
                term = weights[:, axis] * like
            else:
                term = np.exp(squares * scales[:, axis])
                term *= weights[:, axis] if like is None else weights[:, axis] * like
            crossed = crossed + term * total
            total = total + term
        # A constant of its own for the level of all values.
        found: Floats = total + (pairs / 0.12)[:, None, None] * crossed + 0.25
        return found

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Return means and deviations of the logarithm, a row a guess; all count alike."""
        assert self._guesses is not None
        mean, solved = self._solved(self._kernel(self._guesses, self._apart(self._points, points)))
        variance = np.maximum(self._diagonal(points) - (solved**2).sum(1), _VARIANCE_MIN)
        return mean, np.sqrt(variance)

    def _solved(self, cross: Floats) -> tuple[Floats, Floats]:
        """Return points' means, and what their covariances are reduced by.

        Args:
            cross: the points' covariances with what was measured, a matrix a guess.
        """
        _, inverse, inner = self._posterior
        solved = inverse @ cross
        mean: Floats = (solved * inner).sum(1) + self._mean
        return mean, solved

    def _diagonal(self, points: Points) -> Floats:
        assert self._guesses is not None
        axes = len(self._numbers)
        weights = np.exp(2 * self._guesses[:, :axes])
        pairs = np.exp(2 * self._guesses[:, -2])
        total, squares = weights.sum(1), (weights**2).sum(1)
        one = total + pairs * 0.5 * (total**2 - squares) / 0.12 + 0.25
        return np.broadcast_to(one[:, None], (len(one), len(points.at)))

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
        assert self._guesses is not None
        cross = self._kernel(self._guesses, self._apart(self._points, points))
        means, solved = self._solved(cross)
        within = self._kernel(self._guesses, self._within)
        means_measured, solved_measured = self._solved(within)
        # The choice is made by the mean of all guesses.
        level, levels = means.mean(0) + shift, means_measured.mean(0) + shift_measured
        variance = np.maximum(self._diagonal(points) - (solved**2).sum(1), _VARIANCE_MIN)
        # What was measured moves by no more than its own deviation: some can never be the choice.
        left = np.diagonal(within, axis1=1, axis2=2) - (solved_measured**2).sum(1)
        reach = _NODES[-1] * np.sqrt(np.maximum(left, 0.0)).max(0)
        some = levels + reach >= (levels - reach).max()
        levels, solved_measured = levels[some], solved_measured[:, :, some]
        covariances = cross[:, some] - np.swapaxes(solved_measured, 1, 2) @ solved
        deviation = np.sqrt(variance + np.exp(2 * self._guesses[:, -1])[:, None])
        moves, moves_measured = variance / deviation, covariances / deviation[:, None, :]
        after = np.zeros_like(moves)
        for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
            others = (levels[None, :, None] + moves_measured * node).max(1)
            after += weight * np.maximum(others, level + moves * node)
        found: Floats = np.maximum(after.mean(0) - levels.max(), 0.0)
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
