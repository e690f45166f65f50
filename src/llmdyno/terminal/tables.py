"""Tables that can be read on a terminal of any width, and lines that are wrapped between words.

A file or a pipe has no width: what goes there is never cut and never wrapped.
"""

import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO, cast

from llmdyno.terminal.plain import UNLIMITED_CELLS, Cell, Heading, Paper, Plain, table

if TYPE_CHECKING:
    from rich.console import Console

_TEXT_CELLS = 78  # of texts that are read as a page, where nothing says how wide it is

__all__ = ["Cell", "Heading", "console", "fits", "line", "show_blocks", "show_table", "wrapped"]


def width_of(stream: TextIO) -> int:
    """Return how many cells a line of a stream may have; many if it is no terminal."""
    return _terminal(stream).width if stream.isatty() else UNLIMITED_CELLS


def console(stream: TextIO) -> Paper:
    """Return a console that writes to a stream, which has a width only if it is a terminal."""
    wants_colours = stream.isatty() or os.environ.get("FORCE_COLOR")
    return _terminal(stream) if wants_colours else Plain(stream)


def _terminal(stream: TextIO) -> "Console":
    from llmdyno.terminal import coloured  # imports rich: see plain.py

    return coloured.console(stream)


def show_table(
    out: Paper, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], caption: str = ""
) -> None:
    """Print a table in the first of three forms that fits the width.

    They are: a row a line; intervals below their values; a block a row, where each line has a
    heading and a value.
    """
    if isinstance(out, Plain):
        out.file.write(table(headings, rows, caption, out.rule))
        return
    from llmdyno.terminal import coloured

    if coloured.show_table(cast("Console", out), headings, rows, caption):
        return
    show_blocks(out, headings, rows)
    if caption:
        out.print(f"\n{' '.join(caption.split())}")


def show_blocks(out: Paper, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]]) -> None:
    """Print each row as a block: its first cell, and below it a line for each other one."""
    for row in rows:
        out.print(f"\n[bold]{row[0].value}[/]")
        lines = [
            (heading.alone or heading.over, f"{cell.value} {cell.interval}".rstrip())
            for heading, cell in zip(headings[1:], row[1:], strict=True)
            if cell.value or cell.interval  # what has no value needs no line
        ]
        if isinstance(out, Plain):
            width = max((len(heading) for heading, _ in lines), default=0)
            for heading, value in lines:
                out.print(f"  {heading:<{width}} {value}".rstrip())
        else:
            from llmdyno.terminal import coloured

            coloured.show_block(cast("Console", out), lines)


def fits(out: Paper, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]]) -> bool:
    """Tell whether a table can be printed with a row a line."""
    if isinstance(out, Plain):
        return True
    from llmdyno.terminal import coloured

    return coloured.fits(cast("Console", out), headings, rows)


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
