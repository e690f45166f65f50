"""The rules that hold for all metrics, word for word the contract's.

What a single metric means stands in its row of results/metrics.py.
"""

RULES = (
    "Under an open-loop arrival all latencies also run from due.",
    "Failed requests are never in latency percentiles, and always beside them.",
    (
        "A response cut short (no finish reason and no end mark), with an error in its stream, or"
        " without a single token, has failed."
    ),
)
