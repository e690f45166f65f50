"""How many requests a second one copy of a server takes, and how many copies each rate needs."""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.document import number, price
from llmdyno.predict.forecast import Point, forecast
from llmdyno.predict.judged import judge
from llmdyno.predict.keeping_up import FEWEST, about_most, keeps_up, lasting
from llmdyno.predict.options import Option, point_of
from llmdyno.predict.server import parts_of

_NEAR = 1.02  # two rates so close are one
_STEP = 1.25  # to the next rate while none, or no other, is known to be too much
_LOOKS = 40  # at most


def capacity(plan: Plan, option: Option, calibration: Calibration) -> dict[str, Any]:
    """Return the requests a second that one copy takes under the SLOs, and what each rate needs.

    It is the highest rate at which the simulated server keeps up and meets the SLOs of latencies,
    to 2 %.
    """
    found = _highest(plan, option, calibration) * parts_of(option.setup)
    an_hour, needs = price(plan, option.site.gpu), []
    for rate in plan.rates if found > 0 else ():
        copies = math.ceil(rate / found)
        gpus = copies * option.gpus_each
        need: dict[str, Any] = {"request_rate": rate, "replicas": copies, "gpus": gpus}
        if an_hour is not None:
            need["price_per_h"] = number(an_hour * gpus)
        needs.append(need)
    return {"request_rate_each": number(found), "gpus_each": option.gpus_each, "needs": needs}


def _highest(plan: Plan, option: Option, calibration: Calibration) -> float:
    """Return the highest rate that one part of a copy holds; 0: none."""
    slos = [slo for slo in plan.slos if "rate" not in slo.metric]
    point = point_of(plan, option.site, (None, 1.0))
    first = about_most(option.setup, point, calibration)
    long = lasting(option.setup, point, first, calibration)

    def at(rate: float) -> Point:
        return msgspec.structs.replace(long, request_rate=rate)

    def holds(rate: float) -> bool:
        return keeps_up(option.setup, at(rate), calibration)

    def meets(rate: float) -> bool:
        one = forecast(option.setup, at(rate), calibration)
        return all(judge(slo, one, one.point.osl.typical).met for slo in slos)

    most = _bisect(holds, first)
    return _bisect(meets, most, most) if slos and most else most


def _bisect(holds: Callable[[float], bool], rate: float, most: float = math.inf) -> float:
    """Return the highest rate that holds, to 2 %; 0: none.

    Args:
        holds: whether a rate does; if it does, so do lower ones.
        rate: to begin with.
        most: no higher rate is looked at.
    """
    low, high, step = 0.0, math.inf, _STEP
    for _ in range(_LOOKS):
        if holds(rate):
            low = rate
        else:
            high = rate
        if low >= most or high <= max(low * _NEAR, FEWEST):
            break
        if low and high < math.inf:
            rate = math.sqrt(low * high)
        else:
            rate, step = min(most, low * step) if low else high / step, step * step
    return low
