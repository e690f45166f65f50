"""What metrics are called in columns and sentences, also with a statistic of theirs.

A name may be a key of a document ("ttft_ms_p50"), an objective ("ttft:p50") or a metric alone. One
that no row of the table knows stands as it is: a document may be older or newer than the table.
"""

from collections.abc import Iterable

from llmdyno.results.metrics import BY_NAME, Metric

_IN_WORDS = {
    "p50": "median",
    "p90": "90th-percentile",
    "p95": "95th-percentile",
    "p99": "99th-percentile",
    "max": "longest",
}


def title(name: str) -> str:
    """Return a short title: "TTFT p50" for "ttft_ms_p50" and for the objective "ttft:p50"."""
    metric = metric_of(name)
    if metric is None:
        return name
    statistic = statistic_of(name, metric)
    # The mean of a rate over its window is the rate.
    statistic = "" if metric.rate is not None and statistic == "mean" else statistic
    return f"{metric.short} {statistic}".strip()


def in_words(name: str) -> str:
    """Return what a sentence calls it: "median time to first token" for "ttft_ms_p50"."""
    metric = metric_of(name)
    if metric is None:
        return name
    if metric.rate is not None:
        return metric.short
    statistic = statistic_of(name, metric)
    named = _IN_WORDS.get(statistic, statistic)
    return f"{named} {metric.title[0].lower()}{metric.title[1:]}".strip()


def titles(names: Iterable[str]) -> str:
    """Return the short titles of several, with commas."""
    return ", ".join(title(name) for name in names)


def unit(name: str) -> str:
    """Return the unit of the metric that a name begins with; empty if it is not known."""
    metric = metric_of(name)
    return metric.unit if metric else ""


def with_unit(name: str) -> str:
    """Return the title of a column or an axis: "TTFT p99, ms"; empty for no name."""
    of_unit = unit(name)
    return f"{title(name)}, {of_unit}" if of_unit else title(name)


def lower_is_better(name: str) -> bool | None:
    """Tell whether lower is better for the metric that a name begins with; None: not known."""
    metric = metric_of(name)
    return metric.better == "lower" if metric else None


def metric_of(name: str) -> Metric | None:
    """Return the metric that a name begins with, whether its unit is written or not."""
    found = [row for row in BY_NAME.values() if name.startswith(row.flag)]
    # "ttft_due_ms_p50" begins with "ttft" as well.
    return max(found, key=lambda row: len(row.flag), default=None)


def statistic_of(name: str, metric: Metric) -> str:
    """Return the statistic behind a metric's name: "p50" of "ttft_ms_p50"; empty if none is."""
    return name.removeprefix(metric.name).removeprefix(metric.flag).strip("_:")
