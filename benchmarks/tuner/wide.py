"""Four families of seven to nine knobs, as many as users search.

`sparse` and `every` are two ends of the same: few knobs matter, or all do a little. `layers` has
pairs that bind, `deployed` choices on which others hang. They were written before anything was
tried on them; what was chosen since was judged on other seeds of them.
"""

from collections.abc import Callable, Mapping

import msgspec
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
    sloped,
    smaller,
    whole_knob,
)


def _sparse(seed: int) -> Function:
    """Eight knobs: a batch, a choice and a peak matter, wherever they stand, the rest hardly."""
    draw = np.random.default_rng([seed, 51])
    knobs = (
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.5)),
        batch_knob(draw, "tokens", draw.uniform(0.2, 0.7)),
        batch_knob(draw, "block", draw.uniform(0.2, 0.8)),
        whole_knob(draw, "workers", draw.uniform(0.0, 0.6)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
        choice_knob("backend", 4, 0),
        choice_knob("policy", 3, 0),
        flag_knob("graphs", on=bool(draw.random() < 0.5)),
    )
    numbers = [sloped(draw.uniform(-0.04, 0.04)) for _ in range(5)]
    batch, peak = draw.permutation(5)[:2]
    numbers[batch] = saturating(draw.uniform(0.25, 0.5), draw.uniform(0.4, 0.9))
    width = draw.uniform(0.25, 0.5)
    numbers[peak] = peaked(draw.uniform(0.5, 0.8), draw.uniform(0.2, 0.9), width)
    big, small = draw.uniform(1.15, 1.5), draw.uniform(1.0, 1.03)
    backend = draw_factors(draw, 4, 0, big)
    policy = 1 - draw.uniform(0.0, 0.03, 3)
    if draw.random() < 0.5:
        backend = 1 - draw.uniform(0.0, 0.03, 4)
        policy = draw_factors(draw, 3, 0, big)
    graphs = np.array([1.0, 1 / small])[:: draw.choice([1, -1])]

    def speed(x: Floats) -> Floats:
        found = backend[x[:, 5].astype(int)] * policy[x[:, 6].astype(int)]
        for number, effect in enumerate(numbers):
            found = found * effect(x[:, number])
        return found * graphs[x[:, 7].astype(int)]

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 0] + 0.5 * x[:, 1] + 0.5 * x[:, 4] > bound

    return finish("sparse", knobs, speed, fails, draw)


def _every(seed: int) -> Function:
    """Nine knobs, each of which matters by 5 to 25 %."""
    draw = np.random.default_rng([seed, 52])
    knobs = (
        batch_knob(draw, "one", draw.uniform(0.1, 0.6)),
        batch_knob(draw, "two", draw.uniform(0.1, 0.6)),
        batch_knob(draw, "three", draw.uniform(0.1, 0.6)),
        whole_knob(draw, "four", draw.uniform(0.0, 1.0)),
        share_knob("five", draw.uniform(0.3, 0.9)),
        choice_knob("six", 3, 0),
        choice_knob("seven", 2, 0),
        flag_knob("eight", on=bool(draw.random() < 0.5)),
        flag_knob("nine", on=bool(draw.random() < 0.5)),
    )
    floors = 1 - draw.uniform(0.05, 0.25, 9)
    numbers = [
        saturating(floor, draw.uniform(0.3, 0.9))
        if draw.random() < 0.5
        else peaked(floor, draw.uniform(0.1, 0.9), draw.uniform(0.3, 0.5))
        for floor in floors[:5]
    ]
    table = [np.append(1.0, draw.uniform(floor, 1.0, 2)) for floor in floors[5:]]
    table[0] = table[0][draw.permutation(3)]
    choices = [table[0], *(one[:2][:: draw.choice([1, -1])] for one in table[1:])]

    def speed(x: Floats) -> Floats:
        found = np.ones(len(x))
        for number, effect in enumerate(numbers):
            found = found * effect(x[:, number])
        for number, factors in enumerate(choices, start=5):
            found = found * factors[x[:, number].astype(int)]
        return found

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return 0.8 * x[:, 0] + 0.8 * x[:, 1] + 0.3 * x[:, 4] > bound

    return finish("every", knobs, speed, fails, draw)


def _layers(seed: int) -> Function:
    """Seven knobs of three layers: host, scheduler, kernel; in each the smaller limit binds."""
    draw = np.random.default_rng([seed, 53])
    knobs = (
        whole_knob(draw, "servers", draw.uniform(0.0, 0.3)),
        batch_knob(draw, "interval", draw.uniform(0.0, 0.5)),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.5)),
        batch_knob(draw, "tokens", draw.uniform(0.1, 0.5)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
        choice_knob("kernel", 4, 0),
        flag_knob("compile", on=bool(draw.random() < 0.3)),
    )
    floors = draw.uniform(0.3, 0.6, 4)
    ats = draw.uniform(0.3, 0.8, 4)
    effects = [saturating(floor, at) for floor, at in zip(floors, ats, strict=True)]
    room = draw.uniform(0.1, 0.4)
    kernel = chosen(draw_factors(draw, 4, 0, draw.uniform(1.0, 1.35)))
    compiled = np.array([draw.uniform(0.75, 0.95), 1.0])
    refused = float(draw.integers(1, 4))
    host = draw.uniform(0.8, 1.3)

    def speed(x: Floats) -> Floats:
        front = host * smaller(effects[0](x[:, 0]), effects[1](x[:, 1]))
        memory = 1 - room * np.clip(x[:, 2] - x[:, 4], 0, 1)
        device = smaller(effects[2](x[:, 2]) * memory, effects[3](x[:, 3]))
        device = device * kernel(x[:, 5]) * compiled[x[:, 6].astype(int)]
        return smaller(front, device)

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        crowded = x[:, 4] + 0.6 * x[:, 3] + 0.3 * x[:, 2] > bound
        return crowded | ((x[:, 5] == refused) & (x[:, 6] > 0))

    return finish("layers", knobs, speed, fails, draw)


def _deployed(seed: int) -> Function:
    """Eight knobs: GPUs that are cut and the memory of each, guesses ahead, a cache of prefixes."""
    draw = np.random.default_rng([seed, 54])
    speculate = flag_knob("speculate", on=False)
    guesses = msgspec.structs.replace(
        batch_knob(draw, "guesses", draw.uniform(0.1, 0.9)), needs=("speculate", True)
    )
    knobs = (
        choice_knob("gpus", 3, 0),
        speculate,
        guesses,
        flag_knob("prefixes", on=False),
        choice_knob("backend", 3, 0),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.5)),
        batch_knob(draw, "tokens", draw.uniform(0.2, 0.6)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
    )
    cuts = np.cumprod([1.0, *draw.uniform(0.85, 1.3, 2)])
    cuts = cuts / cuts.max()
    off = draw.uniform(0.7, 1.1)
    ahead = peaked(draw.uniform(0.6, 0.9), draw.uniform(0.2, 0.8), draw.uniform(0.25, 0.5))
    reuse = np.array([draw.uniform(0.6, 1.0), 1.0])
    backend = chosen(draw_factors(draw, 3, 0, draw.uniform(1.0, 1.25)))
    sequences = saturating(draw.uniform(0.3, 0.5), draw.uniform(0.5, 1.0))
    tokens = peaked(draw.uniform(0.6, 0.85), draw.uniform(0.3, 0.8), draw.uniform(0.3, 0.5))
    relief = draw.uniform(0.1, 0.3)

    def speed(x: Floats) -> Floats:
        guess = np.where(x[:, 1] > 0, ahead(x[:, 2]), off)
        numbers = sequences(x[:, 5]) * tokens(x[:, 6])
        choices = cuts[x[:, 0].astype(int)] * backend(x[:, 4]) * reuse[x[:, 3].astype(int)]
        return guess * numbers * choices

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        held = x[:, 5] + 0.4 * x[:, 6] + 0.1 * x[:, 1] - relief * x[:, 0]
        return (held > bound) | (x[:, 7] + 0.5 * x[:, 6] > bound + 0.2)

    return finish("deployed", knobs, speed, fails, draw)


WIDE: Mapping[str, Callable[[int], Function]] = {
    "sparse": _sparse,
    "every": _every,
    "layers": _layers,
    "deployed": _deployed,
}
