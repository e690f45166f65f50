"""The time series of a level: what each interval of it was like."""

from collections.abc import Iterable
from typing import Any

from llmdyno.records.columns import Window
from llmdyno.records.entries import COMPLETED, OUTCOMES
from llmdyno.results import crosscheck
from llmdyno.results.facts import LevelFacts
from llmdyno.results.metrics import latency_values
from llmdyno.results.quantiles import median
from llmdyno.results.stats import significant


def samples(facts: LevelFacts, interval_s: float) -> list[dict[str, Any]]:
    """Return the time series: one row an interval, at the interval's end.

    A remainder of less than half an interval belongs to the last row: alone it would be all noise.
    A level that a kill ended as it began has none.
    """
    columns, start_ns = facts.columns, facts.started.start_ns
    if facts.end_ns <= start_ns:
        return []
    ended_ns = columns.sent_ns + columns.end_ns
    step_ns = round(interval_s * 1e9)
    rows = []
    rows_count = max(1, round((facts.end_ns - start_ns) / step_ns))
    for number in range(rows_count):
        low_ns = start_ns + number * step_ns
        high_ns = facts.end_ns if number == rows_count - 1 else low_ns + step_ns
        inside = (ended_ns > low_ns) & (ended_ns <= high_ns)
        tokens = columns.read_tokens[(columns.read_ns > low_ns) & (columns.read_ns <= high_ns)]
        window = Window(start_ns=low_ns, end_ns=high_ns, method="sample")
        ttft = latency_values("ttft_ms", columns, window).values
        # The last of each worker, if every one of them wrote some.
        last = {tick.worker: tick for tick in facts.ticks if low_ns < tick.t_ns <= high_ns}
        ticks = list(last.values()) if len(last) == facts.started.workers else []
        rows.append(
            {
                "t_s": round((high_ns - start_ns) / 1e9, 3),
                "users": _sum(tick.users for tick in ticks)
                if facts.started.users is not None
                else None,
                "in_flight": _sum(tick.in_flight for tick in ticks),
                **(
                    {"waiting": _sum(tick.waiting for tick in ticks)}
                    if facts.started.max_concurrency
                    else {}
                ),
                "completed": int((inside & (columns.outcome == COMPLETED)).sum()),
                "failed": int((inside & (columns.outcome == OUTCOMES.index("failed"))).sum()),
                "token_rate": significant(float(tokens.sum()) / window.length_s),
                "ttft_ms_p50": significant(median(ttft)) if len(ttft) else None,
                **crosscheck.sample_part(facts.scrapes, facts.gpus, low_ns, high_ns),
            }
        )
    return rows


def _sum(numbers: Iterable[int]) -> int | None:
    """Return the sum; None if there is nothing to add up."""
    found = list(numbers)
    return sum(found) if found else None
