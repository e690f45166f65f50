"""Arrivals: when the requests of an open loop are due, drawn before the first one is sent.

The server cannot move a due time; that is what makes a loop open. plan.py asks for the times of a
level, open_loop.py keeps to them. The gaps are drawn with a mean of one and then placed in time at
the wanted rate, so they keep their distribution while the rate grows over the ramp. The times are
not rescaled to fill the duration: the number of Poisson arrivals varies, as it does in practice.
"""

import math
import random
from collections.abc import Callable
from itertools import count

from llmdyno.spec import Load


def due_times_s(load: Load, rate: float, seed: str) -> list[float]:
    """Return when each request of a level is due, in seconds since its start, ascending.

    Args:
        load: of it are used: arrival, burstiness, ramp, and the duration or number of requests.
        rate: requests per second once the ramp is over.
        seed: equal seeds give equal times.
    """
    gap = _gaps(load, random.Random(f"arrivals/{seed}"))
    due_s: list[float] = []
    passed = 0.0 if load.arrival == "constant" else gap()  # constant: the first is due at once
    for number in count():
        moment_s = _moment_s(passed, rate, load.effective_ramp_s)
        if number == load.requests or (load.requests is None and moment_s >= load.duration_s):
            return due_s
        due_s.append(moment_s)
        passed += gap()
    raise AssertionError("count() does not end")


def _gaps(load: Load, rng: random.Random) -> Callable[[], float]:
    """Return a function that draws the next gap, in units of the mean gap."""
    if load.arrival == "constant":
        return lambda: 1.0
    if load.arrival == "gamma":
        shape = load.burstiness
        assert shape is not None, "checked by the spec"
        return lambda: rng.gammavariate(shape, 1.0 / shape)
    return lambda: rng.expovariate(1.0)


def _moment_s(passed: float, rate: float, ramp_s: float) -> float:
    """Return after how many seconds so many mean gaps have passed.

    The rate grows linearly over the ramp: passed(t) = rate x t^2 / (2 x ramp_s), and after it
    passed(t) = rate x (t - ramp_s / 2).
    """
    if passed < rate * ramp_s / 2:
        return math.sqrt(2 * ramp_s * passed / rate)
    return passed / rate + ramp_s / 2
