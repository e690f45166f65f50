"""Searches to compare with: at random, a naive hill climb, a grid."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llmdyno.knobs import Knob, Value
from llmdyno.search.space import Key, Space

_DRAWS_MAX = 200
_GRID_LEVELS = (2, 3, 5, 9, 17)


class Memory:
    """What every search keeps: the space, and what it was told; larger scores are better.

    Args:
        knobs: those searched.
        trials: how many trials there will be in all.
        maximise: whether larger values are better.
        seed: of the search.
        fixed: values that every config has.
    """

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        trials: int,
        maximise: bool,
        seed: int,
        fixed: Mapping[str, Value],
    ) -> None:
        self.space = Space(knobs, fixed)
        self.trials = trials
        self.draw = np.random.default_rng(seed)
        self._sign = 1.0 if maximise else -1.0
        self.asked: Key | None = None
        self.told: dict[Key, float | None] = {}  # the score of each point; None: it failed

    def give(self, config: Mapping[str, Value]) -> None:
        """Take a config that the search did not propose; the next tell() is about it."""
        self.asked = self.space.key(config)

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """Propose a config that is not among `known`; None when the space is used up."""
        taken = {self.space.key(config) for config in known}
        key = self.propose(taken)
        if key is None:
            key = next((point for point in self.space.points() if point not in taken), None)
        self.asked = key
        return None if key is None else self.space.config(key)

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a point that is not taken; None: any that is left."""
        raise NotImplementedError

    def tell(self, value: float | None, constraints: Mapping[str, float]) -> None:
        """Take the result of the config that was proposed, or given, last.

        Args:
            value: of the objective; None: the config cannot be served.
            constraints: by SLO, how far it was missed as a share of its limit; met if ≤ 0.
        """
        assert self.asked is not None, "ask first"
        missed = max(0.0, *constraints.values()) if constraints else 0.0
        # What misses an SLO is worse than all that meets them, whatever its value.
        score = None if value is None else self._sign * value if not missed else -1e12 * missed
        self.told[self.asked] = score
        self.asked = None

    def best(self) -> Key:
        """Return the best point that was told; where nothing is set if none was."""
        scored = {key: score for key, score in self.told.items() if score is not None}
        return max(scored, key=lambda key: scored[key]) if scored else self.space.origin()


class RandomSearch(Memory):
    """Proposes configs at random."""

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a point that is not taken; None when none was drawn."""
        drawn = (self.space.random(self.draw) for _ in range(_DRAWS_MAX))
        return next((key for key in drawn if key not in taken), None)


class GridSearch(Memory):
    """Proposes the points of a grid in a random order: few values a knob first, then more."""

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        trials: int,
        maximise: bool,
        seed: int,
        fixed: Mapping[str, Value],
    ) -> None:
        super().__init__(knobs, trials=trials, maximise=maximise, seed=seed, fixed=fixed)
        self._points = self._ordered()

    def propose(self, taken: set[Key]) -> Key | None:
        """Return the grid's next point that is not taken."""
        return next((key for key in self._points if key not in taken), None)

    def _ordered(self) -> Iterator[Key]:
        for count in _GRID_LEVELS:
            levels = [
                [axis.levels[round(at)] for at in np.linspace(0, len(axis.levels) - 1, count)]
                if axis.is_number
                else list(axis.levels)
                for axis in self.space.axes
            ]
            sizes = [len(one) for one in levels]
            total = int(min(np.prod([float(size) for size in sizes]), 4096))
            for flat in self.draw.permutation(total):
                at = np.unravel_index(int(flat), sizes) if np.prod(sizes) < 2**62 else ()
                key = [one[int(place)] for one, place in zip(levels, at, strict=False)]
                if len(key) == len(levels):
                    yield self.space.canonical(key)


class HillClimb(Memory):
    """Climbs naively from the baseline: one knob a step, up or down by a factor of two.

    A step that gains is repeated; one that does not turns to the next knob.
    """

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a neighbour of the best point; when all are taken, a random point."""
        best = self.best()
        neighbours = [key for key in self._neighbours(best) if key not in taken]
        if not neighbours:
            return RandomSearch.propose(self, taken)  # type: ignore[arg-type]
        previous = list(self.told)[-1:]
        if previous and previous[0] == best:  # the last step gained: go on along it
            along = [key for key in neighbours if self._axis_of(key, best) == self._last_axis]
            neighbours = along or neighbours
        self._last_axis = self._axis_of(neighbours[0], best)
        return neighbours[0]

    _last_axis = -1

    def _axis_of(self, key: Key, best: Key) -> int:
        return next(n for n, (a, b) in enumerate(zip(key, best, strict=True)) if a != b)

    def _neighbours(self, best: Key) -> Iterator[Key]:
        for number, axis in enumerate(self.space.axes):
            if not self.space.bites(number, best):
                continue
            for level in self._steps(axis, best[number]):
                changed = list(best)
                changed[number] = level
                yield self.space.canonical(changed)

    def _steps(self, axis: object, value: Value | None) -> list[Value | None]:
        from llmdyno.search.space import Axis

        assert isinstance(axis, Axis)
        if not axis.is_number:
            return [level for level in axis.levels if level != value]
        here = axis.position(value)
        step = 0.125
        if axis.knob.search_log:
            low, high = (float(bound) for bound in axis.knob.search)
            step = float(np.log(2) / np.log(high / low))
        return [axis.nearest(min(1, here + step)), axis.nearest(max(0, here - step))]
