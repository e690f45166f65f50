"""Four more families, of other kinds than the first eight.

They hold what the first eight do not: values that fall steeply before the space ends, knobs that
pay only together, a ridge that crosses the axes, a choice with which another knob's optimum moves.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
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
    smaller,
    whole_knob,
)


def _cliff(seed: int) -> Function:
    """Batches that gain until memory is full; beyond, a cliff, and only then what fails."""
    draw = np.random.default_rng([seed, 11])
    knobs = (
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.4)),
        batch_knob(draw, "tokens", draw.uniform(0.2, 0.6)),
        whole_knob(draw, "streams", draw.uniform(0.0, 0.5)),
        share_knob("memory", draw.uniform(0.5, 0.9)),
        flag_knob("graphs", on=bool(draw.random() < 0.5)),
    )
    sequences = saturating(draw.uniform(0.15, 0.4), draw.uniform(0.5, 1.1))
    tokens = peaked(draw.uniform(0.5, 0.8), draw.uniform(0.3, 0.8), draw.uniform(0.3, 0.5))
    streams = saturating(draw.uniform(0.7, 0.95), draw.uniform(0.3, 0.8))
    graphs = chosen(np.array([draw.uniform(0.75, 0.98), 1.0])[:: draw.choice([1, -1])])
    room, depth = draw.uniform(0.45, 0.8), draw.uniform(0.3, 0.7)

    def speed(x: Floats) -> Floats:
        over = x[:, 0] - room - 0.4 * x[:, 3]
        cliff = 1 - depth / (1 + np.exp(-np.clip(over / 0.015, -50, 50)))
        return sequences(x[:, 0]) * tokens(x[:, 1]) * streams(x[:, 2]) * graphs(x[:, 4]) * cliff

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 3] + 0.7 * x[:, 1] + 0.2 * x[:, 0] > bound

    return finish("cliff", knobs, speed, fails, draw)


def _together(seed: int) -> Function:
    """Two knobs that lose alone and gain together, beside a batch knob."""
    draw = np.random.default_rng([seed, 12])
    knobs = (
        flag_knob("overlap", on=False),
        choice_knob("kernel", 3, 0),
        batch_knob(draw, "sequences", draw.uniform(0.05, 0.5)),
        whole_knob(draw, "streams", draw.uniform(0.2, 0.8)),
        share_knob("memory", draw.uniform(0.3, 0.9)),
    )
    gain = draw.uniform(1.2, 1.7)
    partner = int(draw.integers(1, 3))
    table = np.ones((2, 3)) * np.array([1.0, *draw.uniform(0.8, 1.0, 2)])
    table[1] *= draw.uniform(0.85, 1.0, 3)
    table[1, partner] = gain
    sequences = saturating(draw.uniform(0.2, 0.6), draw.uniform(0.4, 1.0))
    streams = peaked(draw.uniform(0.6, 0.9), draw.uniform(0.1, 0.9), draw.uniform(0.25, 0.5))

    def speed(x: Floats) -> Floats:
        pair = table[x[:, 0].astype(int), x[:, 1].astype(int)] / gain
        return pair * sequences(x[:, 2]) * streams(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 2] + 0.8 * x[:, 4] > bound

    return finish("together", knobs, speed, fails, draw)


def _ridge(seed: int) -> Function:
    """A plateau with a tall ridge: two batch knobs must keep a ratio, and both may grow."""
    draw = np.random.default_rng([seed, 13])
    ratio, width = draw.uniform(-0.25, 0.25), draw.uniform(0.1, 0.2)
    one = draw.uniform(0.1, 0.4)
    off = draw.choice([-1, 1]) * draw.uniform(0.1, 0.3)
    knobs = (
        batch_knob(draw, "one", one),
        batch_knob(draw, "two", float(np.clip(one + ratio + off, 0, 1))),
        whole_knob(draw, "three", draw.uniform(0.0, 1.0)),
        choice_knob("four", 3, 0),
    )
    plateau = draw.uniform(0.4, 0.7)
    grown = saturating(draw.uniform(0.5, 0.8), draw.uniform(0.4, 0.9))
    four = chosen(draw_factors(draw, 3, 0, draw.uniform(1.0, 1.3)))

    def speed(x: Floats) -> Floats:
        ridge = plateau + (1 - plateau) * np.exp(-(((x[:, 1] - x[:, 0] - ratio) / width) ** 2) / 2)
        return ridge * grown(x[:, 0]) * four(x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + x[:, 1] > bound

    return finish("ridge", knobs, speed, fails, draw)


def _five(seed: int) -> Function:
    """A choice of five, each with its own optimum of a batch knob; two numbers that bind."""
    draw = np.random.default_rng([seed, 14])
    knobs = (
        choice_knob("backend", 5, 0),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.6)),
        batch_knob(draw, "tokens", draw.uniform(0.1, 0.5)),
        whole_knob(draw, "workers", draw.uniform(0.0, 0.5)),
    )
    backend = draw_factors(draw, 5, 0, draw.uniform(1.05, 1.5))
    optima = np.clip(draw.uniform(0.4, 0.8) + draw.uniform(-0.2, 0.2, 5), 0, 1)
    floor, width = draw.uniform(0.4, 0.7), draw.uniform(0.25, 0.4)
    tokens = saturating(draw.uniform(0.3, 0.6), draw.uniform(0.4, 0.9))
    workers = saturating(draw.uniform(0.4, 0.7), draw.uniform(0.3, 0.8))
    refused = float(draw.choice([i for i in range(1, 5) if backend[i] < 1]))

    def speed(x: Floats) -> Floats:
        which = x[:, 0].astype(int)
        fit = floor + (1 - floor) * np.exp(-(((x[:, 1] - optima[which]) / width) ** 2) / 2)
        return backend[which] * fit * smaller(tokens(x[:, 2]), workers(x[:, 3]))

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return ((x[:, 0] == refused) & (x[:, 2] > 0.3)) | (x[:, 1] + x[:, 2] > bound)

    return finish("five", knobs, speed, fails, draw)


OTHERS: Mapping[str, Callable[[int], Function]] = {
    "cliff": _cliff,
    "together": _together,
    "ridge": _ridge,
    "five": _five,
}
