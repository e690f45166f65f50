"""A server that stood still: seconds of a window without a token, though answers were under way.

It happens when kernels are compiled at their first use, a machine is paused, or a collector stops a
process. It happens once or twice in a level, so the level's numbers say how often, and not how fast
the server is. A server that stops for each long prompt does so many times: that is its speed.
"""

from typing import Any

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.results.quantiles import median
from llmdyno.results.stats import significant

_GAP_S_MIN = 1.0
_ITL_MIN = 20  # a gap is so many times as long as the usual one between two tokens of an answer
_SELDOM = 3  # gaps; more of them are how the server works


def standstill(columns: Columns, window: Window, level_ns: int) -> dict[str, Any] | None:
    """Return how long no token came inside a window while answers were under way; None: never.

    An answer is under way from its first token to its last. Prompts alone make no standstill: a
    server that computes a long one has nothing to send.

    Args:
        columns: of the level.
        window: the part of it that counts.
        level_ns: when the level began, in ns since the run's start.

    Returns:
        count, longest_s, total_s; at_s, when the longest began, since the level did; answers, how
        many were under way then; itl_ms, the median time between two tokens of an answer.
    """
    later = columns.read_gap_ns[columns.read_later]
    if not len(later):
        return None
    itl_ns = median(later)
    least_ns = max(_GAP_S_MIN * 1e9, _ITL_MIN * itl_ns)
    reads = np.sort(columns.read_ns)
    began_ns, ended_ns = reads[:-1], reads[1:]
    inside_ns = np.minimum(ended_ns, window.end_ns) - np.maximum(began_ns, window.start_ns)
    gaps = np.flatnonzero(inside_ns >= least_ns)
    # Between two requests of a light load nothing is under way: such a gap says nothing of how the
    # server works.
    answers = _under_way(columns, began_ns[gaps], ended_ns[gaps])
    gaps, answers = gaps[answers > 0], answers[answers > 0]
    if not 0 < len(gaps) <= _SELDOM:
        return None
    longest = int(np.argmax(inside_ns[gaps]))
    return {
        "count": len(gaps),
        "longest_s": significant(float(inside_ns[gaps[longest]]) / 1e9),
        "total_s": significant(float(inside_ns[gaps].sum()) / 1e9),
        "at_s": round((max(int(began_ns[gaps[longest]]), window.start_ns) - level_ns) / 1e9, 3),
        "answers": int(answers[longest]),
        "itl_ms": significant(itl_ns / 1e6),
    }


def _under_way(columns: Columns, began_ns: Any, ended_ns: Any) -> Any:
    """Return how many answers had tokens both before and after each of these gaps."""
    answered = columns.ttft_ns >= 0
    first_ns = (columns.sent_ns + columns.ttft_ns)[answered]
    last_ns = (columns.sent_ns + columns.last_ns)[answered]
    return np.array(
        [
            int(((first_ns <= start) & (last_ns >= end)).sum())
            for start, end in zip(began_ns, ended_ns, strict=True)
        ],
        dtype=np.int64,
    )
