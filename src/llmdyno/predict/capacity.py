"""How many requests a second one copy of a server takes, and how many copies each rate needs."""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.coarse import CoarseAnswer
from llmdyno.predict.copies import Level
from llmdyno.predict.document import number, price
from llmdyno.predict.forecast import Forecast, coarse, forecast
from llmdyno.predict.judged import judge
from llmdyno.predict.options import Option, point_of

_KEEPS_UP = 0.98  # of the tokens that are asked for; less: the queue grows
_CROWD = 1000  # users who leave a server no rest
_REQUESTS_LONG = 4  # times as long as a request takes at half the rate: as many end as begin
_NEAR = 1.02  # two rates so close are one
_STEP = 1.25  # to the next rate while none, or no other, is known to be too much
_LOOKS = 40  # at most
_FEWEST = 1e-6  # requests a second; fewer are none


def capacity(plan: Plan, option: Option, calibration: Calibration) -> dict[str, Any]:
    """Return the requests a second that one copy takes under the SLOs, and what each rate needs.

    It is the highest rate at which the simulated server keeps up and meets the SLOs of latencies,
    to 2 %.
    """
    found = _highest(plan, option, calibration)
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
    """Return the highest rate that one copy holds; 0: none."""
    slos = [slo for slo in plan.slos if "rate" not in slo.metric]
    first, duration_s = _guess(plan, option, calibration)
    lasting = msgspec.structs.replace(plan, duration_s=duration_s)

    def at(rate: float, arrival: str) -> Forecast:
        point = point_of(lasting, option.site, (None, rate))
        point = msgspec.structs.replace(point, arrival=arrival)
        return forecast(option.setup, point, calibration)

    def keeps_up(rate: float) -> bool:
        one = at(rate, "constant")  # the luck of a draw would look like a queue
        return one.token_rate.mean >= _KEEPS_UP * rate * one.point.osl.typical

    def meets(rate: float) -> bool:
        one = at(rate, "poisson")
        return all(judge(slo, one, one.point.osl.typical).met for slo in slos)

    most = _bisect(keeps_up, first)
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
        if low >= most or high <= max(low * _NEAR, _FEWEST):
            break
        if low and high < math.inf:
            rate = math.sqrt(low * high)
        else:
            rate, step = min(most, low * step) if low else high / step, step * step
    return low


def _guess(plan: Plan, option: Option, calibration: Calibration) -> tuple[float, float]:
    """Return about the most that a server takes, and how long a load must be to show it."""

    def about(level: Level) -> CoarseAnswer:
        return coarse([option.setup], point_of(plan, option.site, level), calibration)

    osl = point_of(plan, option.site, (_CROWD, None)).osl.typical
    rate = max(_FEWEST, float(about((_CROWD, None)).token_rate[0]) / osl)
    calm = about((None, rate / 2))
    request_s = float(calm.ttft_s[0] + osl * calm.tpot_s[0])
    return rate, max(plan.duration_s, _REQUESTS_LONG * request_s)
