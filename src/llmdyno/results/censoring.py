"""Statistics of a latency that some requests had not reached when the window ended.

Such a request says no more than that its value is greater than what it had waited (it is right-
censored). Without them p50 and p99 are those of the quicker requests: with a server of two places
and four users, two users wait, and p99 is that of the other two.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmdyno.results.observations import Values
from llmdyno.results.stats import STATISTICS, Floats, significant
from llmdyno.results.survival import Survival, survival

# With a larger share of censored requests the plain percentiles mislead, however short the waits.
_SHARE_MAX = 0.01


def censoring(observed: Values, p99: float | None) -> dict[str, Any]:
    """Return the keys that a latency's document has for its censored requests; none: no such keys.

    `kaplan_meier` has the statistics that count them by Kaplan and Meier; null where that would
    change nothing. `moved` names those that differ from what the same estimate gives without them
    (it does not interpolate, so the plain percentiles differ by themselves). A statistic is null
    where it lies beyond all that was seen: then `at_least` has its lower bound, and
    `answered_later` what it is if each request counts with the value that it had in the end, after
    the window; null if it never had one.

    Args:
        observed: with what was censored.
        p99: of the observed values alone; None: there are none.
    """
    if observed.censored is None:
        return {}
    values, waits = observed.values.astype(np.float64), observed.censored.astype(np.float64)
    count, longest = len(waits), float(waits.max(initial=0.0))
    document: dict[str, Any] = {"censored": count, "kaplan_meier": None}
    if not count:
        return document
    document["censored_ms_max"] = significant(longest)
    if count <= _SHARE_MAX * (len(values) + count) and p99 is not None and longest <= p99:
        return document
    curve, alone = survival(values, waits), survival(values, np.zeros(0))
    counted = {name: _of(curve, one.share) for name, one in STATISTICS.items()}
    document["kaplan_meier"] = counted
    document["moved"] = [
        name for name, one in STATISTICS.items() if counted[name] != _of(alone, one.share)
    ]
    if None in counted.values():
        document["at_least"] = {
            name: significant(curve.mean_at_least() if one.share is None else curve.last)
            for name, one in STATISTICS.items()
            if counted[name] is None
        }
        document["answered_later"] = _answered_later(observed, values)
    return document


def _answered_later(observed: Values, values: Floats) -> Mapping[str, float | None]:
    """Return the statistics with the values that the censored requests had after the window."""
    assert observed.censored is not None, "there are such requests"
    never = np.full(len(observed.censored), np.inf)
    together = np.sort(
        np.concatenate([values, never if observed.later is None else observed.later])
    )
    return {
        name: _rounded(
            float(together.mean())
            if one.share is None
            # No interpolation: between a number and infinity there is none.
            else float(together[max(0, int(np.ceil(one.share * len(together))) - 1)])
        )
        for name, one in STATISTICS.items()
    }


def _of(curve: Survival, share: float | None) -> float | None:
    """Return the mean of a curve, or its quantile at a share."""
    return _rounded(curve.mean() if share is None else curve.quantile(share))


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else significant(value)
