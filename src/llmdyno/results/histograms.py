"""How a level's latencies are distributed: shares in bins of equal ratio.

A quantile hides two peaks, a median between them does not exist. Bins of equal ratio show a median
and a tail thirty times as long in one picture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.results.metrics import latency_values
from llmdyno.results.stats import Floats, significant

BINS = 40
_LEAST_MS = 1e-3  # what is shorter counts as this: a logarithm has no zero


def histograms(
    runs: Sequence[tuple[Columns, Window]], measured: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the histogram of each latency inside the windows of equal runs, by metric.

    Args:
        runs: the columns and the window of each.
        measured: the metrics of the level; those without an observation have no histogram.

    Returns:
        Of each latency "low_ms" and "high_ms", the outer ends, and "shares", of the observations in
        bins of equal ratio between them; the shares add up to 1.
    """
    return {
        name: _histogram(*_observed(name, runs))
        for name, value in measured.items()
        if isinstance(value, Mapping) and value.get("p50") is not None
    }


def _observed(name: str, runs: Sequence[tuple[Columns, Window]]) -> tuple[Floats, Floats]:
    """Return the observations of all runs in ms, and how much each counts."""
    values = [latency_values(name, *run) for run in runs]
    weights = [
        np.ones(len(one.values)) if one.weights is None else one.weights.astype(np.float64)
        for one in values
    ]
    return np.concatenate([one.values.astype(np.float64) for one in values]), np.concatenate(
        weights
    )


def _histogram(values_ms: Floats, weights: Floats) -> dict[str, Any]:
    logarithms = np.log(np.maximum(values_ms, _LEAST_MS))
    low, high = float(logarithms.min()), float(logarithms.max())
    bins = BINS if high > low else 1
    edges = np.linspace(low, high if high > low else low + 1e-6, bins + 1)
    counts, _ = np.histogram(logarithms, edges, weights=weights)
    return {
        "low_ms": significant(float(np.exp(low))),
        "high_ms": significant(float(np.exp(high))),
        "shares": [round(float(share), 6) for share in counts / counts.sum()],
    }
