"""Tables on a terminal, of any width and with colours, drawn by rich."""

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from llmdyno.terminal.plain import UNLIMITED_CELLS, Cell, Heading


def console(stream: TextIO) -> Console:
    """Return rich's console, whose width is the terminal's."""
    return Console(file=stream, highlight=False, width=None if stream.isatty() else UNLIMITED_CELLS)


def show_table(
    out: Console, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], caption: str
) -> bool:
    """Print a table with a row a line, or with intervals below their values; False: neither fits.

    Args:
        out: the terminal.
        headings: of the columns.
        rows: a cell for each heading.
        caption: below the table; may be empty.
    """
    for divider in (" ", "\n"):
        table = _table(headings, rows, divider)
        if _fits(table, out):
            table.caption = caption or None
            out.print(table)
            return True
    return False


def show_block(out: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Print headings with their values, a line each; a long value goes on below itself."""
    block = Table.grid(padding=(0, 1, 0, 0))
    block.add_column(no_wrap=True)
    block.add_column(overflow="fold")
    for heading, value in lines:
        block.add_row(heading, value)
    out.print(Padding(block, (0, 0, 0, 2)))


def fits(out: Console, headings: Sequence[Heading], rows: Sequence[Sequence[Cell]]) -> bool:
    """Tell whether a table can be printed with a row a line."""
    return _fits(_table(headings, rows, " "), out)


def _table(headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], divider: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        side: JustifyMethod = "left" if heading.of_words else "right"
        table.add_column(heading.over, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(
            *(divider.join(part for part in (cell.value, cell.interval) if part) for cell in row)
        )
    return table


def _fits(table: Table, out: Console) -> bool:
    anyhow = out.options.update(width=UNLIMITED_CELLS)
    return Measurement.get(out, anyhow, table).maximum <= out.width
