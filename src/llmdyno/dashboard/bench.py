"""What a live page shows of a benchmark: the counts, and the figures of levels that are over."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdyno.dashboard.board import Board
from llmdyno.dashboard.gauge import Gauge
from llmdyno.errors import StorageError
from llmdyno.load.progress import Progress
from llmdyno.results import doubts, grouping
from llmdyno.results.crosscheck import UNREAD
from llmdyno.results.documents import level_name
from llmdyno.results.summary import summarise
from llmdyno.wire.exchange import Meter

# A level's figures and doubts are derived when it is over, while nothing is measured. Of a larger
# journal that would take longer than a second or two; its figures come at the end.
_JOURNAL_BYTES_MAX = 24 * 1024 * 1024

Show = Callable[[Progress, Meter], None]


class BenchFeed:
    """What the page shows of a benchmark.

    Args:
        board: the page.
        journal: of the run.
        head: the page's "title" and "about".
        interval_s: between two points.
        beside: is told of the progress, too.
    """

    def __init__(
        self, board: Board, journal: Path, head: Mapping[str, str], interval_s: float, beside: Show
    ) -> None:
        self._board = board
        self._journal = journal
        self._gauge = Gauge(board, interval_s)
        self._beside = beside
        self._ended = False
        board.put("head", {"kind": "bench", **head})

    def show(self, progress: Progress, meter: Meter) -> None:
        """Take the counts of a level that runs, or is over."""
        self._beside(progress, meter)
        self._gauge.show(progress, meter)
        if progress.phase == "done" and self._bytes() <= _JOURNAL_BYTES_MAX:
            try:
                summary = summarise(self._journal)
            except StorageError:  # the run will say so itself
                return
            # After this the server's metrics page is read once more.
            last = level_name(summary["levels"][-1]) if summary["levels"] else ""
            found = [d for d in doubts.of(summary) if d.code != UNREAD or d.at != last]
            self._show(summary, found)

    def _bytes(self) -> int:
        name = f"{self._journal.stem}*{self._journal.suffix}"
        return sum(file.stat().st_size for file in self._journal.parent.glob(name))

    def show_summary(self, summary: Mapping[str, Any]) -> None:
        """Show what the run has come to."""
        self._show(summary, doubts.of(summary))

    def _show(self, summary: Mapping[str, Any], found: Sequence[doubts.Doubt]) -> None:
        """Show the levels that are over, and the doubts about them."""
        self._board.put("levels", [_level(level) for level in summary["levels"]])
        self._board.put("doubts", grouping.sentences(found))

    def end(self, said: str) -> None:
        """Say how it ended, unless that was said before."""
        if not self._ended:
            self._ended = True
            self._board.put("end", {"said": said})


def _level(level: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": level_name(level),
        "rate": level["token_rate"]["mean"],
        "ttft_p50": level["ttft_ms"]["p50"],
        "ttft_p99": level["ttft_ms"]["p99"],
        "tpot_p50": level["tpot_ms"]["p50"],
        "completed": level["requests"]["completed"],
        "failed": level["requests"]["failed"],
    }
