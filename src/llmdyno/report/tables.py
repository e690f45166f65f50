"""What a table of a page is made of: written cells in rows, under a caption.

Whatever a chart shows also stands in a table in numbers: for those who check, for those who print,
and for those who do not see the chart. The tables themselves are in run_tables.py and
study_tables.py.
"""

from typing import Literal

import msgspec

from llmdyno.report.documents import Interval
from llmdyno.results import wording

Kind = Literal["text", "number", "code"]
Tone = Literal["", "good", "bad", "quiet", "changed"]
Column = tuple[str, Kind]


class Cell(msgspec.Struct, frozen=True):
    """One written value; `detail` stands smaller below it."""

    text: str
    kind: Kind = "text"
    detail: str = ""
    tone: Tone = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row; the heads name it, and a head may span the rows below.

    What is too long for a column stands below the row, over its whole width: first settings as
    code, then a text.
    """

    heads: tuple[tuple[str, int], ...] = ()  # (text, rows it spans)
    cells: tuple[Cell, ...]
    tone: Tone = ""
    codes: tuple[str, ...] = ()
    says: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table; a folded one opens on a click (and in print). One without rows is not printed.

    Where heads span rows, a narrow screen scrolls it, unless `has_groups`: then the shared head
    stands once above the rows that it spans.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folded: bool = False
    has_groups: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def stacks(self) -> bool:
        """Whether a narrow screen sets each row by itself."""
        return self.has_groups or all(span == 1 for row in self.rows for _, span in row.heads)


def bounds_cell(bounds: Interval | None) -> Cell:
    """Return a table cell with the two ends of an interval."""
    return Cell(wording.interval(bounds) if bounds else wording.ABSENT, "number")


def met_cell(met: object) -> Cell:
    """Return a table cell that says whether an SLO was met; None: it is not known."""
    if met is None:
        return Cell(wording.ABSENT)
    return Cell("met", tone="good") if met else Cell("missed", tone="bad")
