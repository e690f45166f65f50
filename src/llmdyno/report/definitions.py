"""What the metrics are called in a report, which way is better, and the rules around them.

Names, units and definitions are the rows of llmdyno.results.metrics; here is only what a page
adds: titles short enough for a column, and the rules that hold for all metrics, word for word the
contract's.
"""

from llmdyno.results.metrics import BY_NAME

RULES = (
    "Under an open-loop arrival all latencies also run from due.",
    "Failed requests are never in latency percentiles, and always beside them.",
    (
        "A response cut short (no finish reason and no end mark), with an error in its stream, or"
        " without a single token, has failed."
    ),
)


def title(name: str) -> str:
    """Return a short title: "TTFT p50" for "ttft_ms_p50" and for the objective "ttft:p50"."""
    metric = _metric(name)
    if metric is None:
        return name
    short = metric.removesuffix("_ms")
    statistic = name.removeprefix(metric).removeprefix(short).strip("_:")
    # The mean of a rate over its window is the rate.
    statistic = "" if short == metric and statistic == "mean" else statistic
    words = short.replace("_", " ")
    return f"{words if short == metric else words.upper()} {statistic}".strip()


def unit(name: str) -> str:
    """Return the unit of what a name such as "ttft_ms_p50" begins with, if it is known."""
    metric = _metric(name)
    return BY_NAME[metric].unit if metric else ""


def lower_is_better(objective: str) -> bool | None:
    """Say which way an objective such as "token_rate:mean" or "ttft:p99" is better, if known."""
    metric = _metric(objective)
    return BY_NAME[metric].better == "lower" if metric else None


def _metric(name: str) -> str | None:
    """Return the metric that a name begins with, whether its unit is written or not."""
    found = [metric for metric in BY_NAME if name.startswith(metric.removesuffix("_ms"))]
    return max(found, key=len, default=None)  # "ttft_due_ms_p50" begins with "ttft" as well
