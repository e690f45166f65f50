"""Tables that can be read on a terminal of any width, and lines that are wrapped between words.

A file or a pipe has no width: what goes there is never cut and never wrapped.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

_UNLIMITED_CELLS = 10_000
_TEXT_CELLS = 78  # of texts that are read as a page, where nothing says how wide it is


class Cell(NamedTuple):
    """What a table says in one place: a value, in rich's markup, and perhaps its interval."""

    value: str
    interval: str = ""


class Heading(NamedTuple):
    """What a column is called: over it, and where it stands alone."""

    over: str
    alone: str = ""  # empty: the same


def width_of(stream: TextIO) -> int:
    """Return how many cells a line of a stream may have; many if it is no terminal."""
    return Console(file=stream).width if stream.isatty() else _UNLIMITED_CELLS


def console(stream: TextIO) -> Console:
    """Return a console that writes to a stream, which has a width only if it is a terminal."""
    return Console(file=stream, highlight=False, width=width_of(stream))


def show_table(
    out: Console, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], caption: str = ""
) -> None:
    """Print a table in the first of three forms that fits the width.

    They are: a row a line; intervals below their values; a block a row, where each line has a
    heading and a value.
    """
    for divider in (" ", "\n"):
        table = _table(headings, rows, divider)
        if _fits(table, out):
            table.caption = caption or None
            out.print(table)
            return
    show_blocks(out, headings, rows)
    if caption:
        out.print(f"\n{' '.join(caption.split())}")


def show_blocks(out: Console, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]]) -> None:
    """Print each row as a block: its first cell, and below it a line for each other one."""
    for row in rows:
        out.print(f"\n[bold]{row[0].value}[/]")
        block = Table.grid(padding=(0, 1, 0, 0))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            block.add_row(heading.alone or heading.over, f"{cell.value} {cell.interval}".rstrip())
        out.print(Padding(block, (0, 0, 0, 2)))


def fits(out: Console, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]]) -> bool:
    """Tell whether a table can be printed with a row a line."""
    return _fits(_table(headings, rows, " "), out)


def _table(headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], divider: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading.over, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(divider.join(part for part in (cell.value, cell.interval) if part) for cell in row)
        )
    return table


def _fits(table: Table, out: Console) -> bool:
    anyhow = out.options.update(width=_UNLIMITED_CELLS)
    return Measurement.get(out, anyhow, table).maximum <= out.width


def wrapped(words: str, stream: TextIO, *, first: str = "", rest: str = "") -> str:
    """Return words as lines that end between words; names with hyphens and paths stay whole.

    On a terminal they are as long as it is wide, at most 78 cells; elsewhere they have 78.

    Args:
        words: the text.
        stream: where it will be written.
        first: what the first line begins with.
        rest: what the others begin with.
    """
    lines = textwrap.wrap(
        words,
        max(20, min(_TEXT_CELLS, width_of(stream))),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines) + "\n"


def line(words: str, stream: TextIO) -> str:
    """Return words as one line or, on a terminal where they are longer, as several, indented."""
    if len(words) <= width_of(stream):
        return f"{words}\n"
    return wrapped(words, stream, rest="    ")
