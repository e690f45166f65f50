"""What a series in order of time does: whether it repeats itself, whether it rises."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A series is periodic if its autocorrelation comes back to this, from a valley this much deeper.
_PERIODIC_MIN = 0.5
_REACH = 2


def period(values: Floats) -> float | None:
    """Return after how many observations a series repeats itself, in the mean; None: it does not.

    It is the first high peak of the autocorrelation, made exact at multiples of it: one or a few
    periods, as they best fit whole observations. A decay, as of an AR(1) process, has no peak. It
    is at most an eighth of the series, or there were too few blocks.
    """
    n = len(values)
    lags = np.arange(2, n // 8 + 1)
    if not len(lags):
        return None
    correlations = _autocorrelations(np.asarray(values, dtype=np.float64), n // 2 + 1)
    if not len(correlations):
        return None
    heights = correlations[lags]
    is_peak = (heights >= correlations[lags - 1]) & (heights >= correlations[lags + 1])
    # Before the peak there is a valley; in a slow decay with noise on it there is none.
    valleys = np.minimum.accumulate(correlations[1:])[lags - 2]
    is_peak &= (heights >= _PERIODIC_MIN) & (heights - valleys >= _PERIODIC_MIN)
    if not is_peak.any():
        return None
    highest = heights[is_peak].max()
    found = float(lags[is_peak & (heights >= 0.9 * highest)][0])
    # At a multiple of the period its error shows so many times as large.
    reach = min(_REACH, int((found - 1) / 2))  # no nearer to the peaks beside it
    times = 2
    while (lag := round(times * found)) + reach < len(correlations):
        near = correlations[lag - reach : lag + reach + 1]
        if near.max() < 0.5 * highest:
            break
        found = (lag - reach + int(near.argmax())) / times
        times *= 2
    return found


def _autocorrelations(values: Floats, count: int) -> Floats:
    """Return the autocorrelation at the lags below `count`; none if the series does not vary."""
    n = len(values)
    spectrum = np.fft.rfft(values - values.mean() if n else values, 2 * n or 1)
    products = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n or 1)[:count]
    # What is left of a constant by rounding is no variance.
    if not n or products[0] <= 1e-18 * float((values**2).sum()):
        return np.zeros(0)
    pairs = (n - np.arange(len(products))) / n
    return np.asarray(products / products[0] / pairs, dtype=np.float64)


def rank_trend(values: Floats) -> float:
    """Return Kendall's tau of a series with its order in time (Mann 1945): 1 if it always rises."""
    later, earlier = np.triu_indices(len(values), 1)[::-1]
    signs = np.sign(values[later] - values[earlier])
    return float(signs.mean()) if len(signs) else 0.0
