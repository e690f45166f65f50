"""SLOs and predictions: which statistic of which metric a forecast has, and whether it is met."""

from collections.abc import Sequence

import msgspec
import numpy as np

from llmdyno.errors import UsageError
from llmdyno.predict.forecast import Forecast, Range
from llmdyno.results.slo import Slo

_METRICS = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "token_rate", "request_rate")
# Where between p50 and p99 a statistic lies, on a scale of a normal distribution's deviations.
_PLACES = {"mean": 0.0, "p50": 0.0, "p90": 1.2816, "p95": 1.6449, "p99": 2.3263, "max": 2.3263}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is predicted of an SLO at one level."""

    expr: str
    value: float
    met: bool
    margin: float  # limit ÷ value for what is to stay below, value ÷ limit else; 1 is just met


def check_slos(slos: Sequence[Slo]) -> None:
    """Refuse SLOs of metrics that are not predicted.

    Raises:
        UsageError: names the SLO and what is predicted.
    """
    for slo in slos:
        if slo.metric not in _METRICS:
            raise UsageError(
                f"--slo {slo.expr}: is not predicted; dyno plan knows ttft, tpot, itl, e2e,"
                " token_rate and request_rate."
            )


def judge(slo: Slo, forecast: Forecast, osl: float) -> Verdict:
    """Judge the prediction of one level; rates are those of all copies of the server."""
    value = _value(slo, forecast, osl)
    if slo.relation == "<":
        margin = slo.limit / value if value > 0 else float("inf")
    else:
        margin = value / slo.limit if slo.limit > 0 else float("inf")
    return Verdict(expr=slo.expr, value=value, met=margin > 1, margin=margin)


def margins(
    slos: Sequence[Slo], token_rate: np.ndarray, ttft_s: np.ndarray, tpot_s: np.ndarray, osl: float
) -> np.ndarray:
    """Return the least margin of the SLOs by the coarse pass, which knows no tails; a value each.

    It only orders configs: a tail is about as many times the median of one as of another.
    """
    values = {
        "ttft_ms": ttft_s * 1e3,
        "tpot_ms": tpot_s * 1e3,
        "itl_ms": tpot_s * 1e3,
        "e2e_ms": (ttft_s + (osl - 1) * tpot_s) * 1e3,
        "token_rate": token_rate,
        "request_rate": token_rate / osl,
    }
    found = [
        slo.limit / np.maximum(values[slo.metric], 1e-9)
        if slo.relation == "<"
        else values[slo.metric] / max(slo.limit, 1e-9)
        for slo in slos
    ]
    return np.asarray(np.min(found, axis=0))


def _value(slo: Slo, forecast: Forecast, osl: float) -> float:
    if slo.metric == "token_rate":
        return forecast.token_rate.mean
    if slo.metric == "request_rate":
        return forecast.token_rate.mean / osl
    if slo.metric == "ttft_ms":
        return _between(forecast.ttft_ms_p50, forecast.ttft_ms_p99.mean, slo.stat)
    if slo.metric == "e2e_ms":
        tail = forecast.ttft_ms_p99.mean - forecast.ttft_ms_p50.mean
        return _between(forecast.e2e_ms_p50, forecast.e2e_ms_p50.mean + max(0.0, tail), slo.stat)
    # The spread of TPOT between requests is not simulated: its interval stands for it.
    return _between(forecast.tpot_ms_p50, forecast.tpot_ms_p50.ci80[1], slo.stat)


def _between(middle: Range, tail: float, stat: str) -> float:
    low = max(middle.mean, 1e-9)
    return float(low * (max(tail, low) / low) ** (_PLACES[stat] / _PLACES["p99"]))
