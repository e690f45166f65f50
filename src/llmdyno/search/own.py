"""llmdyno's own search: a model of the value, a model of what starts, and what both promise.

Each question is the point after whose measurement the choice is expected to be best, times the
chance that it starts (and that it meets the SLOs). The choice is the best by the model, not the
luckiest measurement. A space of few points is looked at as a whole.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from llmdyno.knobs import Knob, Value
from llmdyno.search.asked import Asked, climbed
from llmdyno.search.feasibility import Feasibility
from llmdyno.search.memory import Memory
from llmdyno.search.model import Model
from llmdyno.search.points import Points
from llmdyno.search.predictor import Mixture, normal
from llmdyno.search.shape import Shape
from llmdyno.search.space import Floats, Key

FEWER_CHANGES = 0.002  # the share of the value that one more changed knob must gain
_CAUTION = 5.0  # the power of the chance to start
_CAUTION_OUT = 0.07  # by that share more for each trial that is out: it has not taught yet
_CAUTION_MAX = 3.0  # times that, when much has failed
_APART = 4.0  # the power of the chance not to fail by one cause with what is measured now
_FAILING = 0.08  # the share of trials that may fail
_AT_FIRST = 6  # trials as which the expectation counts
_BATCH_SLOPE = 0.5  # by how much the logarithm of the value is expected to rise on a log scale
_CHOICE_GAIN = 0.1  # ... and with the choice that the guide names
_POINTS_MAX = 400  # up to so many, all points are compared
_DRAWN = 120  # points beside the best, and anywhere
_KNOBS_MAX = 5  # that points which are drawn cover: with more, a climb goes on from the best
_SETTLED = 0.06  # below this share, times the chance to start, a pair is as good a question
_PAIR_CHANCE = 0.5  # what two settings together must have to be tried without a promise
_BAD = 1.0  # how far below the best a difference counts half, in the logarithm of the value
_UNIT = 0.3  # a deviation of values that have no logarithm, in the model's unit

Prior = Callable[[Mapping[str, Value]], float | None]


class OwnSearch(Memory):
    """Proposes what promises the largest gain.

    Args:
        knobs: those searched.
        starts: configs to propose first.
        prior: what a value is expected to be before it is measured, None where it is unknown.
        turns: as hint() takes them.
        more: as Memory takes them.
    """

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        starts: Sequence[Mapping[str, Value]] = (),
        prior: Prior | None = None,
        turns: Mapping[str, Value] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(knobs, **more)
        self._starts = [self.space.key({**self.space.fixed, **start}) for start in starts]
        self._prior = prior
        self._turns = dict(turns or {})
        self._out: list[Key] = []  # what is measured now
        models = [Model(self.space, self.draw)]
        if prior is None:  # what a prior leaves over has no such shape
            shape = Shape(self.space, gains=self.sign > 0, instead_of=self._slopes)
            models.append(Model(self.space, self.draw, shape))
        self._model = Mixture(models)
        self._misses = Model(self.space, self.draw)
        self._feasibility = Feasibility(self.space)
        self._small = self.space.is_small(_POINTS_MAX)
        # What the last point that was proposed was expected to gain, as a share of the value,
        # times its chance to start; None: it cannot be said, or it is not what matters yet.
        self.expected_gain: float | None = None

    def hint(self, turns: Mapping[str, Value]) -> None:
        """Take which way the guide turns some knobs.

        Args:
            turns: by knob: "raise" or "lower" for a number, else the value that should help.
        """
        self._turns = dict(turns)

    def assume(self, configs: Sequence[Mapping[str, Value]]) -> None:
        """Take all configs that are measured now, instead of those before; not that they start."""
        self._out = list(dict.fromkeys(self.space.key(config) for config in configs))

    def _guess(self, points: Points) -> Floats:
        """Return what is expected to be gained at points, before any result."""
        found = self._slopes(points)
        for number, axis in enumerate(self.space.axes):
            turn = self._turns.get(axis.knob.name)
            if axis.is_number:
                rises = {"raise": 1.0, "lower": -1.0}.get(str(turn), 0.0)
                found += _BATCH_SLOPE * rises * points.rise[:, number]
            elif turn is not None:
                found += _CHOICE_GAIN * np.array([key[number] == turn for key in points.keys])
        return found

    def _slopes(self, points: Points) -> Floats:
        """Return what numbers without a hint are expected to gain.

        One on a log scale is taken for the size of a batch: more gains, and saturates.
        """
        found = np.zeros(len(points.keys))
        for number, axis in enumerate(self.space.axes):
            hinted = self._turns.get(axis.knob.name) in {"raise", "lower"}
            if axis.is_number and axis.knob.search_log and self.sign > 0 and not hinted:
                found += _BATCH_SLOPE * points.rise[:, number]
        return found

    def propose(self, taken: set[Key]) -> Key | None:
        """Return the point that promises most; None when all that were thought of are taken."""
        self.expected_gain = None
        for start in self._starts:
            if start not in taken:
                self.reason = "to begin with"
                return start
        measured = self._learn()
        if not measured:
            self.reason = "nothing could be measured yet: the engine's own choice"
            origin = self.space.origin()
            return origin if origin not in taken else None
        order = np.argsort(-self._worth(Points(self.space, measured)))
        centres = [measured[int(number)] for number in order[:2]]
        keys = [key for key in self._points(centres) if key not in taken]
        if not keys:
            return None
        asked = self._asked_about(keys, measured, centres[0])
        if len(self.space.axes) > _KNOBS_MAX and not self._out:  # what is out makes it slow
            ask = partial(self._asked_about, measured=measured, best=centres[0])
            asked = climbed(asked, self._beside, ask, taken)
        keys, gains, chances, scores = asked
        chosen = int(np.argmax(scores))
        self.reason = self._why(keys[chosen], centres[0], float(chances[chosen]))
        gain = float(gains[chosen] * chances[chosen])
        if not self._logarithmic or (self._limited and not self._met):
            return keys[chosen]  # what is promised is no share of the value
        if (len(self.told) + len(self._out)) % 2 and gain < _SETTLED:
            together = self._never_together(centres[0], taken)
            if together is not None:
                return together
        here = Points(self.space, [keys[chosen]])
        self.expected_gain = float(self._gains(here, centres[0])[0] * chances[chosen])
        return keys[chosen]

    def _asked_about(self, keys: Sequence[Key], measured: Sequence[Key], best: Key) -> Asked:
        """Return what points are worth as questions."""
        points = Points(self.space, keys)
        chances = 1 - self._feasibility.risk(points)
        caution = _CAUTION * self._impatience() * (1 + _CAUTION_OUT * len(self._out))
        gains = self._promise(points, measured, best)
        scores = gains * chances**caution * self._apart_from_out(points) ** _APART
        return Asked(list(keys), gains, chances, scores)

    def _never_together(self, best: Key, taken: set[Key]) -> Key | None:
        """Return the best point with two choices changed to what was never tried together.

        The model takes two settings that lose alone for two that lose together. Some gain only
        together, and nothing but a trial shows it. Of several such points it is the one that
        promises most; None where there is none that is likely to start.
        """
        axes = self.space.axes
        pairs = list(itertools.combinations([n for n, a in enumerate(axes) if not a.is_number], 2))
        seen = {(i, j, key[i], key[j]) for key in [*self.told, *self._out] for i, j in pairs}
        keys = []
        for i, j in pairs:
            for one, other in itertools.product(axes[i].levels, axes[j].levels):
                if best[i] == one or best[j] == other or (i, j, one, other) in seen:
                    continue
                key = self._with(best, {i: one, j: other})
                if (key[i], key[j]) == (one, other) and key not in taken:
                    keys.append(key)
        if not keys:
            return None
        points = Points(self.space, keys)
        chances = 1 - self._feasibility.risk(points)
        chosen = int(np.argmax(np.where(chances < _PAIR_CHANCE, -np.inf, self._worth(points))))
        if chances[chosen] < _PAIR_CHANCE:
            return None
        self.reason = f"two settings never tried together, {100 * chances[chosen]:.0f} % to start"
        return keys[chosen]

    def _why(self, key: Key, best: Key, chance: float) -> str:
        """Say what is expected of a point, beside the best so far, and whether it will start."""
        if self._limited and not self._met:
            return f"likeliest to meet the SLOs, {100 * chance:.0f} % to start"
        ahead, level = self._worth(Points(self.space, [key, best]))
        expected = _against_best(float(ahead - level)) if self._logarithmic else "promises most"
        return f"{expected}, {100 * chance:.0f} % to start"

    def _impatience(self) -> float:
        """Return by how much more than wanted has failed so far, between 1 and the most."""
        failures = float(sum(told.value is None for told in self.told.values()))
        if self._out:  # so many of them are expected to
            failures += self._feasibility.risk(Points(self.space, self._out)).sum()
        trials = len(self.told) + len(self._out) + _AT_FIRST
        return min(_CAUTION_MAX, max(1.0, (failures + _FAILING * _AT_FIRST) / (_FAILING * trials)))

    def _apart_from_out(self, points: Points) -> Floats:
        """Return the chance that a point and what is measured now do not fail by one cause.

        One trial shows the cause; a second bet on it beside the first would be lost with it.
        """
        found = np.ones(len(points.keys))
        out = [Points(self.space, [key]) for key in self._out]
        for shared in self._feasibility.shared(points, out):
            found *= 1 - shared
        return found

    def expected(self, configs: Sequence[Mapping[str, Value]]) -> list[float] | None:
        """Return a number a config that ranks them: larger is better; None: nothing is known.

        It is the model's expectation, which a lucky measurement moves less than the measurement.
        """
        if not self._learn():
            return None
        keys = [self.space.key(config) for config in configs]
        return [float(worth) for worth in self._worth(Points(self.space, keys))]

    def _learn(self) -> list[Key]:
        """Fit the models to what was told; return the points that were measured, or are now."""
        measured = [key for key, told in self.told.items() if told.value is not None]
        if not measured:
            return []
        points = Points(self.space, measured)
        values = [float(self.told[key].value or 0.0) for key in measured]
        self._logarithmic = min(values) > 0
        scaled = self._scaled(np.array(values))
        if self._logarithmic and self._prior is None:  # a prior has the unit of the values
            scaled = _compressed(scaled)
        rest = scaled - self._known(points)
        errors = np.array([self.told[key].error for key in measured])
        self._model.fit(points, rest, errors if self._logarithmic else errors * 0.0)
        missed = np.clip([self.told[key].missed for key in measured], -1.0, 2.0)
        self._limited = bool((missed != 0).any())
        self._met = bool((missed <= 0).any())
        if self._limited:
            self._misses.fit(points, missed)
        failed = [key for key, told in self.told.items() if told.value is None] + self.refused
        self._feasibility.fit(points, Points(self.space, failed))
        return [*measured, *self._assumed(measured)]

    def _assumed(self, measured: Sequence[Key]) -> list[Key]:
        """Let the models take what is out for measured; return what was not."""
        out = [key for key in self._out if key not in self.told]
        if out:
            points = Points(self.space, [*measured, *out])
            self._model.assume(points)
            if self._limited:
                self._misses.assume(points)
        return out

    def _scaled(self, values: Floats) -> Floats:
        """Return values as the model has them: larger is better, differences are shares."""
        spread = float(values.std()) or 1.0
        scaled = np.log(values) if self._logarithmic else (values - values.mean()) * _UNIT / spread
        found: Floats = self.sign * scaled
        return found

    def _known(self, points: Points) -> Floats:
        """Return what was expected of points before they were measured."""
        keys = points.keys
        if self._prior is None or not self._logarithmic:
            return self._guess(points)
        found = [self._prior(self.space.config(key)) for key in keys]
        known = [value for value in found if value is not None and value > 0]
        if not known:
            return self._guess(points)
        middle = float(np.median(known))
        filled = [value if value is not None and value > 0 else middle for value in found]
        logarithms: Floats = self.sign * np.log(np.array(filled))
        return logarithms

    def _worth(self, points: Points) -> Floats:
        """Return the expected value of points, less for each changed knob and each miss."""
        found = self._model.expected(points) + self._known(points) - self._cost(points.keys)
        if self._limited:
            missed = np.maximum(self._misses.expected(points), 0.0)
            found = found - 10.0 * missed
        return found

    def _promise(self, points: Points, measured: Sequence[Key], best: Key) -> Floats:
        """Return by how much the choice is expected to be better once each point is measured."""
        if self._limited and not self._met:  # first of all one must meet the SLOs
            level = -float(self._misses.expected(Points(self.space, [best]))[0])
            return self._misses.gains(points, level, np.zeros(len(points.keys)), -1.0)
        among = Points(self.space, measured)
        gains = self._model.knowledge(
            points,
            self._known(points) - self._cost(points.keys),
            self._worth(among) - self._model.expected(among),
        )
        return gains * self._meeting(points)

    def _meeting(self, points: Points) -> Floats:
        """Return the chance that each point meets the SLOs."""
        if not self._limited:
            return np.ones(len(points.keys))
        mean, deviation = self._misses.predict(points)
        chances: Floats = normal(-mean / deviation).mean(0)
        return chances

    def _gains(self, points: Points, best: Key) -> Floats:
        """Return by how much each point is expected to be better than the best."""
        shift = self._known(points) - self._cost(points.keys)
        level = float(self._worth(Points(self.space, [best]))[0])
        return self._model.gains(points, level, shift, 1.0) * self._meeting(points)

    def _cost(self, keys: Sequence[Key]) -> Floats:
        """Return what the changes to the first point that was told must gain."""
        first = next(iter(self.told))
        changes = [self.space.count_changed(key, first) for key in keys]
        return FEWER_CHANGES * np.array(changes, dtype=np.float64)

    def _points(self, centres: Sequence[Key]) -> list[Key]:
        """Return points to choose from: near the best, and anywhere."""
        if self._small:
            return list(self.space.points())
        found: dict[Key, None] = {}
        axes = self.space.axes
        for centre in centres:
            found.update(dict.fromkeys(self._beside(centre)))
        for _ in range(_DRAWN):
            centre = centres[int(self.draw.integers(len(centres)))]
            some = self.draw.permutation(len(axes))[: int(self.draw.integers(2, 4))]
            found[self._with(centre, {int(n): self._level(int(n)) for n in some})] = None
            found[self.space.random(self.draw)] = None
        return list(found)

    def _beside(self, centre: Key) -> Iterator[Key]:
        """Yield the points with one setting changed."""
        for number, axis in enumerate(self.space.axes):
            for level in axis.levels:
                yield self._with(centre, {number: level})

    def _level(self, number: int) -> Value | None:
        levels = self.space.axes[number].levels
        return levels[int(self.draw.integers(len(levels)))]

    def _with(self, centre: Key, changes: Mapping[int, Value | None]) -> Key:
        """Return a point with some changes; one that begins to have an effect has its default."""
        changed = [
            axis.unset if value is None and number not in changes else value
            for number, (axis, value) in enumerate(zip(self.space.axes, centre, strict=True))
        ]
        for number, level in changes.items():
            changed[number] = level
        return self.space.canonical(changed)


def _compressed(scaled: Floats) -> Floats:
    """Return results with differences far below the best made smaller.

    How bad a bad point is, is of no use, and where values fall off a cliff a smooth model would
    bend everywhere to follow. Of two that are the best, the mean is the top: one may be luck.
    """
    top = float(np.sort(scaled)[-2:].mean())
    below = np.maximum(top - scaled, 0.0)
    found: Floats = scaled + below - _BAD * np.log1p(below / _BAD)
    return found


def _against_best(log_gain: float) -> str:
    """Say how good a point is expected to be beside the best so far; less is better, too."""
    if log_gain > math.log(10):  # so far from all that was measured, the number means nothing
        return "expected far better than the best"
    times = math.exp(log_gain)
    if times <= 1:
        worse = f"{100 * (1 - times):.1f} % worse than the best"
        return f"expected {worse}, but little is known there"
    if times < 2:
        return f"expected {100 * (times - 1):.1f} % better than the best"
    return f"expected {times:.1f} times as good as the best"
