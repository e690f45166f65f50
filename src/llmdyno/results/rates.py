"""Rates: how often something happened in each of the equal short stretches of a window.

The mean of the stretches is the rate; how far they differ, in order of time, gives its interval.
"""

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED
from llmdyno.results.series import period
from llmdyno.results.stats import Array, Floats

_STRETCH_S = 0.25
_STRETCHES_MIN, _STRETCHES_MAX = 20, 600
_STRETCHES_A_CYCLE = 4  # at least so many stretches are one or several periods of lockstep
_CYCLES_MIN = 9  # of them in a window: stats.blocks_of() sees periods up to an eighth of it
_PERIOD_BIN_NS = 20_000_000  # shorter periods, as the steps of an engine, are lost in a stretch
_PERIOD_BINS_MAX = 8192


def tokens_in_bins(columns: Columns, start_ns: int, end_ns: int, bins: int) -> Floats:
    """Return how many output tokens arrived in each of so many equal bins of a time."""
    counts, _ = np.histogram(
        columns.read_ns, bins=bins, range=(start_ns, end_ns), weights=columns.read_tokens
    )
    return np.asarray(counts, dtype=np.float64)


def token_rates(columns: Columns, window: Window) -> Floats:
    """Return the token rate (tok/s) in each stretch of a window, in order of time."""
    bins, width_s = _stretches(columns, window)
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
    bins, width_s = _stretches(columns, window)
    ended_ns = (columns.sent_ns + columns.last_ns)[done]
    counts, _ = np.histogram(ended_ns, bins=bins, range=(window.start_ns, window.end_ns))
    return np.asarray(counts, dtype=np.float64) / width_s


def completed(columns: Columns, window: Window) -> Array:
    """Mark the requests that were completed inside the window."""
    ended_ns = columns.sent_ns + columns.last_ns
    inside = (ended_ns >= window.start_ns) & (ended_ns <= window.end_ns)
    done: Array = (columns.outcome == COMPLETED) & inside
    return done


def _stretches(columns: Columns, window: Window) -> tuple[int, float]:
    """Return into how many equal stretches a window is cut, and how long one is (s).

    If users go in lockstep, a whole number of stretches is a whole number of their periods:
    otherwise the tokens of a stretch swing with where in a period it begins.
    """
    bins = int(min(_STRETCHES_MAX, max(_STRETCHES_MIN, window.length_s / _STRETCH_S)))
    every_s = lockstep_period_s(columns, window)
    if every_s is not None:
        width_s = window.length_s / bins
        # Some periods are as long as some stretches, and a block of them is a small part of all.
        most = int(window.length_s / _CYCLES_MIN / every_s)
        cycle_s = every_s * max(1, min(most, round(_STRETCHES_A_CYCLE * width_s / every_s)))
        stretches = max(_STRETCHES_A_CYCLE, round(cycle_s / width_s))
        bins = max(1, round(window.length_s * stretches / cycle_s))
    return bins, max(window.length_s / bins, 1e-9)


def lockstep_period_s(columns: Columns, window: Window) -> float | None:
    """Return after what time (s) the tokens of a window come again as they came; None: never."""
    length_ns = window.end_ns - window.start_ns
    bins = int(min(_PERIOD_BINS_MAX, length_ns // _PERIOD_BIN_NS))
    if bins < _STRETCHES_MIN:
        return None
    since_ns = columns.read_ns - window.start_ns
    inside = (since_ns >= 0) & (since_ns < length_ns)
    # As tokens_in_bins() counts, but several times as fast; to the nanosecond it does not matter.
    places = (since_ns[inside] * (bins / length_ns)).astype(np.int64)
    counts = np.bincount(places, weights=columns.read_tokens[inside], minlength=bins)[:bins]
    every = period(counts.astype(np.float64))
    return None if every is None else every * length_ns / bins / 1e9
