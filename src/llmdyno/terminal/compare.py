"""A comparison on the terminal: a sentence, a row a level and metric, and what makes it doubtful.

Everything here goes to standard error, but for the list of baselines; standard output is for
results.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmdyno.results import comparison_words as words
from llmdyno.results.baselines import Kept
from llmdyno.results.comparison_words import Row
from llmdyno.results.metrics import BY_NAME
from llmdyno.terminal.tables import line
from llmdyno.units import counted

_COLOURS = {"better": "green", "worse": "red", "not comparable": "yellow"}
_NUMBERS = ("before", "after", "difference", "95 % interval")
_WORDS_MIN = 28  # of metric and verdict, beside the numbers
_Cells = tuple[str, str, str, str, str, str]
_VERDICT_COLOURS = {**_COLOURS, "mixed": "yellow", "not confirmed": "yellow"}


def show_comparison(document: Mapping[str, Any], out: Console) -> None:
    """Print a comparison's document: for each other side its sentence, table and warnings."""
    whole = not out.is_terminal  # a file gets each sentence in one line, a person's are wrapped
    for found in document["comparisons"]:
        _show_one(document["before"], found, out, whole=whole)
    if gate := document["gate"]:
        colour = "red" if gate["status"] else "green"
        out.print(f"[{colour}]{escape(gate['said'])}[/]", soft_wrap=whole)


def _show_one(
    before: Mapping[str, Any], found: Mapping[str, Any], out: Console, *, whole: bool
) -> None:
    colour = _VERDICT_COLOURS.get(found["verdict"], "")
    said = escape(found["said"])
    out.print(f"[bold {colour}]{said}[/]" if colour else f"[bold]{said}[/]", soft_wrap=whole)
    names = (f"{side['name']} ({_kind(side)})" for side in (before, found["after"]))
    out.print(escape("Before: {}; after: {}.".format(*names)), soft_wrap=whole)
    rows = msgspec.convert(found["rows"], list[Row])
    if rows:
        _show_rows(rows, out, whole=whole)
    for said in found["only_in_one"]:
        out.print(f"[yellow]![/] {escape(said)}.", soft_wrap=whole)
    for said in found["warnings"]:
        out.print(f"[yellow]![/] unlike {escape(said)}", soft_wrap=whole)
    for doubt in found["doubts"]:
        out.print(f"[yellow]![/] {escape(doubt['text'])}", soft_wrap=whole)
    settings = [one for one in found["differences"] if not one["warns"]]
    for one in settings:
        said = f"{one['name']}: {one['before']} before, {one['after']} after"
        out.print(f"[dim]setting {escape(said)}[/]", soft_wrap=whole)


def _kind(side: Mapping[str, Any]) -> str:
    """Say what a side is: "run of 3 rounds", "4 runs of a study"."""
    runs, rounds = len(side["runs"]), side["rounds"]
    of = f" of {rounds} rounds" if rounds > 1 else ""
    if side["kind"] == "study":
        return f"{counted(runs, 'run')} of a study{of}"
    return f"{side['kind']}{of}" if runs == 1 else f"{counted(runs, 'run')}{of}"


def _show_rows(rows: Sequence[Row], out: Console, *, whole: bool) -> None:
    """Print the rows below their levels, and what is to be said of several of them at once."""
    shared = {}  # why no row of a level can be compared
    levels: dict[str, list[_Cells]] = {}
    for at in dict.fromkeys(row.at for row in rows):
        own = [row for row in rows if row.at == at]
        whys = {row.why for row in own}
        if len(whys) == 1 and "" not in whys:
            shared[at] = whys.pop()
        levels[at] = [_cells(row, with_why=at not in shared) for row in own]
    numbers = [cells[1:5] for own in levels.values() for cells in own]
    widths = [max(map(len, column)) + 1 for column in zip(_NUMBERS, *numbers, strict=True)]
    if whole or out.width >= sum(widths) + _WORDS_MIN:
        _show_table(levels, out, whole=whole)
    else:
        _show_blocks(levels, out)
    notes = [f"{at}: not comparable: {why}." for at, why in shared.items()]
    notes += [
        f"Rows with ? at {at} are spoilt by {', '.join(codes)} (docs/doubts.md)."
        for at, codes in _spoilt(rows)
    ]
    if any(_is_luck(row) for row in rows):
        notes.append(
            "An interval that leaves out 0 is no difference by itself: of so many, some do by luck."
        )
    for note in notes:
        out.print(f"[yellow]![/] {escape(note)}", soft_wrap=whole)


def _show_table(levels: Mapping[str, Sequence[_Cells]], out: Console, *, whole: bool) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", no_wrap=whole)
    for heading in _NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", no_wrap=whole)
    for at, own in levels.items():
        table.add_row(f"[bold]{escape(at)}[/]")
        for cells in own:
            table.add_row(*cells)
    out.print(table)


def _show_blocks(levels: Mapping[str, Sequence[_Cells]], out: Console) -> None:
    """Print a row in lines of its own, where the columns would not fit beside one another."""
    for at, own in levels.items():
        out.print(f"\n[bold]{escape(at)}[/]")
        for name, before, after, difference, interval, verdict in own:
            out.print(f"{name}: {verdict}")
            out.print(f"  {before} → {after}, {difference} {interval}".rstrip())
    out.print("")


def _spoilt(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return the levels with the codes of the doubts that spoil rows there; equal ones as one."""
    codes: dict[str, dict[str, None]] = {}
    for row in rows:
        for code in row.doubts:
            codes.setdefault(row.at, {})[code] = None
    levels: dict[tuple[str, ...], list[str]] = {}
    for at, found in codes.items():
        levels.setdefault(tuple(found), []).append(at)
    return [(", ".join(names), list(found)) for found, names in levels.items()]


def _is_luck(row: Row) -> bool:
    """Tell whether a row's interval alone would show a difference."""
    bounds = row.ci95_pct or row.difference_ci95
    if bounds is None or row.verdict != "no difference":
        return False
    return not bounds[0] <= 0 <= bounds[1]


def _cells(row: Row, *, with_why: bool) -> _Cells:
    """Write a row; a reason that all rows of its level share is told once, below the table."""
    verdict = words.verdict(row) if with_why else row.verdict
    colour = _COLOURS.get(row.verdict)
    unit = BY_NAME[row.metric].unit
    name = row.title if unit == "ms" else f"{row.title}, {unit}"
    return (
        escape(f"{name} ?" if row.doubts else name),
        words.bare(row, "before"),
        words.bare(row, "after"),
        words.difference(row),
        escape(words.interval(row)),
        f"[{colour}]{escape(verdict)}[/]" if colour else escape(verdict),
    )


def show_kept(kept: Sequence[Kept], stream: TextIO) -> None:
    """Print a line for each baseline, or that there is none."""
    if not kept:
        stream.write("No baselines in this folder.\n")
    stream.writelines(
        line(
            f"{one.name}  {', '.join(one.runs)}  {one.workload} on {one.machine}, kept {one.kept}",
            stream,
        )
        for one in kept
    )
