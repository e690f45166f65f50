"""What does not start, learnt from what did not.

A failure may have one of many causes: a bound on a number, on two or three numbers together
(memory), a choice that is refused, two choices that exclude each other, a choice beside a large
number, a choice with which numbers need more memory than with the others. Each is a sum over a
point that must stay under an unknown bound; on log scales a product is a sum. A cause with a bound
is a guess, with a chance before any result. What started refutes guesses. What failed must be
explained, by one guess or by a few: two failures with one explanation are not taken for two.
"""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from operator import or_

import numpy as np
from numpy.typing import NDArray

from llmdyno.search.points import INACTIVE, UNSET, Points
from llmdyno.search.space import Floats, Space

_RATIOS = (0.5, 1.0, 2.0)
_BESIDE = 2.0  # the term of a choice without which a bound on a number does not count
_BOUNDS = 32  # guesses a cause
_EXPLAINING = 3  # guesses that explain all failures together, at most
_GROUPS_MAX = 40  # of guesses that explain the same failures
_FAILURES_MAX = 20  # that are explained
_CAUSES = 1.6  # expected in a space
_SHARE = 0.15  # of the space that a cause is expected to take away
_SHARE_WIDE = 0.5  # the deviation of that share's logarithm
_SAMPLE = 400
_AT_ONCE = 32  # points whose guesses are summed at once: more leave the cache
_UNLIKELY = 0.01
# How likely a kind of cause is, in proportion to the others.
_ONE, _PAIR, _TRIPLE, _CHOICE = 0.06, 0.1, 0.015, 0.06
_TRIPLES = ((1.0, 1.0, 1.0), (1.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 1.0))
# By how much a choice moves the bound of numbers: one value apart from the others, or more with
# each value in their order (a model over 1, 2, 4 GPUs).
_APART, _GRADED = (0.5, 1.0), (0.75, 1.5)
_APART_ONE, _APART_PAIR, _GRADED_ONE, _GRADED_PAIR = 0.03, 0.05, 0.1, 0.15
# How likely too little of a number is, beside too much: of the size of a batch, of another number
# (a share of memory) beside the size of a batch. Both alone: _LITTLE.
_LITTLE_BATCH, _LITTLE_OTHER, _LITTLE = 0.1, 0.35, 0.2
_LITTLE_BOTH = 0.05


class Feasibility:
    """The chance that a point does not start.

    Args:
        space: of the points.
    """

    def __init__(self, space: Space) -> None:
        self._numbers = [n for n, axis in enumerate(space.axes) if axis.is_number]
        self._batches = {n for n, axis in enumerate(space.axes) if axis.knob.search_log}
        self._choices = [
            (n, level)
            for n, axis in enumerate(space.axes)
            if not axis.is_number
            for level in range(len(axis.levels))
        ]
        causes = [
            *self._causes_of_numbers(),
            *self._causes_of_choices(),
            *self._causes_of_choices_and_numbers(),
        ]
        self._causes = np.zeros((len(causes), len(self._numbers) + len(self._choices)))
        for row, (_, terms) in zip(self._causes, causes, strict=True):
            for place, factor in terms.items():
                row[place] = factor
        self._first_cell = np.arange(len(causes)) * (_BOUNDS + 1)  # of a cause, in a flat table
        self._rates = self._before(np.array([prior for prior, _ in causes]))

    def _causes_of_numbers(self) -> list[tuple[float, dict[int, float]]]:
        """Return causes, how likely each is and its terms: a bound on one, two or three numbers."""
        count = len(self._numbers)
        found: list[tuple[float, dict[int, float]]] = []
        for a in range(count):
            found += [(_ONE, {a: 1.0}), (_ONE * _LITTLE, {a: -1.0})]
        for a, b in combinations(range(count), 2):
            little_a, little_b = self._little(a, b), self._little(b, a)
            for ratio in _RATIOS:
                found += [
                    (_PAIR, {a: 1.0, b: ratio}),
                    (_PAIR * little_a, {a: -1.0, b: ratio}),
                    (_PAIR * little_b, {a: 1.0, b: -ratio}),
                    (_PAIR * _LITTLE_BOTH, {a: -1.0, b: -ratio}),
                ]
        for three in combinations(range(count), 3):
            for ratios in _TRIPLES:
                terms = dict(zip(three, ratios, strict=True))
                found.append((_TRIPLE, terms))
                for a in three:
                    if not self._is_batch(a):
                        found.append((_TRIPLE / 2, {**terms, a: -terms[a]}))
        return found

    def _is_batch(self, number: int) -> bool:
        return self._numbers[number] in self._batches

    def _little(self, number: int, other: int) -> float:
        """Return how likely too little of a number beside too much of another is a cause."""
        mixed = self._is_batch(other) and not self._is_batch(number)
        return _LITTLE_OTHER if mixed else _LITTLE_BATCH

    def _causes_of_choices(self) -> list[tuple[float, dict[int, float]]]:
        """Return causes: a choice, one beside a large or small number, two choices."""
        found: list[tuple[float, dict[int, float]]] = []
        first = len(self._numbers)
        for one, (axis, _) in enumerate(self._choices):
            here = first + one
            found.append((_CHOICE, {here: 1.0}))
            for a in range(first):
                found.append((0.2 * _CHOICE, {here: _BESIDE, a: 1.0}))
                found.append((0.1 * _CHOICE, {here: _BESIDE, a: -1.0}))
            found += [
                (0.3 * _CHOICE, {here: 1.0, first + other: 1.0})
                for other in range(one + 1, len(self._choices))
                if self._choices[other][0] != axis
            ]
        return found

    def _causes_of_choices_and_numbers(self) -> list[tuple[float, dict[int, float]]]:
        """Return causes: a bound on one or two numbers that a choice moves."""
        count = len(self._numbers)
        found: list[tuple[float, dict[int, float]]] = []
        for one, two, moved in self._moves():
            for a in range(count):
                found.append((one * _CHOICE, {**moved, a: 1.0}))
                if not self._is_batch(a):
                    found.append((one * _CHOICE * _LITTLE, {**moved, a: -1.0}))
            for a, b in combinations(range(count), 2):
                found.append((two * _CHOICE, {**moved, a: 1.0, b: 1.0}))
                for much, little in ((a, b), (b, a)):
                    if not self._is_batch(little):
                        likely = two * _CHOICE * _LITTLE_OTHER
                        found.append((likely, {**moved, much: 1.0, little: -1.0}))
        return found

    def _moves(self) -> list[tuple[float, float, dict[int, float]]]:
        """Return how choices may move a bound: how likely for one number, for two, the terms."""
        found: list[tuple[float, float, dict[int, float]]] = []
        for places in self._places():
            for by in _APART:
                for place in places:
                    found.append((_APART_ONE, _APART_PAIR, {place: by}))
                    if len(places) > 2:
                        others = {other: by for other in places if other != place}
                        found.append((_APART_ONE, _APART_PAIR, others))
            if len(places) > 2:
                steps = range(1, len(places))
                for by in (each / (len(places) - 1) for each in _GRADED):
                    for order in (places, places[::-1]):
                        graded = {order[step]: by * step for step in steps}
                        found.append((_GRADED_ONE, _GRADED_PAIR, graded))
        return found

    def _places(self) -> list[list[int]]:
        """Return, by axis that is no number, the features of its values in their order."""
        first = len(self._numbers)
        axes = dict.fromkeys(axis for axis, _ in self._choices)
        return [
            [first + n for n, (other, _) in enumerate(self._choices) if other == axis]
            for axis in axes
        ]

    def _before(self, priors: Floats) -> Floats:
        """Return the chance of each guess before any result: a row a cause, a column a bound."""
        first = len(self._numbers)
        sums = np.sort(self._sample() @ self._causes.T, axis=0)
        top = np.maximum(self._causes[:, :first], 0).sum(1)
        for places in self._places():
            top += np.maximum(self._causes[:, places], 0).max(1)
        bare = (self._causes[:, :first] == 0).all(1)
        # A bound beside a choice lies where only points are that have the choice.
        beside = _BESIDE + np.minimum(self._causes[:, :first], 0).sum(1)
        chosen = (self._causes[:, first:] >= _BESIDE).any(1)
        below = np.where(chosen, beside, sums[int(0.45 * _SAMPLE)])
        self._low = np.where(bare, top - 0.5, below)
        self._step = (top - self._low) / _BOUNDS
        bounds = self._low[:, None] + self._step[:, None] * (np.arange(_BOUNDS) + 0.5)
        above = (sums.T[:, None, :] > bounds[:, :, None]).mean(2)
        shares = np.log(np.maximum(above, 0.5 / _SAMPLE) / _SHARE) / _SHARE_WIDE
        likely = np.exp(-0.5 * shares**2)
        likely /= likely.sum(1, keepdims=True)
        found: Floats = _CAUSES * priors[:, None] / max(priors.sum(), 1e-9) * likely
        return found

    def _sample(self) -> Floats:
        """Return random points of the space, as features."""
        draw = np.random.default_rng(0)
        first = len(self._numbers)
        found = np.zeros((_SAMPLE, self._causes.shape[1]))
        found[:, :first] = draw.random((_SAMPLE, first))
        for places in self._places():
            found[np.arange(_SAMPLE), draw.choice(places, _SAMPLE)] = 1.0
        return found

    def _features(self, points: Points) -> Floats:
        at = np.where(points.kinds == 0, points.at, 0.4)
        at = np.where((points.kinds == INACTIVE) | (points.kinds == UNSET), 0.2, at)
        numbers = at[:, self._numbers]
        kinds = [points.kinds[:, axis] == level for axis, level in self._choices]
        ones = np.array(kinds, dtype=np.float64).reshape(len(self._choices), len(at)).T
        found: Floats = np.concatenate([numbers, ones], axis=1)
        return found

    def _beyond(self, points: Points) -> NDArray[np.int64]:
        """Return, by point and cause, beyond how many of the cause's bounds the point is."""
        sums = self._features(points) @ self._causes.T
        found: NDArray[np.int64] = np.clip(
            (sums - self._low) / self._step + 0.5, 0, _BOUNDS
        ).astype(np.int64)
        return found

    def fit(self, started: Points, failed: Points) -> None:
        """Take all points that started, and all that did not."""
        bounds = np.arange(_BOUNDS)
        reached = self._beyond(started).max(0, initial=0)
        alive = np.where(bounds >= reached[:, None], self._rates, 0.0)
        explains = np.zeros(alive.shape, dtype=np.int64)  # a bit a failure
        count = 0
        for places in self._beyond(failed)[-_FAILURES_MAX:]:
            beyond = (bounds < places[:, None]) & (alive > 0)
            if beyond.any():  # else it is explained by nothing that is thought of
                explains |= beyond.astype(np.int64) << count
                count += 1
        self._open = _cumulated(np.where(explains == 0, alive, 0.0))
        rates = {int(one): float(alive[explains == one].sum()) for one in np.unique(explains)}
        rates.pop(0, None)
        chances = _chances(rates, count) if count else {}
        self._found = [
            _cumulated(np.where(explains == one, alive, 0.0) * chance / rates[one])
            for one, chance in chances.items()
            if chance > _UNLIKELY
        ]

    def risk(self, points: Points) -> Floats:
        """Return the chance that each point does not start."""
        return self._beyond_a_true_one(self._beyond(points))

    def shared(self, points: Points, others: Sequence[Points]) -> list[Floats]:
        """Return, by other point, the chance that each point does not start for what stops both.

        Args:
            points: that are asked about.
            others: one point each.
        """
        places = self._beyond(points)
        return [self._beyond_a_true_one(np.minimum(places, self._beyond(one))) for one in others]

    def _beyond_a_true_one(self, places: NDArray[np.int64]) -> Floats:
        """Return the chance that one of the guesses below these places is true.

        Args:
            places: by point and cause, as _beyond() returns them.
        """
        tables = [self._open, *self._found]
        sums = np.empty((len(tables), len(places)))
        for begin in range(0, len(places), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            cells = places[some] + self._first_cell
            for table, sum_ in zip(tables, sums, strict=True):
                sum_[some] = table.take(cells).sum(1)
        fine = np.exp(-sums[0])
        for group in sums[1:]:
            fine = fine * (1 - np.clip(group, 0.0, 1.0))
        clipped: Floats = np.clip(1 - fine, 0.0, 1.0)  # rounding
        return clipped


def _cumulated(rates: Floats) -> Floats:
    """Return, by cause, the rates of all bounds below a place."""
    return np.concatenate([np.zeros((len(rates), 1)), np.cumsum(rates, axis=1)], axis=1)


def _chances(rates: Mapping[int, float], failures: int) -> dict[int, float]:
    """Return the chance that a group of guesses holds a true one.

    Args:
        rates: by the failures that a group explains, a bit each: its chance before.
        failures: how many there are.
    """
    whole = (1 << failures) - 1
    groups = sorted(rates, key=lambda one: -rates[one] * 4.0 ** one.bit_count())[:_GROUPS_MAX]
    found = dict.fromkeys(rates, 0.0)
    total = 0.0
    for count in range(1, _EXPLAINING + 1):
        for some in combinations(groups, count):
            if reduce(or_, some) == whole:
                weight = math.prod(rates[one] for one in some)
                total += weight
                for one in some:
                    found[one] += weight
    if total > 0:
        return {one: chance / total for one, chance in found.items()}
    for failure in range(failures):  # more causes than that: each failure by itself
        those = [one for one in rates if one >> failure & 1]
        share = sum(rates[one] for one in those)
        for one in those:
            found[one] = max(found[one], rates[one] / share)
    return found
