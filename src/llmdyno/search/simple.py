"""Searches to compare with: at random, a naive hill climb, a grid."""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from llmdyno.knobs import Value
from llmdyno.search.memory import Memory
from llmdyno.search.space import Axis, Key, Space

_DRAWS_MAX = 200
_GRID_MAX = 4096
_GRID_LEVELS = (2, 3, 5, 9, 17)


class RandomSearch(Memory):
    """Draws each knob by itself, evenly over its range or its log scale; it learns nothing."""

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a point that is not taken; None when none was drawn."""
        self.reason = "at random"
        return random_point(self.space, self.draw, taken)


def random_point(space: Space, draw: np.random.Generator, taken: set[Key]) -> Key | None:
    """Return a random point that is not taken; None when none was drawn."""
    drawn = (space.random(draw) for _ in range(_DRAWS_MAX))
    return next((key for key in drawn if key not in taken), None)


class GridSearch(Memory):
    """Proposes the points of a grid in a random order: few values a knob first, then more."""

    def propose(self, taken: set[Key]) -> Key | None:
        """Return the grid's next point that is not taken."""
        self.reason = "the next point of the grid"
        return next((key for key in self._points if key not in taken), None)

    @cached_property
    def _points(self) -> Iterator[Key]:
        for count in _GRID_LEVELS:
            levels = [
                [axis.levels[round(at)] for at in np.linspace(0, len(axis.levels) - 1, count)]
                if axis.is_number
                else list(axis.levels)
                for axis in self.space.axes
            ]
            total = math.prod(len(one) for one in levels)
            few = total <= _GRID_MAX  # of more points some are drawn, as no study gets through them
            for flat in self.draw.permutation(total if few else _GRID_MAX):
                at = int(flat) if few else int(self.draw.integers(2**62))
                key: list[Value | None] = []
                for one in levels:
                    at, place = divmod(at, len(one))
                    key.append(one[place])
                yield self.space.canonical(key)


class HillClimb(Memory):
    """Climbs naively from the baseline: one knob a step, up or down by a factor of two.

    A step that gains is repeated; one that does not turns to the next knob.
    """

    _last_axis = -1  # that the last step was along

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a neighbour of the best point; when all are taken, a random point."""
        best = self.best()
        neighbours = [key for key in self._neighbours(best) if key not in taken]
        if not neighbours:
            self.reason = "at random: every neighbour of the best is taken"
            return random_point(self.space, self.draw, taken)
        self.reason = "one step from the best so far"
        previous = list(self.told)[-1:]
        if previous and previous[0] == best:  # the last step gained: go on along it
            along = [key for key in neighbours if self._axis_of(key, best) == self._last_axis]
            neighbours = along or neighbours
        self._last_axis = self._axis_of(neighbours[0], best)
        return neighbours[0]

    def _axis_of(self, key: Key, best: Key) -> int:
        return next(n for n, (a, b) in enumerate(zip(key, best, strict=True)) if a != b)

    def _neighbours(self, best: Key) -> Iterator[Key]:
        for number, axis in enumerate(self.space.axes):
            if not self.space.bites(number, best):
                continue
            for level in self._steps(axis, best[number]):
                changed = list(best)
                changed[number] = level
                # What begins to have an effect has its default: as its config is known later.
                yield self.space.key(self.space.config(self.space.canonical(changed)))

    def _steps(self, axis: Axis, value: Value | None) -> list[Value | None]:
        if not axis.is_number:
            return [level for level in axis.levels if level != value]
        if axis.knob.narrowed == "values" and value in axis.levels:
            numbers: list[Value | None] = [level for level in axis.levels if level is not None]
            at = numbers.index(value) if value is not None else -1
            return numbers[at + 1 : at + 2] + (numbers[at - 1 : at] if at > 0 else [])
        here = axis.position(value)
        step = 0.125
        if axis.knob.search_log:
            low, high = axis.knob.bounds
            step = float(np.log(2) / np.log(high / low))
        return [axis.nearest(min(1, here + step)), axis.nearest(max(0, here - step))]
