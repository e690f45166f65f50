"""What goes to a file or a pipe: no colours, no width; written without rich.

rich is what draws on a terminal (coloured.py). Its import takes as long as all else that `dyno
bench` imports of the terminal, so a run whose output goes elsewhere does without.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TextIO

UNLIMITED_CELLS = 10_000

# A tag of rich's markup with the backslashes before it; of two backslashes one is meant.
_TAG = re.compile(r"(\\*)\[([a-z#/@][^[]*?)]")
_CONTROL = dict.fromkeys((7, 8, 11, 12, 13))  # what the terminal would obey


class Cell(NamedTuple):
    """What a table says in one place: a value, in rich's markup, and perhaps its interval."""

    value: str
    interval: str = ""


class Heading(NamedTuple):
    """What a column is called: over it, and where it stands alone."""

    over: str
    alone: str = ""  # empty: the same
    of_words: bool = False  # its cells begin at the left; those of figures end at the right


class Paper(Protocol):
    """The console that the terminal's functions write to: rich's, or a `Plain` one."""

    @property
    def width(self) -> int:
        """How many cells a line may have."""

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""

    def print(self, text: str, /, *, soft_wrap: bool = False) -> None:
        """Write a line of rich's markup; soft_wrap: however long it is."""


class Plain:
    """A console of a file or a pipe, where a line has any length.

    Args:
        stream: what it writes to.
    """

    width = UNLIMITED_CELLS
    is_terminal = False

    def __init__(self, stream: TextIO) -> None:
        self.file = stream
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self.rule = "─" if encoding.lower().startswith("utf") else "-"  # what lines are drawn of

    def print(self, text: str, /, *, soft_wrap: bool = True) -> None:  # noqa: ARG002  # always
        """Write a line of rich's markup without its tags."""
        self.file.write(f"{unmarked(text)}\n")


def escape(text: str) -> str:
    """Return a text as markup in which nothing is a tag, as rich.markup.escape does."""
    escaped = _TAG.sub(lambda tag: rf"{tag[1]}{tag[1]}\[{tag[2]}]", text)
    is_open = escaped.endswith("\\") and not escaped.endswith("\\\\")
    return f"{escaped}\\" if is_open else escaped


def unmarked(markup: str) -> str:
    """Return the text of rich's markup, without its tags."""
    if "[" not in markup:
        return markup.translate(_CONTROL)
    found: list[str] = []
    end = 0
    for tag in _TAG.finditer(markup):
        found.append(markup[end : tag.start()].replace(r"\[", "["))
        slashes, is_text = divmod(len(tag[1]), 2)
        found.append("\\" * slashes + (f"[{tag[2]}]" if is_text else ""))
        end = tag.end()
    found.append(markup[end:].replace(r"\[", "["))
    return "".join(found).translate(_CONTROL)


def table(
    headings: Sequence[Heading],
    rows: Sequence[Sequence[Cell]],
    caption: str = "",
    rule: str = "─",
) -> str:
    """Return a table with a row a line and its caption below it.

    Args:
        headings: of the columns.
        rows: a cell for each heading.
        caption: one line or several; may be empty.
        rule: what the line below the headings is drawn of.
    """
    over = [heading.over for heading in headings]
    written = [[unmarked(" ".join(part for part in cell if part)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(over, *written, strict=True)]
    ruled = rule * (sum(widths) + 2 * (len(widths) - 1))
    words = [heading.of_words for heading in headings]
    rows_written = (_row(row, widths, words) for row in written)
    lines = [_row(over, widths, words), f" {ruled}", *rows_written]
    room = len(ruled) + 2
    centred = [f"{'':{max(0, room - len(text)) // 2}}{text}" for text in caption.splitlines()]
    return "".join(f"{line.rstrip()}\n" for line in ("", *lines, "", *centred))


def _row(cells: Sequence[str], widths: Sequence[int], words: Sequence[bool]) -> str:
    placed = (
        cell.ljust(width) if left else cell.rjust(width)
        for cell, width, left in zip(cells, widths, words, strict=True)
    )
    return " " + "  ".join(placed)
