"""The live lines of a benchmark that is running.

They are drawn by hand with three escape codes, twice a second: a terminal library that renders on a
thread of its own would hold up the event loop whose stamps we are taking. They go to standard
error; standard output is for results.
"""

from collections.abc import Sequence
from time import monotonic
from typing import TextIO

from llmdyno.load.progress import Progress
from llmdyno.terminal.tables import width_of
from llmdyno.units import counted
from llmdyno.wire.exchange import Meter

_BAR_CELLS = 24
_CLEAR_LINE = "\x1b[2K"


class Live:
    """Two lines that are redrawn in place on a terminal; a line an interval elsewhere."""

    def __init__(
        self,
        levels: Sequence[float],
        *,
        interval_s: float,
        label: str = "",
        stream: TextIO,
        transient: bool = False,
    ) -> None:
        self._levels = levels
        self._interval_s = interval_s
        self._label = f"{label}  " if label else ""
        self._stream = stream
        self._transient = transient  # leave nothing of a level that is over
        self._redraws = stream.isatty()
        if self._redraws:
            width_of(stream)  # imports rich now, not while stamps are taken
        self._lines_drawn = 0
        self._level = -1
        self._next_line_s = 0.0
        self._rate_from = (0.0, 0)  # time and tokens, for the rate

    def show(self, progress: Progress, meter: Meter) -> None:
        """Draw the level's state in place of the last one drawn.

        Off a terminal it writes a line an interval, and one at the level's end.
        """
        if progress.level != self._level:
            self._level = progress.level
            self._rate_from = (monotonic(), 0)
            self._next_line_s = self._interval_s
        tokens = progress.tokens + max(0, meter.reads - progress.reads)
        then_s, tokens_then = self._rate_from
        now_s = monotonic()
        rate = (tokens - tokens_then) / (now_s - then_s) if now_s > then_s else 0.0
        done = progress.phase == "done"
        if done:
            rate = progress.tokens / max(progress.elapsed_s, 1e-9)
        if self._redraws:
            lines = [self._head(progress), self._numbers(progress, rate)]
            self._redraw([] if done and self._transient else lines, keep=done)
        elif done or progress.elapsed_s >= self._next_line_s:
            self._stream.write(f"{self._head(progress)}{self._numbers(progress, rate)}\n")
            self._stream.flush()
            self._next_line_s = progress.elapsed_s + self._interval_s
        if now_s - then_s >= min(self._interval_s, 5.0):
            self._rate_from = (now_s, tokens)

    def _head(self, progress: Progress) -> str:
        share, amount = _advance(progress)
        filled = round(share * _BAR_CELLS)
        bar = "━" * filled + "─" * (_BAR_CELLS - filled) if self._redraws else ""
        place = str(progress.level + 1)
        place += f"/{len(self._levels)}" if self._levels else ""
        return f"{self._label}level {place}: {progress.load}  {bar}  {amount}  "

    @staticmethod
    def _numbers(progress: Progress, rate: float) -> str:
        ttft = f"TTFT p50 {_median(progress.ttft_ms):,.0f} ms" if progress.ttft_ms else "TTFT -"
        errors = ", ".join(f"{name} x{count}" for name, count in progress.errors.items())
        waiting = progress.waiting
        place = f"users {progress.users}" if waiting is None else f"waiting {waiting}"
        return (
            f"{place}  in flight {progress.in_flight}  done {progress.completed:,}"
            f"  failed {progress.failed:,}{f' ({errors})' if errors else ''}"
            f"  ~{rate:,.0f} tok/s  {ttft}"
        )

    def _redraw(self, lines: Sequence[str], *, keep: bool) -> None:
        up = f"\x1b[{self._lines_drawn}A\x1b[J" if self._lines_drawn else ""
        width = max(20, width_of(self._stream) - 1)
        lines = [part[:width] for line in lines for part in _folded(line, width)]
        text = "".join(f"{_CLEAR_LINE}{line}\n" for line in lines)
        self._stream.write(f"{up}\r{text}")
        self._stream.flush()
        self._lines_drawn = 0 if keep else len(lines)


def _median(values: Sequence[float]) -> float:
    """Return the median; the statistics module has one, and takes 3 ms to import."""
    known = sorted(values)
    return (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2


def _folded(line: str, width: int) -> list[str]:
    """Return a line as several that are no wider, divided where it has two blanks."""
    found: list[str] = []
    for part in line.split("  "):
        if found and len(found[-1]) + 2 + len(part) <= width:
            found[-1] += f"  {part}"
        else:
            found.append(part)
    return found


def _advance(progress: Progress) -> tuple[float, str]:
    """Return how far the level is, 0 to 1, and the same in words."""
    if progress.requests is not None:
        ended = progress.completed + progress.failed
        return min(
            1.0, ended / progress.requests
        ), f"{ended:,}/{counted(progress.requests, 'request')}"
    duration_s = progress.duration_s or 1.0
    words = f"{progress.elapsed_s:.0f}/{duration_s:.0f} s"
    if progress.phase == "finishing":
        words += ", finishing"
    return min(1.0, progress.elapsed_s / duration_s), words
