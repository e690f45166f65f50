"""Two more families that are held out: a server as queues and stages, not as a product of effects.

They were written before a model of the value with a server's structure was tried, and no constant
was chosen on them. They hold what the others do not: a closed queue whose rate depends on users,
a cache that computes again what it gave up, stages of which the slowest counts or all add up.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from parts import (
    Floats,
    Function,
    batch_knob,
    choice_knob,
    finish,
    flag_knob,
    share_knob,
    whole_knob,
)


def _queue(seed: int) -> Function:
    """Users in a closed loop, a batch, a step's tokens, a cache that preempts, sizes of blocks."""
    draw = np.random.default_rng([seed, 41])
    knobs = (
        batch_knob(draw, "sequences", draw.uniform(0.1, 0.6)),
        batch_knob(draw, "tokens", draw.uniform(0.1, 0.7)),
        share_knob("memory", draw.uniform(0.4, 0.9)),
        choice_knob("block", 3, int(draw.integers(0, 3))),
        flag_knob("swap", on=False),
    )
    users, think = 2 ** draw.uniform(4, 8), draw.uniform(0.0, 0.5)
    prompts = 2 ** draw.uniform(-1, 4)  # prompt tokens for each of an answer
    place = 2 ** draw.uniform(3.5, 6.5)  # sequences that a middling cache holds
    fixed, each, work = draw.uniform(5, 20), draw.uniform(0.05, 0.3), draw.uniform(0.01, 0.1)
    padding = draw.uniform(0.0, 0.004)  # of a step, for each token that it may have
    wasted, slower = draw.uniform(0.0, 0.3, 3), 1 + draw.uniform(0.0, 0.3, 3)
    again = draw.uniform(0.3, 2.0, 2)  # what giving up a sequence costs, computed anew or swapped

    def speed(x: Floats) -> Floats:
        block = x[:, 3].astype(int)
        running = np.minimum(2 ** (1 + 7 * x[:, 0]), users)
        tokens = 2 ** (4 + 8 * x[:, 1])
        held = place * (0.4 + 1.2 * x[:, 2]) * (1 - wasted[block])
        over = np.clip(running / held - 1, 0, None)
        repeated = 1 + again[x[:, 4].astype(int)] * over / (1 + over)
        wanted = running * (1 + prompts * repeated)
        served = running * np.minimum(1.0, tokens / wanted)
        step = fixed + slower[block] * each * served + work * served * prompts * repeated
        rate = served / repeated / (step + padding * tokens)
        return 1 / (1 / rate + think * fixed / users)

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return 1.1 * x[:, 2] + 0.6 * x[:, 1] + 0.15 * x[:, 4] > bound

    return finish("queue", knobs, speed, fails, draw)


def _stages(seed: int) -> Function:
    """A host, a device, a stream out: one after the other, or, overlapped, as fast as one."""
    draw = np.random.default_rng([seed, 42])
    knobs = (
        whole_knob(draw, "workers", draw.uniform(0.0, 0.4)),
        batch_knob(draw, "interval", draw.uniform(0.0, 0.4)),
        choice_knob("split", 3, 0),
        flag_knob("overlap", on=False),
        batch_knob(draw, "batch", draw.uniform(0.05, 0.5)),
    )
    host, out, device = draw.uniform(0.3, 1.5), draw.uniform(0.1, 0.8), draw.uniform(0.6, 1.5)
    cores, fight = draw.uniform(0.3, 1.0), draw.uniform(0.0, 0.8)
    start, spill = draw.uniform(0.5, 4.0), draw.uniform(0.0, 1.0)
    talk = draw.uniform(0.05, 0.3)  # between devices, for each doubling
    bursts, extra = draw.uniform(0.0, 0.4), draw.uniform(1.0, 1.15)
    relief = draw.uniform(0.1, 0.3)

    def speed(x: Floats) -> Floats:
        at_work = 1 + 7 * np.minimum(x[:, 0], cores)
        crowd = 1 + fight * np.clip(x[:, 0] - cores, 0, None)
        overlaps = x[:, 3] > 0
        first = host * crowd / at_work * np.where(overlaps, extra, 1.0)
        last = out / 2 ** (5 * x[:, 1]) + 0.02 + bursts * np.clip(x[:, 1] - 0.6, 0, None)
        cut = x[:, 2]
        size = 2 ** (6 * x[:, 4])
        once = start / size + 1 + spill * np.clip(x[:, 4] - 0.1 * cut - 0.7, 0, None)
        middle = device * once / 2**cut * 0.5 + talk * cut * 0.3
        together = np.maximum(np.maximum(first, last), middle)
        return 1 / np.where(overlaps, together, first + middle + last)

    def fails(x: Floats, bound: float) -> NDArray[np.bool_]:
        return x[:, 4] + 0.25 * x[:, 3] + 0.2 * x[:, 0] - relief * x[:, 2] > bound - 0.4

    return finish("stages", knobs, speed, fails, draw)


QUEUES: Mapping[str, Callable[[int], Function]] = {"queue": _queue, "stages": _stages}
