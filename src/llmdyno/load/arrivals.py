"""Arrivals: when the requests of an open loop are due, drawn before the first one is sent.

Nothing that the server does can move a due time; that is what makes a loop open. The gaps are drawn
at a mean of one and then laid out over time at the rate wanted, so that a rate that grows within
the ramp keeps its distribution. Nothing is rescaled to end at a round time: the number of Poisson
arrivals in a duration varies, as it does in the world.
"""

import math
import random
from collections.abc import Callable
from itertools import count

from llmdyno.spec import Load


def due_times_s(load: Load, rate: float, seed: str) -> list[float]:
    """Return when each request of a level is due, in seconds since its start.

    Args:
        load: its arrival, burstiness, ramp, and its duration or number of requests.
        rate: requests per second once the ramp is over.
        seed: equal seeds give equal times.
    """
    gap = _gaps(load, random.Random(f"arrivals/{seed}"))
    due_s: list[float] = []
    passed = 0.0 if load.arrival == "constant" else gap()  # the first of a constant rate: at once
    for number in count():
        moment_s = _moment_s(passed, rate, load.effective_ramp_s)
        if number == load.requests or (load.requests is None and moment_s >= load.duration_s):
            return due_s
        due_s.append(moment_s)
        passed += gap()
    raise AssertionError("count() does not end")


def _gaps(load: Load, rng: random.Random) -> Callable[[], float]:
    """Return a function that draws the next gap, in mean gaps."""
    if load.arrival == "constant":
        return lambda: 1.0
    if load.arrival == "gamma":
        shape = load.burstiness
        assert shape is not None, "checked by the spec"
        return lambda: rng.gammavariate(shape, 1.0 / shape)
    return lambda: rng.expovariate(1.0)


def _moment_s(passed: float, rate: float, ramp_s: float) -> float:
    """Return after how many seconds so many mean gaps have passed; the rate grows over the ramp."""
    if passed < rate * ramp_s / 2:
        return math.sqrt(2 * ramp_s * passed / rate)
    return passed / rate + ramp_s / 2
