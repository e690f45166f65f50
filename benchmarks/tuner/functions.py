"""Known functions to search: eight families, four others (others.py), six held out.

Those held out are in held_out.py and queues.py; memory.py has two on which failures were studied,
wide.py four of seven to nine knobs.

Each family draws its parameters anew from a seed, so no search can be fitted to one function. A
function is a product of effects, as the speed of a server is: batch knobs that gain until they
saturate, pairs of which the smaller one binds, peaks, choices, knobs under conditions, knobs
without effect. A part of the space, 14 to 22 %, does not start: too much memory for two batch
knobs together, a choice that is refused, a pair that exclude each other.
"""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from held_out import HELD_OUT
from memory import MEMORY
from numpy.typing import NDArray
from others import OTHERS
from parts import (
    Floats,
    Function,
    batch_knob,
    choice_knob,
    chosen,
    draw_factors,
    finish,
    flag_knob,
    peaked,
    saturating,
    share_knob,
    sloped,
    smaller,
    whole_knob,
)
from queues import QUEUES
from wide import WIDE


def _batches(seed: int) -> Function:
    """Two batch knobs and a memory share that gain and saturate, a choice, a flag."""
    draw = np.random.default_rng([seed, 1])
    at = draw.uniform(0.05, 0.35, 3)
    knobs = (
        batch_knob(draw, "sequences", at[0]),
        batch_knob(draw, "tokens", at[1]),
        share_knob("memory", at[2] + 0.4),
        choice_knob("kernel", 3, 0),
        flag_knob("overlap", on=False),
    )
    first = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 0.9))
    second = saturating(draw.uniform(0.3, 0.6), draw.uniform(0.3, 0.9))
    third = saturating(draw.uniform(0.7, 0.95), draw.uniform(0.5, 1.0))
    kernel = chosen(draw_factors(draw, 3, 0, draw.uniform(1.0, 1.25)))
    overlap = chosen(np.array([draw.uniform(0.85, 1.0), 1.0])[:: draw.choice([1, -1])])
    ratio, weight = draw.uniform(0.7, 1.4), draw.uniform(0.1, 0.4)

    def speed(x: Floats) -> Floats:
        numbers = first(x[:, 0]) * second(x[:, 1]) * third(x[:, 2])
        return numbers * kernel(x[:, 3]) * overlap(x[:, 4])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + ratio * x[:, 1] + weight * x[:, 2] > bound

    return finish("batches", knobs, speed, fails, draw)


def _binding(seed: int) -> Function:
    """Sequences, tokens and memory of which the smallest binds: one alone gains nothing."""
    draw = np.random.default_rng([seed, 2])
    knobs = (
        batch_knob(draw, "sequences", draw.uniform(0.0, 0.25)),
        batch_knob(draw, "tokens", draw.uniform(0.0, 0.25)),
        share_knob("memory", draw.uniform(0.2, 0.9)),
        choice_knob("policy", 2, 0),
        whole_knob(draw, "workers", 0.0),
    )
    shift, floor = draw.uniform(-0.15, 0.15), draw.uniform(0.15, 0.3)
    late = draw.uniform(0.1, 0.4)  # what too large a step costs
    policy = chosen(draw_factors(draw, 2, 0, draw.uniform(1.0, 1.15)))
    workers = saturating(draw.uniform(0.7, 1.0), draw.uniform(0.3, 0.8))
    first, second = saturating(floor, 0.8), saturating(floor, 0.8)

    def speed(x: Floats) -> Floats:
        bound = smaller(first(x[:, 0]), second(np.clip(x[:, 1] + shift, 0, 1)))
        cost = 1 - late * np.clip(x[:, 1] - 0.75, 0, 1) / 0.25
        memory = 0.85 + 0.15 * smaller(np.clip(x[:, 2], 0.05, 1), 1.05 - 0.5 * x[:, 0])
        return bound * cost * memory * policy(x[:, 3]) * workers(x[:, 4])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + x[:, 2] > bound

    return finish("binding", knobs, speed, fails, draw)


def _choices(seed: int) -> Function:
    """Three choices, one with a value that is refused, a pair that excludes itself, a batch."""
    draw = np.random.default_rng([seed, 3])
    knobs = (
        choice_knob("backend", 4, 0),
        choice_knob("graph", 3, 0),
        flag_knob("split", on=True),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.5)),
        share_knob("memory", draw.uniform(0.5, 0.9)),
    )
    backend = draw_factors(draw, 4, 0, draw.uniform(1.05, 1.4))
    refused = float(draw.choice([i for i in (1, 2, 3) if backend[i] < 1]))
    graph = chosen(draw_factors(draw, 3, 0, draw.uniform(1.0, 1.3)))
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

    return finish("choices", knobs, speed, fails, draw)


def _conditional(seed: int) -> Function:
    """A knob that has an effect only with another's value, and pays only when set well."""
    draw = np.random.default_rng([seed, 4])
    parent = flag_knob("speculate", on=False)
    child = msgspec.structs.replace(
        batch_knob(draw, "guesses", draw.uniform(0.0, 1.0)), needs=("speculate", True)
    )
    knobs = (
        parent,
        child,
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.4)),
        batch_knob(draw, "tokens", 0.5, unset=True),
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

    return finish("conditional", knobs, speed, fails, draw, unset)


def _flat(seed: int) -> Function:
    """Five knobs of which two matter; the default is far from the best."""
    draw = np.random.default_rng([seed, 5])
    knobs = (
        batch_knob(draw, "one", draw.uniform(0.1, 0.9)),
        whole_knob(draw, "two", draw.uniform(0.0, 1.0)),
        batch_knob(draw, "three", draw.uniform(0.0, 0.4)),
        choice_knob("four", 3, 1),
        flag_knob("five", on=bool(draw.random() < 0.5)),
    )
    main = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 1.0))
    if draw.random() < 0.4:
        main = peaked(draw.uniform(0.2, 0.5), draw.uniform(0.5, 0.95), draw.uniform(0.2, 0.4))
    mode = chosen(draw_factors(draw, 3, 1, draw.uniform(1.1, 1.6)))
    which = int(draw.integers(0, 2))

    def speed(x: Floats) -> Floats:
        return main(x[:, 2]) * mode(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 2] + x[:, which] > bound

    return finish("flat", knobs, speed, fails, draw)


def _narrow(seed: int) -> Function:
    """Two knobs with a narrow optimum, off the default; two that slope a little."""
    draw = np.random.default_rng([seed, 6])
    at = draw.uniform(0.3, 0.85, 2)
    start = np.clip(at + draw.choice([-1, 1], 2) * draw.uniform(0.15, 0.4, 2), 0.0, 1.0)
    knobs = (
        batch_knob(draw, "one", start[0]),
        batch_knob(draw, "two", start[1]),
        share_knob("three", draw.uniform(0.2, 0.8)),
        choice_knob("four", 2, 0),
    )
    width = draw.uniform(0.12, 0.25, 2)
    first = peaked(draw.uniform(0.3, 0.6), at[0], width[0])
    second = peaked(draw.uniform(0.3, 0.6), at[1], width[1])
    slope = sloped(draw.uniform(-0.2, 0.2))
    choice = chosen(draw_factors(draw, 2, 0, draw.uniform(0.9, 1.2)))
    sign = draw.choice([-1, 1])

    def speed(x: Floats) -> Floats:
        return first(x[:, 0]) * second(x[:, 1]) * slope(x[:, 2]) * choice(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        other = x[:, 2] if sign > 0 else 1 - x[:, 2]
        near = (np.abs(x[:, 0] - start[0]) < 0.02) & (np.abs(x[:, 1] - start[1]) < 0.02)
        return (x[:, 0] + other > bound) & ~near

    return finish("narrow", knobs, speed, fails, draw)


def _near(seed: int) -> Function:
    """The default is within a few per cent of the best; most changes lose."""
    draw = np.random.default_rng([seed, 7])
    at = draw.uniform(0.4, 0.7, 3)
    start = np.clip(at + draw.uniform(-0.12, 0.12, 3), 0, 1)
    knobs = (
        batch_knob(draw, "one", start[0]),
        batch_knob(draw, "two", start[1]),
        whole_knob(draw, "three", start[2]),
        flag_knob("four", on=True),
        choice_knob("five", 3, 0),
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

    return finish("near", knobs, speed, fails, draw)


def _server(seed: int) -> Function:
    """A server by its arithmetic: steps of prefill and decode, a cache that preempts, a host."""
    draw = np.random.default_rng([seed, 8])
    knobs = (
        batch_knob(draw, "sequences", draw.uniform(0.05, 0.5), unset=bool(draw.random() < 0.3)),
        batch_knob(draw, "tokens", draw.uniform(0.05, 0.5)),
        share_knob("memory", draw.uniform(0.6, 0.9)),
        whole_knob(draw, "servers", 0.0),
        flag_knob("prefixes", on=False),
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

    return finish("server", knobs, speed, fails, draw, unset)


FAMILIES: Mapping[str, Callable[[int], Function]] = {
    "batches": _batches,
    "binding": _binding,
    "choices": _choices,
    "conditional": _conditional,
    "flat": _flat,
    "narrow": _narrow,
    "near": _near,
    "server": _server,
    **OTHERS,
}


def make(family: str, seed: int) -> Function:
    """Return a family's function of that seed; the default starts, and there is more to find."""
    families = {**FAMILIES, **MEMORY, **HELD_OUT, **QUEUES, **WIDE}
    for again in range(50):
        function = families[family](seed + 1000 * again)
        if function.value({}) > 0:
            return function
    raise AssertionError(f"{family}, seed {seed}: no default that starts")
