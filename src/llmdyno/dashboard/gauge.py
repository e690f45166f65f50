"""The counts of a run that goes on, as numbers and points of a live page."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import numpy as np

from llmdyno.dashboard.board import Board
from llmdyno.load.progress import Progress
from llmdyno.wire.exchange import Meter


class Gauge:
    """Turns the counts of a run into the page's numbers, and into a point an interval.

    Args:
        board: the page.
        interval_s: between two points.
        run: the run's name; empty: it is the only one.
        clock: in s.
    """

    def __init__(
        self,
        board: Board,
        interval_s: float,
        run: str = "",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._board = board
        self._interval_s = interval_s
        self._run = run
        self._clock = clock
        self._began_s = clock()
        self._progress: Progress | None = None  # of the level that runs
        self._part = 0  # how many levels there were, warm-ups included
        self._rate: float | None = None
        # When the last point was, its tokens and its requests.
        self._from: tuple[float, float, int] = (0.0, 0, 0)

    def show(self, progress: Progress, meter: Meter) -> None:
        """Send what a level's counts are now; with a point, when an interval is over."""
        now_s = self._clock()
        if progress is not self._progress:
            self._progress, self._rate = progress, None
            self._part += 1
            self._from = (now_s, 0, 0)
        a_read = progress.tokens / progress.reads if progress.reads else 1.0
        tokens = progress.tokens + max(0, meter.reads - progress.reads) * a_read
        then_s, tokens_then, ended_then = self._from
        done = progress.phase == "done"
        # A few moments, as they are left when a level is over, give no rate.
        if now_s - then_s >= self._interval_s * (0.5 if done else 1.0):
            self._rate = max(0.0, tokens - tokens_then) / (now_s - then_s)
            ended = progress.completed - ended_then
            ttft_ms = progress.ttft_ms[-ended:] if ended else []
            self._board.add("points", self._point(progress, ttft_ms, then_s, now_s))
            self._from = (now_s, tokens, progress.completed)
        self._board.put("now", self._now(progress))

    def _point(
        self, progress: Progress, ttft_ms: Sequence[float], then_s: float, now_s: float
    ) -> dict[str, Any]:
        """Return what the interval from `then_s` to `now_s` was like."""
        return {
            "run": self._run,
            "part": self._part,
            "load": progress.load,
            "from": round(then_s - self._began_s, 2),
            "at": round(now_s - self._began_s, 2),
            "users": progress.users,
            "rate": self._rate,
            "ttft_p50": _quantile(ttft_ms, 0.5),
            "ttft_p99": _quantile(ttft_ms, 0.99),
            "failed": progress.failed,
        }

    def _now(self, progress: Progress) -> dict[str, Any]:
        return {
            "name": self._run or str(progress.level + 1),
            "load": progress.load,
            "phase": progress.phase,
            "elapsed_s": progress.elapsed_s,
            "duration_s": progress.duration_s,
            "requests": progress.requests,
            "users": progress.users,
            "waiting": progress.waiting,
            "in_flight": progress.in_flight,
            "completed": progress.completed,
            "failed": progress.failed,
            "errors": progress.errors,
            "rate": self._rate,
            "ttft_p50": _quantile(progress.ttft_ms, 0.5),
            "ttft_p99": _quantile(progress.ttft_ms, 0.99),
        }


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
