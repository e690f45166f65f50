"""What the results so far say of a point: a Gaussian process over the logarithm of the value.

The speed of a server is nearly a product of effects, one a knob, and of some pairs of knobs. So the
logarithm is a sum: the kernel has a term a knob and a term a pair of knobs. How much each knob
matters, and over what distance, is not fitted but averaged over: many guesses are kept, a sample
of all that explain the results. Few results cannot tell one guess from another. With a shape
(search/shape.py) the process is what is left beside losses that each number is expected to have.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmdyno.search.points import Points
from llmdyno.search.predictor import VARIANCE_MIN, Moments, Predictor
from llmdyno.search.shape import TERMS, Shape
from llmdyno.search.space import Axis, Floats, Space

GUESSES = 24  # that predict
_DRAWN_A_GUESS = 8  # before the first result, to choose one from
_STEPS, _STEPS_AT_FIRST = 6, 18  # of all guesses, at each question
_STEP, _STEP_BESIDE = 1.7, 0.1  # a share of the difference, the deviation of what comes beside
_STEP_TERMS = 0.5  # the share of a guess's terms that a step moves
_WHOLE_EVERY = 5  # steps
_STEPS_OF_SHAPE = 60, 10  # at first, at each question, of a model with a shape
_BY_DIFFERENCE, _SMALL = 0.35, 0.6  # the share of its steps; of the others the share that is small
_KEPT, _BLOCK_STEP = 0.85, 0.7  # of a guess by a small step, of a difference by a step of blocks
# The deviation of a knob's effect, in the logarithm of the value: of a number on a log scale (the
# size of a batch), another number, a choice, a flag.
WEIGHT_BATCH, WEIGHT_NUMBER, WEIGHT_CHOICE, WEIGHT_FLAG = 0.4, 0.2, 0.3, 0.2
_WEIGHT_BATCH_LEFT, _WEIGHT_NUMBER_LEFT = 0.2, 0.15  # beside what a shape explains
_WEIGHT_WIDE = 0.7  # the deviation of its logarithm
LENGTH = 0.5  # the distance over which a knob's effect changes, as a share of its range
_LENGTH_WIDE = 0.6  # the deviation of its logarithm
_PAIRS, _PAIRS_WIDE = 0.8, 0.7  # the weight of pairs of knobs, the deviation of its logarithm
_NOISE, _NOISE_WIDE = 0.04, 0.3  # between equal runs, the deviation of its logarithm
_JITTER = 1e-8
_NUMBER_WITHOUT_PLACE = 0.4  # the likeness of a number and the engine's own choice
_OTHER_CHOICE = 0.1  # the likeness of two different choices


class _Apart(NamedTuple):
    """How far points are apart on an axis: rows and columns as in a covariance matrix."""

    squares: Floats | None  # of their distances, times -0.5; None: it has no positions
    like: Floats | None  # a factor of their likeness; None: 1 for all


class Model(Predictor):
    """Predicts the logarithm of the value; learns nothing until fit() is called.

    Args:
        space: of the points.
        draw: the search's random numbers.
        shape: that the value is expected to have, of which the process is what is left over; None:
            it is level.
    """

    def __init__(self, space: Space, draw: np.random.Generator, shape: Shape | None = None) -> None:
        self._draw = draw
        self._shape = shape
        self._numbers = np.array([axis.is_number for axis in space.axes])
        axes = len(space.axes)
        weights = np.log([_weight(axis, shape) for axis in space.axes])
        centre, wide = (np.zeros(0),) * 2 if shape is None else (shape.centre, shape.wide)
        # Of a guess's terms: logs of weights, of lengths, the shape's, logs of pairs, of noise.
        self._centre = np.concatenate(
            [weights, [np.log(LENGTH)] * axes, centre, [np.log(_PAIRS), np.log(_NOISE)]]
        )
        self._wide = np.concatenate(
            [[_WEIGHT_WIDE] * axes, [_LENGTH_WIDE] * axes, wide, [_PAIRS_WIDE, _NOISE_WIDE]]
        )
        self._blocks = [] if shape is None else self._blocks_of(shape)
        self._guesses: Floats | None = None

    def _drawn(self, count: int) -> Floats:
        """Return guesses as they are before the first result, a row each."""
        return self._draw.normal(self._centre, self._wide, (count, len(self._centre)))

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
        self._values = values
        self._level: Floats | None = None  # of each guess, where it does not follow from the values
        self._variances = np.zeros(len(values)) if errors is None else errors**2
        at_first, later = (_STEPS_AT_FIRST, _STEPS) if self._shape is None else _STEPS_OF_SHAPE
        steps = later
        if self._guesses is None:
            self._guesses = self._first()
            steps = at_first
        self._posterior = self._explained(self._guesses)
        halves = np.arange(GUESSES) < GUESSES // 2
        for step in range(steps):
            whole = step % _WHOLE_EVERY == _WHOLE_EVERY - 1
            for half in (halves, ~halves):
                if self._shape is None:
                    self._move(half, whole=whole)
                else:
                    self._move_blocks(half, whole=whole)

    def assume(self, points: Points) -> None:
        """Take points whose values are not known yet, until the next fit(), as measured.

        Each guess takes what it expects of them itself. So no mean moves, and what is uncertain
        near them is less so (Desautels, Krause, Burdick 2014: hallucinated updates).

        Args:
            points: those that were fitted, in their order, and after them those that are assumed.
        """
        assert self._guesses is not None
        fitted, more = len(self._variances), len(points.keys) - len(self._variances)
        expected = self.predict(points)[0][:, fitted:]
        measured = np.broadcast_to(self._values, (len(self._guesses), fitted))
        self._points, self._within = points, self._apart(points, points)
        self._values = np.concatenate([measured, expected], axis=1)
        self._variances = np.concatenate([self._variances, np.zeros(more)])
        self._level = self._posterior[3]
        self._posterior = self._explained(self._guesses)

    def _first(self) -> Floats:
        """Return guesses to begin with: drawn before any result, kept by how well they explain."""
        drawn = self._drawn(GUESSES * _DRAWN_A_GUESS * (1 if self._shape is None else 2))
        fits = self._explained(drawn)[0] - self._prior(drawn)
        weights = np.exp(fits - fits.max())
        found: Floats = drawn[self._draw.choice(len(drawn), GUESSES, p=weights / weights.sum())]
        return found

    def _move(self, half: NDArray[np.bool_], *, whole: bool) -> None:
        """Propose a step to one half of the guesses, and let the posterior decide."""
        assert self._guesses is not None
        here = self._guesses[half]
        # Now and then a whole difference: it leads from one mode to another.
        step = self._difference(half) * (1.0 if whole else _STEP / math.sqrt(2 * here.shape[1]))
        step += self._draw.normal(0.0, _STEP_BESIDE, here.shape)
        moved = here + np.where(self._draw.random(here.shape) < _STEP_TERMS, step, 0.0)
        self._decide(half, moved, np.zeros(len(here)))

    def _difference(self, half: NDArray[np.bool_]) -> Floats:
        """Return the difference of two guesses of the other half, for each of this one."""
        assert self._guesses is not None
        others = self._guesses[~half]
        count = int(half.sum())
        one = self._draw.integers(len(others), size=count)
        other = (one + self._draw.integers(1, len(others), size=count)) % len(others)
        found: Floats = others[one] - others[other]
        return found

    def _blocks_of(self, shape: Shape) -> list[list[int]]:
        """Return which terms of a guess belong together: they are moved at once."""
        axes, count = len(self._numbers), len(shape.numbers)
        found = [[int(n)] for n in np.flatnonzero(~self._numbers)]
        for number, axis in enumerate(shape.numbers):
            found.append([2 * axes + number + count * term for term in range(TERMS)])
            found.append([int(axis), axes + int(axis)])
        last = len(self._centre)
        return [*found, [last - 3], [last - 2, last - 1]]

    def _move_blocks(self, half: NDArray[np.bool_], *, whole: bool) -> None:
        """Propose steps of some blocks of terms, and let the posterior decide.

        A shape has more terms than a half has guesses, so differences alone do not reach all of
        the space. Of three steps two keep what is believed before any result: a small one, a
        preconditioned Crank-Nicolson step (Cotter et al. 2013), and one that draws anew.
        """
        assert self._guesses is not None
        here = self._guesses[half]
        some = np.zeros(here.shape, dtype=np.bool_)
        for row in some:
            count = int(self._draw.integers(1, 4))
            for block in self._draw.permutation(len(self._blocks))[:count]:
                row[self._blocks[int(block)]] = True
        by_difference = self._draw.random((len(here), 1)) < _BY_DIFFERENCE
        kept = np.where(self._draw.random((len(here), 1)) < _SMALL, _KEPT, 0.0)
        noise = self._draw.normal(size=here.shape) * self._wide
        drawn = self._centre + kept * (here - self._centre) + np.sqrt(1 - kept**2) * noise
        step = self._difference(half) * (1.0 if whole else _BLOCK_STEP)
        step += self._draw.normal(0.0, _STEP_BESIDE, here.shape) * self._wide
        moved = np.where(some, np.where(by_difference, here + step, drawn), here)
        # What keeps the prior is decided by the likelihood alone.
        counted = np.where(by_difference[:, 0], 0.0, self._prior(moved) - self._prior(here))
        self._decide(half, moved, counted)

    def _decide(self, half: NDArray[np.bool_], moved: Floats, counted: Floats) -> None:
        """Take those of the moved guesses that the posterior takes.

        Args:
            half: of the guesses, which were moved.
            moved: they.
            counted: by how much the logarithm of the posterior density is larger than it counts.
        """
        assert self._guesses is not None
        found = self._explained(moved)
        ahead = found[0] - self._posterior[0][half] - counted
        taken = np.log(self._draw.random(len(moved))) < ahead
        places = np.flatnonzero(half)[taken]
        self._guesses[places] = moved[taken]
        for kept, new in zip(self._posterior, found, strict=True):
            kept[places] = new[taken]

    def _before(self, guesses: Floats, points: Points) -> Floats:
        """Return what each guess expects of points before any result, but for their level."""
        if self._shape is None:
            return np.zeros((len(guesses), len(points.at)))
        return self._shape.expected(guesses[:, 2 * len(self._numbers) : -2], points)

    def _explained(self, guesses: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the logarithm of each guess's posterior density, and what predicts with it.

        Returns:
            the density; the inverse of the covariances' Cholesky factor; that times what is left
            of the results beside what was expected; their level.
        """
        kernel = self._kernel(guesses, self._within)
        noise = np.exp(2 * guesses[:, -1]) + _JITTER
        kernel += noise[:, None, None] * np.eye(len(self._variances)) + np.diag(self._variances)
        lower = np.linalg.cholesky(kernel)
        inverse = np.linalg.inv(lower)
        rest = self._values - self._before(guesses, self._points)
        level = rest.mean(1) if self._level is None else self._level
        inner = inverse @ (rest - level[:, None])[..., None]
        fits = -0.5 * (inner[..., 0] ** 2).sum(1) - np.log(
            np.diagonal(lower, axis1=1, axis2=2)
        ).sum(1)
        return fits + self._prior(guesses), inverse, inner, level

    def _prior(self, guesses: Floats) -> Floats:
        total: Floats = -0.5 * (((guesses - self._centre) / self._wide) ** 2).sum(1)
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
        cross = self._kernel(self._guesses, self._apart(self._points, points))
        mean, solved = self._solved(cross, points)
        variance = np.maximum(self._diagonal(points) - (solved**2).sum(1), VARIANCE_MIN)
        return mean, np.sqrt(variance)

    def _solved(self, cross: Floats, points: Points) -> tuple[Floats, Floats]:
        """Return points' means, and what their covariances are reduced by.

        Args:
            cross: the points' covariances with what was measured, a matrix a guess.
            points: they.
        """
        assert self._guesses is not None
        _, inverse, inner, level = self._posterior
        solved = inverse @ cross
        mean: Floats = (
            (solved * inner).sum(1) + level[:, None] + self._before(self._guesses, points)
        )
        return mean, solved

    def _diagonal(self, points: Points) -> Floats:
        assert self._guesses is not None
        axes = len(self._numbers)
        weights = np.exp(2 * self._guesses[:, :axes])
        pairs = np.exp(2 * self._guesses[:, -2])
        total, squares = weights.sum(1), (weights**2).sum(1)
        one = total + pairs * 0.5 * (total**2 - squares) / 0.12 + 0.25
        return np.broadcast_to(one[:, None], (len(one), len(points.at)))

    def moments(self, points: Points) -> Moments:
        """Return what is believed of points, and of what was measured beside them."""
        assert self._guesses is not None
        cross = self._kernel(self._guesses, self._apart(self._points, points))
        mean, solved = self._solved(cross, points)
        within = self._kernel(self._guesses, self._within)
        mean_measured, solved_measured = self._solved(within, self._points)
        left = np.diagonal(within, axis1=1, axis2=2) - (solved_measured**2).sum(1)
        return Moments(
            mean=mean,
            variance=np.maximum(self._diagonal(points) - (solved**2).sum(1), VARIANCE_MIN),
            noise=np.exp(2 * self._guesses[:, -1]),
            mean_measured=mean_measured,
            deviation_measured=np.sqrt(np.maximum(left, 0.0)),
            covariances=cross - np.swapaxes(solved_measured, 1, 2) @ solved,
        )


def _weight(axis: Axis, shape: Shape | None) -> float:
    """Return how much a knob is expected to matter, before any result."""
    if not axis.is_number:
        return WEIGHT_FLAG if len(axis.levels) == 2 else WEIGHT_CHOICE
    if shape is not None:  # it explains most of what numbers do
        return _WEIGHT_BATCH_LEFT if axis.knob.search_log else _WEIGHT_NUMBER_LEFT
    return WEIGHT_BATCH if axis.knob.search_log else WEIGHT_NUMBER
