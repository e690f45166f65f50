"""The space of a search: an axis a knob, the values to try on it, and configs as points in it.

A config is compared by what takes effect: a knob at the engine's own default is as if it were not
set, and a knob without effect beside the others is as if it were not there.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmdyno.knobs import Knob, Value, default

LEVELS_MAX = 17  # values of a number that are tried
OWN_CHOICE_AT = 0.4  # where on a range the engine's own choice is taken to be

Key = tuple[Value | None, ...]  # of a config: its value on each axis, None where it is unset
Floats = NDArray[np.float64]


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One searched knob.

    Args:
        levels: values to try, in their order; None leaves the knob to the engine.
        unset: the value that the engine has by itself, None if it decides.
    """

    knob: Knob
    levels: tuple[Value | None, ...]
    unset: Value | None

    @property
    def is_number(self) -> bool:
        """Whether it has positions, not only values."""
        return self.knob.kind in {"int", "float"}

    @property
    def has_more(self) -> bool:
        """Whether there are values between its levels that may be tried, too."""
        listed = len(self.levels) < LEVELS_MAX or self.knob.narrowed == "values"
        return self.is_number and not listed

    def position(self, value: Value | None) -> float:
        """Return where a number is: 0 at the range's low end, 1 at its high end."""
        if not isinstance(value, int | float):
            return OWN_CHOICE_AT
        low, high = self.knob.bounds
        at = float(value)
        if self.knob.search_log:
            low, high, at = math.log(low), math.log(high), math.log(max(at, 1e-9))
        return min(1.5, max(-0.5, (at - low) / (high - low))) if high > low else 0.0

    def nearest(self, position: float) -> Value:
        """Return the level that is closest to a position."""
        numbers = [level for level in self.levels if level is not None]
        return min(numbers, key=lambda level: abs(self.position(level) - position))


class Space:
    """The axes of a search, and what every config of it has beside them.

    Args:
        knobs: those searched; one that others depend on comes before them.
        fixed: values that every config has.
    """

    def __init__(self, knobs: Sequence[Knob], fixed: Mapping[str, Value]) -> None:
        self.fixed = dict(fixed)
        self.axes = tuple(_axis(knob) for knob in knobs if knob.name not in fixed)
        names = [axis.knob.name for axis in self.axes]
        self._place = {name: number for number, name in enumerate(names)}
        self._conditional = [n for n, axis in enumerate(self.axes) if axis.knob.needs is not None]

    def key(self, config: Mapping[str, Value]) -> Key:
        """Return a config's point: what takes effect of it on each axis."""
        return self.canonical(tuple(config.get(axis.knob.name, axis.unset) for axis in self.axes))

    def canonical(self, key: Sequence[Value | None]) -> Key:
        """Return a point with None on the axes that have no effect there, and on no other ones.

        An axis that begins to have an effect, as the one that it hangs on has changed, is left to
        the engine: it has the value that the engine has by itself.
        """
        found = list(key)
        for number in self._conditional:
            if not self.bites(number, found):
                found[number] = None
            elif found[number] is None:
                found[number] = self.axes[number].unset
        return tuple(found)

    def bites(self, number: int, key: Sequence[Value | None]) -> bool:
        """Return whether an axis has an effect at a point."""
        needs = self.axes[number].knob.needs
        if needs is None:
            return True
        place = self._place.get(needs[0])
        return (key[place] if place is not None else self.fixed.get(needs[0])) == needs[1]

    def config(self, key: Key) -> dict[str, Value]:
        """Return a point as a config, without the values that the engine has by itself."""
        found = dict(self.fixed)
        for axis, value in zip(self.axes, key, strict=True):
            if value is not None and value != axis.unset:
                found[axis.knob.name] = value
        return found

    def origin(self) -> Key:
        """Return the point where nothing is set."""
        return self.canonical([axis.unset for axis in self.axes])

    def is_small(self, points: int) -> bool:
        """Return whether there are at most so many points."""
        return sum(1 for _ in itertools.islice(self.points(), points + 1)) <= points

    def size(self) -> int:
        """Return how many points there are, without looking at each."""
        return math.prod(
            self._weight(number)
            for number, axis in enumerate(self.axes)
            if axis.knob.needs is None or axis.knob.needs[0] not in self._place
        )

    def _weight(self, number: int) -> int:
        """Return how many points an axis has with the axes that depend on it."""
        axis = self.axes[number]
        needs = axis.knob.needs
        if needs is not None and needs[0] not in self._place and not self.bites(number, ()):
            return 1
        dependents = [
            (other.knob.needs[1], place)
            for place, other in enumerate(self.axes)
            if other.knob.needs is not None and other.knob.needs[0] == axis.knob.name
        ]
        return sum(
            math.prod(self._weight(place) for wanted, place in dependents if wanted == level)
            for level in axis.levels
        )

    def points(self) -> Iterator[Key]:
        """Yield every point once."""
        yield from self._rest(())

    def _rest(self, begun: Key) -> Iterator[Key]:
        number = len(begun)
        if number == len(self.axes):
            yield begun
            return
        padded = [*begun, *(None for _ in self.axes[number:])]
        levels = self.axes[number].levels if self.bites(number, padded) else (None,)
        for level in levels:
            yield from self._rest((*begun, level))

    def random(self, draw: np.random.Generator) -> Key:
        """Return a random point; a number is anywhere in its range, not on a level only."""
        found: list[Value | None] = []
        for axis in self.axes:
            # A number is left to the engine as often as it has any one of its levels.
            level = axis.levels[int(draw.integers(len(axis.levels)))]
            between = axis.has_more and level is not None
            found.append(_at(axis.knob, float(draw.random())) if between else level)
        return self.canonical(found)

    def count_changed(self, key: Key, other: Key) -> int:
        """Return on how many axes two points differ."""
        return sum(a != b for a, b in zip(key, other, strict=True))


def _axis(knob: Knob) -> Axis:
    unset = default(knob, None)
    levels: list[Value | None] = []
    levels += _numbers(knob) if knob.kind in {"int", "float"} else list(knob.search)
    # Leaving a knob to the engine is one of the choices; so is the default, where it is one.
    if unset is None:
        levels.append(None)
    elif unset not in levels:
        levels.append(unset)
        if knob.kind in {"int", "float"}:
            levels.sort(key=float)  # type: ignore[arg-type]
    return Axis(knob=knob, levels=tuple(levels), unset=unset)


def _numbers(knob: Knob) -> list[Value]:
    """Return the values of a number that are tried: at most LEVELS_MAX, evenly spaced."""
    low, high = knob.bounds
    if knob.narrowed == "values":
        return list(knob.search)
    if knob.kind == "int" and high - low < LEVELS_MAX:
        return list(range(int(low), int(high) + 1))
    steps = np.linspace(0.0, 1.0, LEVELS_MAX)
    return list(dict.fromkeys(_at(knob, float(step)) for step in steps))


def _at(knob: Knob, position: float) -> Value:
    low, high = knob.bounds
    value = low * (high / low) ** position if knob.search_log else low + position * (high - low)
    return knob.tried(value)
