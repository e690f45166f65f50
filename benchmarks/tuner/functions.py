"""Known functions to search: knobs, a value for each config, and what does not start.

Each family draws its parameters anew from a seed, so no search can be fitted to one function. A
function is a product of effects, as the speed of a server is: batch knobs that gain until they
saturate, pairs of which the smaller one binds, peaks, choices, knobs under conditions, knobs
without effect. A part of the space, 14 to 22 %, does not start: too much memory for two batch
knobs together, a choice that is refused, a pair that exclude each other.
"""

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


def _batch(draw: np.random.Generator, name: str, at: float, *, unset: bool = False) -> Knob:
    """Return a whole number on a log scale whose default is at about that position."""
    low = int(2 ** draw.integers(0, 9))
    high = low * int(2 ** draw.integers(5, 9))
    first = None if unset else max(1, round(low * (high / low) ** at))
    return _row(name, "int", first, low=1, high=10**9, search=(low, high), search_log=True)


def _share(name: str, at: float) -> Knob:
    low, high = 0.5, 0.95
    first = round(low + at * (high - low), 3)
    return _row(name, "float", first, low=0.01, high=1.0, search=(low, high))


def _whole(draw: np.random.Generator, name: str, at: float) -> Knob:
    high = int(draw.integers(4, 17))
    first = 1 + round(at * (high - 1))
    return _row(name, "int", first, low=1, high=64, search=(1, high))


def _choice(name: str, count: int, first: int) -> Knob:
    names = tuple("abcdef"[:count])
    return _row(name, "choice", names[first], choices=names, search=names)


def _flag(name: str, *, on: bool) -> Knob:
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


def _factors(draw: np.random.Generator, count: int, first: int, gain: float) -> Floats:
    """Return factors of choices; the best is `gain` over the default, which is not the worst."""
    factors = 1 - draw.uniform(0.0, 0.4, count)
    factors[first] = 1 / gain
    best = draw.choice([i for i in range(count) if i != first])
    factors[best] = 1.0
    return factors


def _finish(
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


def _batches(seed: int) -> Function:
    """Two batch knobs and a memory share that gain and saturate, a choice, a flag."""
    draw = np.random.default_rng([seed, 1])
    at = draw.uniform(0.05, 0.35, 3)
    knobs = (
        _batch(draw, "sequences", at[0]),
        _batch(draw, "tokens", at[1]),
        _share("memory", at[2] + 0.4),
        _choice("kernel", 3, 0),
        _flag("overlap", on=False),
    )
    first = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 0.9))
    second = saturating(draw.uniform(0.3, 0.6), draw.uniform(0.3, 0.9))
    third = saturating(draw.uniform(0.7, 0.95), draw.uniform(0.5, 1.0))
    kernel = chosen(_factors(draw, 3, 0, draw.uniform(1.0, 1.25)))
    overlap = chosen(np.array([draw.uniform(0.85, 1.0), 1.0])[:: draw.choice([1, -1])])
    ratio, weight = draw.uniform(0.7, 1.4), draw.uniform(0.1, 0.4)

    def speed(x: Floats) -> Floats:
        numbers = first(x[:, 0]) * second(x[:, 1]) * third(x[:, 2])
        return numbers * kernel(x[:, 3]) * overlap(x[:, 4])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + ratio * x[:, 1] + weight * x[:, 2] > bound

    return _finish("batches", knobs, speed, fails, draw)


def _binding(seed: int) -> Function:
    """Sequences, tokens and memory of which the smallest binds: one alone gains nothing."""
    draw = np.random.default_rng([seed, 2])
    knobs = (
        _batch(draw, "sequences", draw.uniform(0.0, 0.25)),
        _batch(draw, "tokens", draw.uniform(0.0, 0.25)),
        _share("memory", draw.uniform(0.2, 0.9)),
        _choice("policy", 2, 0),
        _whole(draw, "workers", 0.0),
    )
    shift, floor = draw.uniform(-0.15, 0.15), draw.uniform(0.15, 0.3)
    late = draw.uniform(0.1, 0.4)  # what too large a step costs
    policy = chosen(_factors(draw, 2, 0, draw.uniform(1.0, 1.15)))
    workers = saturating(draw.uniform(0.7, 1.0), draw.uniform(0.3, 0.8))
    first, second = saturating(floor, 0.8), saturating(floor, 0.8)

    def speed(x: Floats) -> Floats:
        bound = smaller(first(x[:, 0]), second(np.clip(x[:, 1] + shift, 0, 1)))
        cost = 1 - late * np.clip(x[:, 1] - 0.75, 0, 1) / 0.25
        memory = 0.85 + 0.15 * smaller(np.clip(x[:, 2], 0.05, 1), 1.05 - 0.5 * x[:, 0])
        return bound * cost * memory * policy(x[:, 3]) * workers(x[:, 4])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + x[:, 2] > bound

    return _finish("binding", knobs, speed, fails, draw)


def _choices(seed: int) -> Function:
    """Three choices, one with a value that is refused, a pair that excludes itself, a batch."""
    draw = np.random.default_rng([seed, 3])
    knobs = (
        _choice("backend", 4, 0),
        _choice("graph", 3, 0),
        _flag("split", on=True),
        _batch(draw, "sequences", draw.uniform(0.1, 0.5)),
        _share("memory", draw.uniform(0.5, 0.9)),
    )
    backend = _factors(draw, 4, 0, draw.uniform(1.05, 1.4))
    refused = float(draw.choice([i for i in (1, 2, 3) if backend[i] < 1]))
    graph = chosen(_factors(draw, 3, 0, draw.uniform(1.0, 1.3)))
    pair = float(draw.integers(1, 3))
    split = chosen(np.array([draw.uniform(0.7, 1.0), 1.0])[:: draw.choice([1, -1])])
    batch = peaked(draw.uniform(0.3, 0.7), draw.uniform(0.4, 0.9), draw.uniform(0.2, 0.4))
    if draw.random() < 0.5:
        batch = saturating(draw.uniform(0.3, 0.6), draw.uniform(0.4, 0.9))

    def speed(x: Floats) -> Floats:
        factors = backend[x[:, 0].astype(int)] * graph(x[:, 1]) * split(x[:, 2])
        return factors * batch(x[:, 3]) * (0.9 + 0.1 * x[:, 4])

    whole = bool(draw.random() < 0.5)

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        both = (x[:, 1] == pair) & (x[:, 2] == 0) & (x[:, 4] > bound)
        return ((x[:, 0] == refused) & (whole | (x[:, 3] > 0.2))) & (bound > 0) | both

    return _finish("choices", knobs, speed, fails, draw)


def _conditional(seed: int) -> Function:
    """A knob that has an effect only with another's value, and pays only when set well."""
    draw = np.random.default_rng([seed, 4])
    parent = _flag("speculate", on=False)
    child = msgspec.structs.replace(
        _batch(draw, "guesses", draw.uniform(0.0, 1.0)), needs=("speculate", True)
    )
    knobs = (
        parent,
        child,
        _batch(draw, "sequences", draw.uniform(0.1, 0.4)),
        _batch(draw, "tokens", 0.5, unset=True),
    )
    off, peak = draw.uniform(0.65, 1.05), draw.uniform(0.2, 0.8)
    guesses = peaked(draw.uniform(0.5, 0.8), peak, draw.uniform(0.25, 0.5))
    sequences = saturating(draw.uniform(0.3, 0.6), draw.uniform(0.4, 0.9))
    tokens = peaked(draw.uniform(0.5, 0.8), draw.uniform(0.3, 0.9), draw.uniform(0.3, 0.6))
    unset = {"tokens": float(draw.uniform(0.2, 0.7))}

    def speed(x: Floats) -> Floats:
        guess = np.where(x[:, 0] > 0, guesses(x[:, 1]), off)
        return guess * sequences(x[:, 2]) * tokens(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 2] + x[:, 3] + 0.15 * x[:, 0] > bound

    return _finish("conditional", knobs, speed, fails, draw, unset)


def _flat(seed: int) -> Function:
    """Five knobs of which two matter; the default is far from the best."""
    draw = np.random.default_rng([seed, 5])
    knobs = (
        _batch(draw, "one", draw.uniform(0.1, 0.9)),
        _whole(draw, "two", draw.uniform(0.0, 1.0)),
        _batch(draw, "three", draw.uniform(0.0, 0.4)),
        _choice("four", 3, 1),
        _flag("five", on=bool(draw.random() < 0.5)),
    )
    main = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 1.0))
    if draw.random() < 0.4:
        main = peaked(draw.uniform(0.2, 0.5), draw.uniform(0.5, 0.95), draw.uniform(0.2, 0.4))
    mode = chosen(_factors(draw, 3, 1, draw.uniform(1.1, 1.6)))
    which = int(draw.integers(0, 2))

    def speed(x: Floats) -> Floats:
        return main(x[:, 2]) * mode(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 2] + x[:, which] > bound

    return _finish("flat", knobs, speed, fails, draw)


def _narrow(seed: int) -> Function:
    """Two knobs with a narrow optimum, off the default; two that slope a little."""
    draw = np.random.default_rng([seed, 6])
    at = draw.uniform(0.3, 0.85, 2)
    start = np.clip(at + draw.choice([-1, 1], 2) * draw.uniform(0.15, 0.4, 2), 0.0, 1.0)
    knobs = (
        _batch(draw, "one", start[0]),
        _batch(draw, "two", start[1]),
        _share("three", draw.uniform(0.2, 0.8)),
        _choice("four", 2, 0),
    )
    width = draw.uniform(0.12, 0.25, 2)
    first = peaked(draw.uniform(0.3, 0.6), at[0], width[0])
    second = peaked(draw.uniform(0.3, 0.6), at[1], width[1])
    slope = sloped(draw.uniform(-0.2, 0.2))
    choice = chosen(_factors(draw, 2, 0, draw.uniform(0.9, 1.2)))
    sign = draw.choice([-1, 1])

    def speed(x: Floats) -> Floats:
        return first(x[:, 0]) * second(x[:, 1]) * slope(x[:, 2]) * choice(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        other = x[:, 2] if sign > 0 else 1 - x[:, 2]
        near = (np.abs(x[:, 0] - start[0]) < 0.02) & (np.abs(x[:, 1] - start[1]) < 0.02)
        return (x[:, 0] + other > bound) & ~near

    return _finish("narrow", knobs, speed, fails, draw)


def _near(seed: int) -> Function:
    """The default is within a few per cent of the best; most changes lose."""
    draw = np.random.default_rng([seed, 7])
    at = draw.uniform(0.4, 0.7, 3)
    start = np.clip(at + draw.uniform(-0.12, 0.12, 3), 0, 1)
    knobs = (
        _batch(draw, "one", start[0]),
        _batch(draw, "two", start[1]),
        _whole(draw, "three", start[2]),
        _flag("four", on=True),
        _choice("five", 3, 0),
    )
    floors, widths = draw.uniform(0.2, 0.6, 3), draw.uniform(0.2, 0.5, 3)
    shapes = [peaked(*shape) for shape in zip(floors, at, widths, strict=True)]
    flag = chosen(np.array([draw.uniform(0.6, 0.98), 1.0]))
    kind = chosen(np.array([1.0, *draw.uniform(0.6, 1.02, 2)]))

    def speed(x: Floats) -> Floats:
        numbers = shapes[0](x[:, 0]) * shapes[1](x[:, 1]) * shapes[2](x[:, 2])
        return numbers * flag(x[:, 3]) * kind(x[:, 4])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + x[:, 1] > bound

    return _finish("near", knobs, speed, fails, draw)


def _server(seed: int) -> Function:
    """A server by its arithmetic: steps of prefill and decode, a cache that preempts, a host."""
    draw = np.random.default_rng([seed, 8])
    knobs = (
        _batch(draw, "sequences", draw.uniform(0.05, 0.5), unset=bool(draw.random() < 0.3)),
        _batch(draw, "tokens", draw.uniform(0.05, 0.5)),
        _share("memory", draw.uniform(0.6, 0.9)),
        _whole(draw, "servers", 0.0),
        _flag("prefixes", on=False),
    )
    users = draw.uniform(3.0, 6.0)  # log2 of the place that the load fills
    host, reuse = draw.uniform(0.4, 1.5), draw.uniform(0.0, 0.5)
    weight = draw.uniform(0.3, 3.0)
    unset = {"sequences": float(draw.uniform(0.2, 0.6))}

    def speed(x: Floats) -> Floats:
        sequences = np.minimum(2 ** (1 + 6 * x[:, 0]), 2**users)
        cache = 2 ** (3 + 4 * x[:, 2])
        held = np.minimum(sequences, cache)
        lost = 1 + 0.4 * np.clip(sequences - cache, 0, None) / cache
        prefill = weight * (1 - reuse * x[:, 4]) * (1 + 1.5 * np.exp(-4 * x[:, 1]))
        stall = 1 + 0.3 * np.clip(x[:, 1] - 0.7, 0, 1)
        step = (1 + 0.03 * held) * lost * stall + 0.03 * prefill * held
        out = held / step
        limit = 12 * host * (1 + 2 * (1 - np.exp(-3 * x[:, 3])))
        return smaller(out, limit) / 10

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 2] * 1.2 + x[:, 1] > bound

    return _finish("server", knobs, speed, fails, draw, unset)


FAMILIES: Mapping[str, Callable[[int], Function]] = {
    "batches": _batches,
    "binding": _binding,
    "choices": _choices,
    "conditional": _conditional,
    "flat": _flat,
    "narrow": _narrow,
    "near": _near,
    "server": _server,
}


def make(family: str, seed: int) -> Function:
    """Return a family's function of that seed; the default starts, and there is more to find."""
    for again in range(50):
        function = FAMILIES[family](seed + 1000 * again)
        if function.value({}) > 0:
            return function
    raise AssertionError(f"{family}, seed {seed}: no default that starts")
