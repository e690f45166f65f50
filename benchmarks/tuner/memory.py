"""Two families in which memory is a product: a choice says how much of it a batch takes.

They are in view: what is known of failures (search/feasibility.py) was chosen on them and on the
twelve, so that `split` and `plateau` of held_out.py can show whether it holds elsewhere.
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
    sloped,
)


def _parallel(seed: int) -> Function:
    """Weights and cache over 1, 2, 4 or 8 GPUs, within a share of each one's memory."""
    draw = np.random.default_rng([seed, 31])
    knobs = (
        choice_knob("gpus", 4, int(draw.integers(0, 3))),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.4)),
        batch_knob(draw, "tokens", draw.uniform(0.1, 0.5)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
    )
    weights, cache, room = draw.uniform(0.2, 1.0), draw.uniform(0.5, 1.5), draw.uniform(0.2, 0.6)
    speeds = np.cumprod([1.0, *draw.uniform(0.85, 1.6, 3)])
    sequences = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 0.9))
    tokens = peaked(draw.uniform(0.5, 0.8), draw.uniform(0.3, 0.9), draw.uniform(0.3, 0.6))

    def speed(x: Floats) -> Floats:
        rate = speeds[x[:, 0].astype(int)] / speeds.max()
        return rate * sequences(x[:, 1]) * tokens(x[:, 2]) * (0.95 + 0.05 * x[:, 3])

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        held = (weights + cache * 2 ** (4 * x[:, 1] - 4)) / 2 ** x[:, 0]
        need = held + room * 2 ** (3 * x[:, 2] - 3)
        return need > bound * (0.5 + 0.45 * x[:, 3])

    return finish("parallel", knobs, speed, fails, draw)


def _formats(seed: int) -> Function:
    """Formats of weights and cache take 1, 1/2 or 1/4 of the memory, in no order."""
    draw = np.random.default_rng([seed, 32])
    knobs = (
        choice_knob("weights", 3, 0),
        flag_knob("small_cache", on=bool(draw.random() < 0.5)),
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.4)),
        batch_knob(draw, "length", draw.uniform(0.1, 0.5)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
    )
    taken = draw.permutation([1.0, 0.5, 0.25])
    heavy, cache = draw.uniform(0.3, 1.2), draw.uniform(0.5, 1.5)
    weights = chosen(draw_factors(draw, 3, 0, draw.uniform(1.0, 1.4)))
    small = chosen(np.array([1.0, draw.uniform(0.85, 1.1)]))
    sequences = saturating(draw.uniform(0.2, 0.5), draw.uniform(0.4, 0.9))
    length, share = sloped(draw.uniform(-0.3, 0.3)), sloped(draw.uniform(-0.1, 0.0))

    def speed(x: Floats) -> Floats:
        numbers = sequences(x[:, 2]) * length(x[:, 3]) * share(x[:, 4])
        return weights(x[:, 0]) * small(x[:, 1]) * numbers

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        held = cache * 2 ** (3 * x[:, 2] + 2 * x[:, 3] - 5) * (1 - 0.5 * x[:, 1])
        need = heavy * taken[x[:, 0].astype(int)] + held
        return need > bound * (0.5 + 0.45 * x[:, 4])

    return finish("formats", knobs, speed, fails, draw)


MEMORY: Mapping[str, Callable[[int], Function]] = {"parallel": _parallel, "formats": _formats}
