"""What known functions are made of: knobs, effects, and the bound beyond which nothing starts."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmdyno.knobs import Knob, Value, default

NOISE = 0.05
FAILING = (0.14, 0.22)
_SAMPLE = 4000
Floats = NDArray[np.float64]
Effect = Callable[[Floats], Floats]


class Function(msgspec.Struct, frozen=True):
    """What a search is judged on. Values are about 1000 at the best; larger is better."""

    family: str
    knobs: tuple[Knob, ...]
    # Takes one row of positions a config, returns its value without noise; 0: it does not start.
    true: Effect
    unset: Mapping[str, float]  # the position that the engine's own choice has
    best: float

    def value(self, config: Mapping[str, Value]) -> float:
        """Return a config's value without noise; 0.0: it does not start."""
        return float(self.true(self.positions(config)[None, :])[0])

    def positions(self, config: Mapping[str, Value]) -> Floats:
        """Return each knob's position: 0 to 1 in its range, a choice's number."""
        found = []
        for knob in self.knobs:
            value = config.get(knob.name, default(knob, None))
            if value is None:
                found.append(self.unset[knob.name])
            elif knob.kind in {"bool", "choice"}:
                found.append(float(knob.choices.index(value)))
            else:
                low, high = (float(bound) for bound in knob.search)
                at = float(value)
                if knob.search_log:
                    low, high, at = np.log(low), np.log(high), np.log(at)
                found.append((at - low) / (high - low))
        return np.array(found)


def _row(name: str, kind: Any, first: Value | None, **more: Any) -> Knob:
    text = {"does": "-", "turn": "-", "trades": "-", "source": "-"}
    return Knob(name=name, layer="engine", kind=kind, defaults=(("1", first),), **text, **more)


def batch_knob(draw: np.random.Generator, name: str, at: float, *, unset: bool = False) -> Knob:
    """Return a whole number on a log scale whose default is at about that position."""
    low = int(2 ** draw.integers(0, 9))
    high = low * int(2 ** draw.integers(5, 9))
    first = None if unset else max(1, round(low * (high / low) ** at))
    return _row(name, "int", first, low=1, high=10**9, search=(low, high), search_log=True)


def share_knob(name: str, at: float) -> Knob:
    """Return a share of memory whose default is at that position."""
    low, high = 0.5, 0.95
    first = round(float(low + at * (high - low)), 3)
    return _row(name, "float", first, low=0.01, high=1.0, search=(low, high))


def whole_knob(draw: np.random.Generator, name: str, at: float) -> Knob:
    """Return a small whole number whose default is at that position."""
    high = int(draw.integers(4, 17))
    first = 1 + round(at * (high - 1))
    return _row(name, "int", first, low=1, high=64, search=(1, high))


def choice_knob(name: str, count: int, first: int) -> Knob:
    """Return a choice of so many values; `first` is the default's number."""
    names = tuple("abcdef"[:count])
    return _row(name, "choice", names[first], choices=names, search=names)


def flag_knob(name: str, *, on: bool) -> Knob:
    """Return a flag with that default."""
    return _row(name, "bool", on, choices=(False, True), search=(True, False))


def saturating(floor: float, at: float) -> Effect:
    """Return an effect that rises from `floor` and has most of its gain at `at`."""

    def effect(x: Floats) -> Floats:
        gain = (1 - np.exp(-2.5 * np.clip(x, 0, 1.2) / at)) / (1 - np.exp(-2.5 / at))
        return floor + (1 - floor) * gain

    return effect


def peaked(floor: float, at: float, width: float) -> Effect:
    """Return an effect with one optimum of this width, as a share of the range."""
    return lambda x: floor + (1 - floor) * np.exp(-(((x - at) / width) ** 2) / 2)


def sloped(loss: float) -> Effect:
    """Return an effect that loses a little from one end of the range to the other."""
    return lambda x: 1 - loss * x if loss >= 0 else 1 + loss * (1 - x)


def smaller(a: Floats, b: Floats) -> Floats:
    """Return what two limits let through together: a soft minimum."""
    return 1 / ((1 / a**4 + 1 / b**4) / 2) ** 0.25


def chosen(factors: Floats) -> Effect:
    """Return a choice's effect, a factor each."""
    return lambda x: factors[x.astype(int)]


def draw_factors(draw: np.random.Generator, count: int, first: int, gain: float) -> Floats:
    """Return factors of choices; the best is `gain` over the default, which is not the worst."""
    factors = 1 - draw.uniform(0.0, 0.4, count)
    factors[first] = 1 / gain
    best = draw.choice([i for i in range(count) if i != first])
    factors[best] = 1.0
    return factors


def finish(
    family: str,
    knobs: tuple[Knob, ...],
    speed: Effect,
    fails: Callable[[Floats, float], NDArray[np.bool_]],
    draw: np.random.Generator,
    unset: Mapping[str, float] | None = None,
) -> Function:
    """Set the bound of memory so that the wanted part of the space fails, and find the best."""
    unset = dict(unset or {})
    sample = draw.random((_SAMPLE, len(knobs)))
    for i, knob in enumerate(knobs):
        if knob.kind in {"bool", "choice"}:
            sample[:, i] = np.floor(sample[:, i] * len(knob.choices))
    wanted = draw.uniform(*FAILING)
    bounds = np.linspace(0.2, 2.4, 111)
    shares = np.array([fails(sample, bound).mean() for bound in bounds])
    bound = float(bounds[int(np.argmin(np.abs(shares - wanted)))])

    def true(rows: Floats) -> Floats:
        return np.where(fails(rows, bound), 0.0, 1000.0 * speed(rows))

    function = Function(family, knobs, true, unset, 0.0)
    values = true(sample)
    rows, best = sample[np.argsort(values)[-40:]], float(values.max())
    for scale in (0.2, 0.1, 0.05, 0.02, 0.01):
        steps = np.repeat(rows, 80, axis=0)
        for i, knob in enumerate(knobs):
            if knob.kind in {"bool", "choice"}:
                swapped = draw.random(len(steps)) < 0.1
                steps[swapped, i] = draw.integers(0, len(knob.choices), swapped.sum())
            else:
                moved = steps[:, i] + scale * draw.standard_normal(len(steps))
                steps[:, i] = np.where(
                    draw.random(len(steps)) < 0.6, np.clip(moved, 0, 1), steps[:, i]
                )
        rows = np.concatenate([rows, steps])
        values = true(rows)
        rows, best = rows[np.argsort(values)[-40:]], max(best, float(values.max()))
    return msgspec.structs.replace(function, best=best)
