"""A comparison in words: the sentence on top, and what the cells of a row say.

Terminal, page, Markdown and JUnit all print these.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from llmdyno.results import wording
from llmdyno.results.lost import Losses
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.titles import title
from llmdyno.units import counted

Word = Literal["better", "worse", "no difference", "not comparable"]
Verdict = Literal["better", "worse", "mixed", "no difference", "not comparable"]
_CLAUSES_MAX = 3
TOO_SHORT = "the run is too short for its swings"
_NOISE_PCT = 100.0  # an interval that does not exclude twice as much


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one level. Its fields are the keys of a comparison's "rows"."""

    at: str  # the level's name
    metric: str
    stat: str
    decides: bool  # whether the sentence on top rests on it
    before: float | None
    after: float | None
    ratio: float | None = None  # after ÷ before
    ratio_ci95: tuple[float, float] | None = None
    difference_pct: float | None = None
    ci95_pct: tuple[float, float] | None = None
    difference: float | None = None  # after - before, where some run has 0
    difference_ci95: tuple[float, float] | None = None
    p: float | None = None  # how often equal sides would differ so much; Holm's, of all rows
    verdict: Word
    within_pct: float | None = None  # of "no difference": a larger one is excluded
    why: str = ""  # it is not comparable
    swings: bool = False  # slow swings of the server make most of its interval
    doubts: tuple[str, ...] = ()  # codes of what spoils it in either side

    @property
    def title(self) -> str:
        """What it is called: "TTFT p99"."""
        return title(f"{self.metric}_{self.stat}")


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a comparison say together."""

    rows: Sequence[Row]
    basis: str  # "one run each"
    alone: Sequence[str]  # the levels that only one side has
    levels: int  # that both have
    losses: Sequence[Losses] = ()  # of those at which the same was asked

    @property
    def verdict(self) -> Verdict:
        """The verdict of the rows that decide, and of the requests that failed.

        What is fast because it refuses is not better.
        """
        shown = {row.verdict for row in self._deciding}
        shown |= {one.verdict for one in self.losses if one.verdict != "no difference"}
        if {"better", "worse"} <= shown:
            return "mixed"
        for word in ("better", "worse", "no difference"):
            if word in shown:
                return word
        return "not comparable"

    @property
    def why(self) -> str:
        """Why nothing could be compared; empty: something was."""
        if self.verdict != "not comparable":
            return ""
        if not self.levels:
            listed = "; ".join(self.alone)
            return f"the runs have no level in common{f' ({listed})' if listed else ''}"
        return next((row.why for row in self._deciding if row.why), "no number has a value")

    @property
    def sentence(self) -> str:
        """One sentence on what was found and what it rests on."""
        word = self.verdict
        if word == "not comparable":
            return f"Not comparable: {self.why}."
        if word == "no difference":
            said = f"No difference shown: {self._bounds()}"
        elif word == "mixed":
            better, worse = (self._clauses(one) for one in ("better", "worse"))
            said = f"Better and worse: {better}, but {worse}"
        else:
            said = f"{word.capitalize()}: {self._clauses(word)}"
        return f"{said} ({self.basis}; 95 % intervals){self._less()}."

    @property
    def _deciding(self) -> list[Row]:
        return [row for row in self.rows if row.decides]

    def _clauses(self, word: str) -> str:
        rows = [row for row in self._deciding if row.verdict == word]
        shown = [f"{row.title} {change(row)} at {row.at}" for row in rows[:_CLAUSES_MAX]]
        more = len(rows) - _CLAUSES_MAX
        shown += [f"and {more} more"] if more > 0 else []
        shown += [f"{one.shares}, at {one.at}" for one in self.losses if one.verdict == word]
        return "; ".join(shown)

    def _bounds(self) -> str:
        """Say, for each metric, which difference is excluded at every level."""
        widest: dict[str, float] = {}
        for row in self._deciding:
            if row.within_pct is not None:
                widest[row.title] = max(row.within_pct, widest.get(row.title, 0.0))
        said = ", ".join(f"{name} {within(bound)}" for name, bound in widest.items())
        names = list(
            dict.fromkeys(row.at for row in self._deciding if row.verdict == "no difference")
        )
        at = names[0] if len(names) == 1 else counted(len(names), "level")
        return f"{said} at {at}" if said else f"at {at}"

    def _less(self) -> str:
        """Say what is missing or doubtful in the sentence."""
        compared = {row.at for row in self._deciding if row.verdict != "not comparable"}
        levels = {row.at for row in self._deciding}
        parts = []
        if left := len(levels - compared) + len(self.alone):
            parts.append(f"{counted(left, 'level')} not comparable")
        short = {row.at for row in self._deciding if row.verdict == "no difference" and row.swings}
        if short:
            at = "" if self.levels == 1 else f" at {counted(len(short), 'level')}"
            parts.append(f"{TOO_SHORT}{at}")
        codes = dict.fromkeys(
            code
            for row in self._deciding
            if row.verdict in {"better", "worse"}
            for code in row.doubts
        )
        if codes:
            parts.append(f"doubtful: {', '.join(codes)}")
        return "".join(f"; {part}" for part in parts)


def value(row: Row, side: Literal["before", "after"]) -> str:
    """Write a side's value: 412 ms, 1,370 tok/s."""
    found, metric = getattr(row, side), BY_NAME[row.metric]
    if found is None:
        return wording.ABSENT
    if metric.unit == "ms":
        return wording.milliseconds(found)
    # A sum of money is in whatever currency the price was.
    return f"{wording.significant(found)} {'' if metric.needs_price else metric.unit}".strip()


def bare(row: Row, side: Literal["before", "after"]) -> str:
    """Write a side's value where the unit stands beside the metric; a latency has its own."""
    unit = BY_NAME[row.metric].unit
    written = value(row, side)
    return written if unit == "ms" else written.removesuffix(f" {unit}")


def percent(share_pct: float) -> str:
    """Write a difference in percent with its sign: +5.21 %; a large one as a factor: 63x."""
    if share_pct >= 1000:
        return wording.ratio(1 + share_pct / 100)
    return f"{_signed(share_pct)} %"


def difference(row: Row) -> str:
    """Write the difference: +5.21 %, or +2.1 req/s where some run has 0."""
    if row.difference_pct is not None:
        return percent(row.difference_pct)
    if row.difference is not None:
        return f"{_signed(row.difference)} {BY_NAME[row.metric].unit}".strip()
    return wording.ABSENT


def interval(row: Row) -> str:
    """Write the 95 % interval of the difference; empty: there is none."""
    bounds = row.ci95_pct or row.difference_ci95
    if bounds is None:
        return ""
    if row.ci95_pct and bounds[1] >= 1000:
        low, high = (wording.ratio(1 + bound / 100) for bound in bounds)
        return f"[{low}, {high}]"
    return f"[{_signed(bounds[0])}, {_signed(bounds[1])}]"


def change(row: Row) -> str:
    """Write a difference with its interval: +5.21 % [+4.1, +6.3]."""
    return f"{difference(row)} {interval(row)}".rstrip()


def verdict(row: Row) -> str:
    """Write a verdict with its bound or its reason."""
    if row.verdict == "no difference" and row.swings:
        bound = "" if row.within_pct is None else f" ({within(row.within_pct)})"
        return f"no difference shown: {TOO_SHORT}{bound}"
    if row.verdict == "no difference" and row.within_pct is not None:
        if row.within_pct >= _NOISE_PCT:
            return "no difference shown: too noisy to tell"
        return f"no difference {within(row.within_pct)}"
    return f"not comparable: {row.why}" if row.verdict == "not comparable" else row.verdict


def within(share_pct: float) -> str:
    """Write what a difference is within: within ±2.3 %."""
    return f"within ±{_digits(share_pct)} %"


def _signed(number: float) -> str:
    written = _digits(abs(number))
    return ("+" if number > 0 else "-" if number < 0 else "") + written if written != "0" else "0"


def _digits(number: float) -> str:
    """Write three digits; what is below a hundredth is nothing here."""
    if number >= 100:
        return f"{number:,.0f}"
    written = f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return "0" if written == "0.00" else written
