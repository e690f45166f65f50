"""What does not start, learnt from what did not.

Each failure may have one of many causes: a bound on a number, on two numbers together (memory), a
choice that is refused, two choices that exclude each other, a choice beside a large number. Each is
a sum over a point that must stay under an unknown bound: the points that started say how high the
bound is at least, those that did not how high at most. Causes that fit count by how well they do.
"""

from collections.abc import Sequence

import numpy as np

from llmdyno.search.model import INACTIVE, UNSET, Points
from llmdyno.search.space import Floats, Space

_RATIOS = (0.5, 1.0, 2.0)
_CORNER_RISK = 0.6  # that more of two numbers does not start, before any result
_UNSEEN_RISK = 0.06  # that a choice is refused that was not tried yet
_NEAR = 0.5  # below 1: what is near a failure is avoided more than in proportion
_SHARED = 3.0  # how much more likely a cause is for each further failure that it explains


class Feasibility:
    """The chance that a point does not start.

    Args:
        space: of the points.
    """

    def __init__(self, space: Space) -> None:
        numbers = [n for n, axis in enumerate(space.axes) if axis.is_number]
        choices = [
            (n, level)
            for n, axis in enumerate(space.axes)
            if not axis.is_number
            for level in range(len(axis.levels))
        ]
        self._numbers, self._choices = numbers, choices
        features = len(numbers) + len(choices)
        rows: list[Floats] = []
        priors: list[float] = []

        def cause(prior: float, terms: Sequence[tuple[int, float]]) -> None:
            row = np.zeros(features)
            for place, factor in terms:
                row[place] += factor
            rows.append(row)
            priors.append(prior)

        for a in range(len(numbers)):
            cause(1.0, [(a, 1.0)])
            cause(0.3, [(a, -1.0)])
            for b in range(a + 1, len(numbers)):
                for ratio in _RATIOS:
                    cause(0.7, [(a, 1.0), (b, ratio)])
                    cause(0.1, [(a, -1.0), (b, ratio)])
                    cause(0.1, [(a, 1.0), (b, -ratio)])
                    cause(0.05, [(a, -1.0), (b, -ratio)])
        first = len(numbers)
        for one, (axis, _) in enumerate(choices):
            cause(1.5, [(first + one, 1.0)])
            for a in range(len(numbers)):
                cause(0.2, [(first + one, 2.0), (a, 1.0)])
                cause(0.1, [(first + one, 2.0), (a, -1.0)])
            for other in range(one + 1, len(choices)):
                if choices[other][0] != axis:
                    cause(0.4, [(first + one, 1.0), (first + other, 1.0)])
        self._causes = np.array(rows).reshape(len(rows), features)
        self._priors = np.array(priors)
        pairs = [row for row in self._causes if (row[:first] > 0).sum() == 2]
        self._corners = np.array([row for row in pairs if (row == 1).sum() == 2]).reshape(
            -1, features
        )

    def _features(self, points: Points) -> Floats:
        at = np.where(points.kinds == 0, points.at, 0.4)
        at = np.where((points.kinds == INACTIVE) | (points.kinds == UNSET), 0.2, at)
        numbers = at[:, self._numbers]
        kinds = [points.kinds[:, axis] == level for axis, level in self._choices]
        ones = np.array(kinds, dtype=np.float64).reshape(len(self._choices), len(at)).T
        found: Floats = np.concatenate([numbers, ones], axis=1)
        return found

    def fit(self, started: Points, failed: Points) -> None:
        """Take all points that started, and all that did not."""
        good, bad = self._features(started), self._features(failed)
        self._good = good
        reached = (good @ self._causes.T).max(0)  # by cause: the highest sum that started
        sums = bad @ self._causes.T
        highest = np.maximum(self._causes, 0).sum(1)
        lowest = np.minimum(self._causes, 0).sum(1)
        self._reached = reached
        self._bounds: list[tuple[Floats, Floats]] = []  # a failure: weights and upper bounds
        explained = sums > reached + 1e-9
        upper = np.where(explained, sums, np.inf).min(0, initial=np.inf)
        gap = np.where(np.isfinite(upper), upper - reached, 0.0) / (highest - lowest)
        shared = _SHARED ** np.maximum(explained.sum(0) - 1, 0)
        for one in range(len(bad)):
            weights = self._priors * gap * shared * explained[one]
            total = weights.sum()
            if total > 0:
                self._bounds.append((weights / total, upper))

    def risk(self, points: Points) -> Floats:
        """Return the chance that each point does not start."""
        features = self._features(points)
        found = self._corner_risk(features)
        sums = features @ self._causes.T
        for weights, upper in self._bounds:
            with np.errstate(invalid="ignore", divide="ignore"):
                share = (sums - self._reached) / (upper - self._reached)
            share = np.where(np.isfinite(upper), np.clip(share, 0.0, 1.0) ** _NEAR, 0.0)
            found = np.maximum(found, share @ weights)
        clipped: Floats = np.clip(found, 0.0, 1.0)  # rounding
        return clipped

    def _corner_risk(self, features: Floats) -> Floats:
        """Return the risk before any failure: of more of two numbers, and of unseen choices."""
        found = np.zeros(len(features))
        if len(self._corners):
            sums = features @ self._corners.T
            reached = (self._good @ self._corners.T).max(0)
            share = np.clip((sums - reached) / np.maximum(2.0 - reached, 1e-6), 0.0, 1.0)
            found = _CORNER_RISK * (share**2).max(1)
        first = len(self._numbers)
        unseen = self._good[:, first:].max(0) == 0
        fresh = (features[:, first:] * unseen).sum(1)
        total: Floats = 1 - (1 - found) * (1 - _UNSEEN_RISK) ** fresh
        return total
