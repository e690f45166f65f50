"""Measures: the value of every metric inside a window, of one run or of equal runs together.

Of one run the intervals come from its blocks of time. Of several they come from what lies between
the runs, which is more: two or three are too few to be resampled (dev/LOG.md), so it is Student's
interval of a mean, each run one observation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.results import metrics, stats
from llmdyno.results.censoring import censoring
from llmdyno.results.facts import by_point, read_levels
from llmdyno.results.metrics import BY_NAME, Metric, latency_values
from llmdyno.results.observations import Values
from llmdyno.results.rates import token_rates
from llmdyno.results.slo import Slo
from llmdyno.results.stats import STATISTICS, significant
from llmdyno.results.window import steady_window

COUNTS_WHAT_MEETS_ONE = (  # of goodput alone
    "counts the requests that meet an SLO on ttft, tpot or e2e, and none is given; add one, e.g."
    " --slo 'ttft:p99<2s'."
)
_CI_OBSERVATIONS_MAX = 50_000

RunWindow = tuple[Columns, Window]


def measures(
    runs: Sequence[RunWindow], slos: Sequence[Slo], *, is_open: bool = False
) -> dict[str, Any]:
    """Return every metric of the table inside the window of a run, or of equal runs together.

    Args:
        runs: the columns and the window of each run.
        slos: by which goodput judges the requests.
        is_open: whether requests had due times, from which some metrics are counted.
    """
    measured: dict[str, Any] = {
        row.name: distribution(*(latency_values(row.name, *run) for run in runs))
        for row in metrics.latencies(open_loop=is_open)
    }
    good = [meeting(columns, slos) for columns, _ in runs]
    return measured | {row.name: _rate(row, runs, good) for row in metrics.rates()}


def series(metric: str, columns: Columns, window: Window, slos: Sequence[Slo] = ()) -> stats.Floats:
    """Return a metric's observations inside a window, in order of time; empty: it has no value.

    Of a latency these are the requests or gaps (ms), of a rate equal short stretches of the window.
    """
    row = BY_NAME[metric]
    if row.rate is not None:
        rates = row.rate(columns, window, meeting(columns, slos))
        return np.zeros(0) if rates is None else rates
    return np.asarray(latency_values(metric, columns, window).values, dtype=np.float64)


def judges_requests(slos: Sequence[Slo]) -> bool:
    """Tell whether one of these is on a latency that a request has by itself."""
    return any(BY_NAME[slo.metric].of_request is not None for slo in slos)


def meeting(columns: Columns, slos: Sequence[Slo]) -> stats.Array | None:
    """Mark the requests that met every SLO on a latency of one request; None: there is no such SLO.

    A request misses no limit on a latency that it does not have: an answer of one token has no time
    per token.
    """
    if not judges_requests(slos):
        return None
    met = np.ones(len(columns.outcome), dtype=bool)
    for slo in slos:
        of_request = BY_NAME[slo.metric].of_request
        if of_request is not None:
            met &= ~(of_request(columns) >= slo.limit)
    return met


def token_rate_intervals(journal: Path) -> list[tuple[float, float]]:
    """Return the 95 % interval of each load point's token rate between its repeats, two or more.

    Raises:
        StorageError: the journal cannot be read.
    """
    return [
        stats.student_interval95(
            np.array([token_rates(facts.columns, steady_window(facts)).mean() for facts in repeats])
        )
        for repeats in by_point(read_levels(journal)[1])
    ]


def _rate(
    row: Metric, runs: Sequence[RunWindow], good: Sequence[stats.Array | None]
) -> dict[str, Any] | None:
    """Return a rate and its 95 % interval; None if it has no value.

    Requests are counted over all runs and divided by all their time. Tokens are many: each run's
    rate counts the same.
    """
    assert row.rate is not None
    rates = [row.rate(*run, marks) for run, marks in zip(runs, good, strict=True)]
    known = [rate for rate in rates if rate is not None]
    if not known or len(known) < len(rates):
        return None
    means = [float(rate.mean()) for rate in known]
    lengths_s = [max(window.length_s, 1e-9) for _, window in runs] if row.counts_requests else None
    # Where no request counts, the zeros are all equal and say nothing about the spread.
    has_spread = not row.counts_requests or any(means)
    return {
        "mean": significant(float(np.average(means, weights=lengths_s))),
        "ci95": _rate_interval(known, means) if has_spread else None,
    }


def _rate_interval(rates: Sequence[stats.Floats], means: Sequence[float]) -> list[float]:
    """Return the 95 % interval of a rate, of its stretches in a run or between equal runs."""
    if len(means) > 1:
        return _between(means)
    return _interval(stats.bootstrap(rates[0], stats.mean_over_time))


def _between(values: Sequence[float]) -> list[float]:
    """Return the 95 % interval of the mean of equal runs; nothing that we measure is negative."""
    return [significant(max(0.0, bound)) for bound in stats.student_interval95(np.array(values))]


def distribution(*runs: Values) -> dict[str, Any]:
    """Return the statistics of a latency, in ms; all null when nothing was observed."""
    observed = _pooled(runs)
    values, weights = observed.values.astype(np.float64), observed.weights
    n = len(values)
    if not n:
        return {"n": 0, **dict.fromkeys(STATISTICS), "p50_ci95": None, **censoring(observed, None)}
    document: dict[str, Any] = {"n": n} | {
        name: significant(value) for name, value in _statistics(values, weights).items()
    }
    document["p50_ci95"] = _median_interval(runs)
    before = observed.sent_before
    document |= censoring(observed, document["p99"])
    return document | ({} if before is None else {"sent_before": before})


def _statistics(values: stats.Floats, weights: stats.Array | None) -> dict[str, float]:
    """Return every statistic of observations; they are sorted once for all quantiles."""
    shares = {name: one.share for name, one in STATISTICS.items() if one.share is not None}
    quantiles = stats.quantiles(values, list(shares.values()), weights)
    mean = float(np.average(values, weights=weights))
    return {"mean": mean, **dict(zip(shares, quantiles, strict=True))}


def _pooled(runs: Sequence[Values]) -> Values:
    """Return the observations of equal runs together."""

    def joined(arrays: Sequence[stats.Array | None]) -> stats.Array | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Values(
        np.concatenate([run.values for run in runs]),
        joined([run.weights for run in runs]),
        joined([run.censored for run in runs]),
        joined([run.later for run in runs]),
        None if runs[0].sent_before is None else sum(run.sent_before or 0 for run in runs),
    )


def _median_interval(runs: Sequence[Values]) -> list[float] | None:
    if len(runs) > 1:
        if not all(len(run.values) for run in runs):
            return None
        return _between([stats.quantile(run.values, 0.5, run.weights) for run in runs])
    values, weights = runs[0].values.astype(np.float64), runs[0].weights
    if weights is not None:
        values = np.repeat(values, weights.astype(np.int64))
    if not 1 < len(values) <= _CI_OBSERVATIONS_MAX:
        return None
    return _interval(stats.bootstrap_medians(values))


def _interval(replicates: stats.Floats) -> list[float]:
    return [significant(bound) for bound in stats.interval95(replicates)]
