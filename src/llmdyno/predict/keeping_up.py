"""Whether a server keeps up with a request rate, or its queue grows for as long as it is asked."""

import msgspec

from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.forecast import Forecast, Point, Setup, coarse, forecast

_CROWD = 1000  # users who leave a server no rest
_FAR = 2.0  # times the most that a server takes by the coarse pass: surely too much
FEWEST = 1e-6  # requests a second; fewer are none
_SHARE = 0.98  # of the tokens that are asked for; less: the queue grows
_REQUESTS_LONG = 4  # times as long as a request takes at half the rate: as many end as begin


def keeps_up(setup: Setup, point: Point, calibration: Calibration) -> bool:
    """Return whether a server makes as many tokens as are asked of it, to 2 %.

    Args:
        setup: the server.
        point: its load, in an open loop; requests come evenly here, as the luck of a draw would
            look like a queue.
        calibration: of the predictor.
    """
    even = msgspec.structs.replace(point, arrival="constant")
    return makes_enough(forecast(setup, even, calibration))


def kept_up(setup: Setup, one: Forecast, calibration: Calibration) -> bool:
    """Return whether the server of a forecast keeps up with its request rate; users it always does.

    A forecast that has the tokens shows it, and a rate far above the most is not simulated. Else
    the same rate is asked evenly, for long enough to show it.
    """
    point, rate = one.point, one.point.request_rate
    if rate is None or not one.fits or makes_enough(one):
        return True
    most = about_most(setup, point, calibration)
    if rate > _FAR * most:
        return False
    return keeps_up(setup, lasting(setup, point, min(rate, most), calibration), calibration)


def makes_enough(one: Forecast) -> bool:
    """Return whether a forecast of an open loop has the tokens that are asked for, to 2 %."""
    asked = (one.point.request_rate or 0.0) * one.point.osl.typical
    return one.token_rate.mean >= _SHARE * asked


def about_most(setup: Setup, point: Point, calibration: Calibration) -> float:
    """Return about the most requests a second that a server takes, by the coarse pass."""
    crowd = msgspec.structs.replace(point, users=_CROWD, request_rate=None)
    found = coarse([setup], crowd, calibration)
    return max(FEWEST, float(found.token_rate[0]) / crowd.osl.typical)


def lasting(setup: Setup, point: Point, rate: float, calibration: Calibration) -> Point:
    """Return a load that is long enough to show whether a server keeps up with it.

    Args:
        setup: the server.
        point: the load, in an open loop.
        rate: about the most requests a second that the server could be asked for.
        calibration: of the predictor.
    """
    half = msgspec.structs.replace(point, request_rate=rate / 2)
    calm = coarse([setup], half, calibration)
    request_s = float(calm.ttft_s[0] + point.osl.typical * calm.tpot_s[0])
    duration_s = max(point.duration_s, _REQUESTS_LONG * request_s)
    return msgspec.structs.replace(point, duration_s=duration_s)
