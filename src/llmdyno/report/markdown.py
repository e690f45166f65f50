"""Sets a page as Markdown, ready for a blog or a pull request; its charts stand beside it as files.

It sets the very page that html.py sets, with the same sentences, tables and charts. What a text
holds is text: signs that mean something in Markdown or HTML are escaped.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from llmdyno import store
from llmdyno.report import drawing
from llmdyno.report.pages import Figure, Page, Section
from llmdyno.report.tables import Cell, Row, Table

_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~])")


def set_page(page: Page, assets: Path, link: str) -> str:
    """Set a page, and write its charts as SVG and PNG.

    Args:
        page: what stands on it.
        assets: the folder of the charts, made if it is not there.
        link: the folder's path as the text names it, from where the text stands.

    Raises:
        StorageError: a file cannot be written.
    """
    verdict = page.verdict
    parts = [f"# {_text(verdict.heading or verdict.sentence)}", _text(verdict.rest)]
    parts.append(_text(page.subtitle))
    if page.warnings:
        parts += ["**These runs are not alike:**", _list(page.warnings)]
    for section in page.sections:
        if section.says_something():
            parts += [f"## {_text(section.title)}", *_section(section, assets, link)]
    none = "None of the checks found a reason for doubt."
    parts += ["## What is doubtful", _list(page.doubts) if page.doubts else none]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, assets: Path, link: str) -> list[str]:
    steps = [f"{place}. {_text(step)}" for place, step in enumerate(section.steps, start=1)]
    parts = ["\n".join(steps)]
    parts += [f"**{_text(one.question)}** {_text(one.says)}" for one in section.answers]
    parts += [_figure(figure, assets, link) for figure in section.figures]
    parts += [_table(table) for table in section.tables if table]
    parts += [
        "\n".join(
            f"- **{_text(term.title)}** ({_text(term.unit)}, {term.better} is better):"
            f" {_text(term.definition)}"
            for term in section.terms
        )
    ]
    parts.append(_list(section.lines))
    for block in section.blocks:
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", block.text)), default=0))
        parts.append(f"{_text(block.what)}\n\n{fence}sh\n{block.text}\n{fence}")
    return parts


def _figure(figure: Figure, assets: Path, link: str) -> str:
    """Write a chart's files; return what shows the SVG, and leads to the PNG."""
    svg, png = drawing.still(figure.specification)
    store.make_folder(assets)
    store.write_atomically(assets / f"{figure.name}.svg", svg.encode())
    store.write_atomically(assets / f"{figure.name}.png", png)
    place = f"{link}/{figure.name}".replace(" ", "%20")
    title, says = _text(figure.title), _text(figure.says)
    return f"![{title}. {says}]({place}.svg)\n\n**{title}.** {says} ([PNG]({place}.png))"


def _table(table: Table) -> str:
    """Set a table; a folded one opens on a click, where that is understood."""
    heads = len(table.rows[0].heads)
    numbers = [kind == "number" for _, kind in table.columns]
    lines = [
        [_text(title) for title, _ in table.columns],
        ["---:" if number else "---" for number in numbers],
    ]
    spans: list[tuple[str, int]] = [("", 0)] * heads
    below: list[str] = []
    for row in table.rows:
        lines.append([*_heads(row, spans, len(table.columns)), *map(_cell, row.cells)])
        below += _below(row)
    written = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    body = "\n\n".join(one for one in (written, "\n".join(below)) if one)
    if table.folded:
        return f"<details><summary>{_text(table.caption)}</summary>\n\n{body}\n\n</details>"
    return f"*{_text(table.caption)}*\n\n{body}"


def _heads(row: Row, spans: list[tuple[str, int]], columns: int) -> list[str]:
    """Return the cells that name a row; one that spans rows is written in each of them."""
    wanted = columns - len(row.cells)
    kept = wanted - len(row.heads)
    for place, head in enumerate(row.heads):
        at = kept + place
        spans[at : at + 1] = [head]
    return [f"**{_text(text)}**" for text, _ in spans[:wanted]]


def _below(row: Row) -> list[str]:
    """Return what stands below a row, as an item of the list that follows its table."""
    if not row.codes and not row.says:
        return []
    name = " ".join(text for text, _ in row.heads)
    codes = ", ".join(_code(code) for code in row.codes)
    return [f"- **{_text(name)}**: {' '.join(one for one in (codes, _text(row.says)) if one)}"]


def _cell(cell: Cell) -> str:
    said = _code(cell.text) if cell.kind == "code" else _text(cell.text)
    said = f"**{said}**" if cell.tone == "bad" else said
    return f"{said}<br>{_text(cell.detail)}" if cell.detail else said


def _code(text: str) -> str:
    """Set a text as code; one with a backtick or a bar, which end it in a table, as text."""
    one_line = " ".join(text.split())
    return _text(one_line) if not one_line or re.search(r"[`|]", one_line) else f"`{one_line}`"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _text(text: str) -> str:
    return _SIGNS.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
