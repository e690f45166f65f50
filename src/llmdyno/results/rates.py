"""Rates: how often something happened in each of the equal short stretches of a window.

The mean of the stretches is the rate; how far they differ, in order of time, gives its interval.
"""

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED
from llmdyno.results.stats import Array, Floats

_STRETCH_S = 0.25
_STRETCHES_MIN, _STRETCHES_MAX = 20, 600


def tokens_in_bins(columns: Columns, start_ns: int, end_ns: int, bins: int) -> Floats:
    """Return how many output tokens arrived in each of so many equal bins of a time."""
    counts, _ = np.histogram(
        columns.read_ns, bins=bins, range=(start_ns, end_ns), weights=columns.read_tokens
    )
    return np.asarray(counts, dtype=np.float64)


def token_rates(columns: Columns, window: Window) -> Floats:
    """Return the token rate (tok/s) in each stretch of a window, in order of time."""
    bins, width_s = stretches(window)
    return tokens_in_bins(columns, window.start_ns, window.end_ns, bins) / width_s


def request_rates(columns: Columns, window: Window, chosen: Array | None = None) -> Floats:
    """Return the requests completed (req/s) in each stretch of a window, in order of time.

    Args:
        columns: of the level.
        window: the part of it that counts.
        chosen: marks the requests that count; None: all.
    """
    done = completed(columns, window)
    if chosen is not None:
        done &= chosen
    bins, width_s = stretches(window)
    ended_ns = (columns.sent_ns + columns.last_ns)[done]
    counts, _ = np.histogram(ended_ns, bins=bins, range=(window.start_ns, window.end_ns))
    return np.asarray(counts, dtype=np.float64) / width_s


def completed(columns: Columns, window: Window) -> Array:
    """Mark the requests that were completed inside the window."""
    ended_ns = columns.sent_ns + columns.last_ns
    inside = (ended_ns >= window.start_ns) & (ended_ns <= window.end_ns)
    done: Array = (columns.outcome == COMPLETED) & inside
    return done


def stretches(window: Window) -> tuple[int, float]:
    """Return into how many equal stretches a window is cut, and how long one is (s)."""
    bins = int(min(_STRETCHES_MAX, max(_STRETCHES_MIN, window.length_s / _STRETCH_S)))
    return bins, max(window.length_s / bins, 1e-9)
