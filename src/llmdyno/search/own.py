"""llmdyno's own search: a model of the value, a model of what starts, and what both promise.

Each question is the point with the largest expected gain over the best point so far, times the
chance that it starts. The best point is the best by the model, not the luckiest measurement.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llmdyno.knobs import Knob, Value
from llmdyno.search.feasibility import Feasibility
from llmdyno.search.model import Model, Points
from llmdyno.search.simple import Memory
from llmdyno.search.space import Floats, Key, Space

FEWER_CHANGES = 0.002  # of the value: what one changed knob must gain to be worth it
_CAUTION = 2.0  # the power of the chance to start
_BATCH_SLOPE = 0.3  # how much a knob on a log scale is expected to gain over its range
_POINTS_MAX = 700


class OwnSearch(Memory):
    """Proposes what promises the largest gain."""

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
        slopes = np.array(
            [_BATCH_SLOPE if axis.knob.search_log else 0.0 for axis in self.space.axes]
        )
        self._model = Model(self.space, self.draw, slopes)
        self._feasibility = Feasibility(self.space)
        self._small = self.space.size(_POINTS_MAX) < _POINTS_MAX

    def propose(self, taken: set[Key]) -> Key | None:
        """Return the point that promises most."""
        measured = [key for key, score in self.told.items() if score is not None]
        if not measured:
            return self.space.origin() if self.space.origin() not in taken else None
        values = np.log(np.array([max(self.told[key] or 0.0, 1e-9) for key in measured]))
        told = Points(self.space, measured)
        failed = [key for key, score in self.told.items() if score is None]
        self._model.fit(told, values)
        self._feasibility.fit(told, Points(self.space, failed))
        expected = self._model.expected(told) - FEWER_CHANGES * self._changes(measured)
        order = np.argsort(-expected)
        keys = [key for key in self._points([measured[n] for n in order[:3]]) if key not in taken]
        if not keys:
            return None
        points = Points(self.space, keys)
        gains = self._gains(points, float(expected.max()))
        chances = 1 - self._feasibility.risk(points)
        return keys[int(np.argmax(gains * chances**_CAUTION))]

    def _gains(self, points: Points, best: float) -> Floats:
        mean, deviation, weights = self._model.predict(points)
        mean = mean - FEWER_CHANGES * self._changes(points.keys)
        ahead = (mean - best) / deviation
        density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
        found: Floats = weights @ (deviation * (ahead * _normal(ahead) + density))
        return found

    def _changes(self, keys: Sequence[Key]) -> Floats:
        origin = next(iter(self.told))
        return np.array([self.space.count_changed(key, origin) for key in keys], dtype=np.float64)

    def _points(self, centres: Sequence[Key]) -> list[Key]:
        """Return points to choose from: near the best, and anywhere."""
        if self._small:
            return list(self.space.points())
        found: dict[Key, None] = {}
        for centre in centres:
            for number, axis in enumerate(self.space.axes):
                for level in axis.levels:
                    found[self._with(centre, {number: level})] = None
        for _ in range(200):
            centre = centres[int(self.draw.integers(len(centres)))]
            axes = self.draw.permutation(len(self.space.axes))[: int(self.draw.integers(2, 4))]
            found[self._with(centre, {int(n): self._some(int(n)) for n in axes})] = None
        for _ in range(200):
            found[self.space.random(self.draw)] = None
        return list(found)

    def _some(self, number: int) -> Value | None:
        levels = self.space.axes[number].levels
        return levels[int(self.draw.integers(len(levels)))]

    def _with(self, centre: Key, changes: Mapping[int, Value | None]) -> Key:
        changed = list(centre)
        for number, level in changes.items():
            changed[number] = level
        for number, axis in enumerate(self.space.axes):
            # A knob that begins to have an effect has the engine's own value at first.
            if changed[number] is None and number not in changes:
                changed[number] = axis.unset
        return self.space.canonical(changed)


def _normal(x: Floats) -> Floats:
    """Return the normal distribution function, to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = series * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    found: Floats = np.where(x > 0, 1 - tail, tail)
    return found
