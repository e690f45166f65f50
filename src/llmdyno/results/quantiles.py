"""Quantiles by linear interpolation and medians, bit for bit those of numpy.

numpy's own import numpy.ma: 30 ms of CPU that a short run does without.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def linear(values: NDArray[Any], shares: float | Sequence[float]) -> NDArray[np.float64]:
    """Return quantiles over the last axis: between order statistics (Hyndman & Fan, type 7).

    Args:
        values: numbers, at least one along the last axis; NaN among them gives NaN.
        shares: of the values that are no greater, 0 to 1.

    Returns:
        One quantile a share; where `shares` is one number, without an axis for it.
    """
    values = np.asarray(values)
    last = values.shape[-1] - 1
    places = last * np.asarray(shares, dtype=np.float64)
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, last)
    parted = np.partition(values, [*np.ravel(below), *np.ravel(above), last], axis=-1)
    low, high = parted[..., below], parted[..., above]
    part, step = places - below, high - low
    found = np.where(part >= 0.5, high - step * (1 - part), low + step * part)
    unknown = np.isnan(parted[..., last])  # NaN is sorted behind all numbers
    if unknown.any():
        found = np.where(unknown[..., None] if below.ndim else unknown, np.nan, found)
    return np.asarray(found, dtype=np.float64)


def median(values: NDArray[Any]) -> float:
    """Return the median of a series, of which there is at least one value; NaN if one is NaN."""
    last = len(values) - 1
    middle = [last // 2, (last + 1) // 2]
    parted = np.partition(values, [*middle, last])
    if np.isnan(parted[last]):
        return float("nan")
    return float(parted[middle[0] : middle[1] + 1].mean())
