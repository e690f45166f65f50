"""A comparison as Markdown, for a pull request: what decides first, the rest folded away."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.results import comparison_words as words
from llmdyno.results.comparison_words import Row

_MARKS = {
    "better": "🟢",
    "worse": "🔴",
    "mixed": "🟡",
    "no difference": "⚪",
    "not confirmed": "🟡",
    "not comparable": "🟡",
}
_HEAD = ("Level", "Metric", "Before", "After", "Difference", "95 % interval", "Verdict")


def comparison_markdown(document: Mapping[str, Any]) -> str:
    """Return a comparison's document as Markdown (GitHub's and GitLab's)."""
    parts = ["## Benchmark against " + _code(document["before"]["name"])]
    if gate := document["gate"]:
        mark = "❌" if gate["status"] else "✅"
        parts.append(f"{mark} {_escaped(gate['said'])}")
    for found in document["comparisons"]:
        parts += _one(found)
    return "\n\n".join(parts) + "\n"


def _one(found: Mapping[str, Any]) -> list[str]:
    mark = _MARKS.get(found["verdict"], "")
    parts = [f"### {_code(found['after']['name'])}", f"{mark} **{_escaped(found['said'])}**"]
    rows = msgspec.convert(found["rows"], list[Row])
    deciding = [row for row in rows if row.decides]
    others = [row for row in rows if not row.decides]
    if deciding:
        parts.append(_table(deciding))
    told = [f"{said}." for said in found["only_in_one"]]
    told += [f"Unlike {said}" for said in found["warnings"]]
    told += [doubt["text"] for doubt in found["doubts"]]
    told += _spoilt(rows)
    if told:
        parts.append("\n".join(f"- ⚠️ {_escaped(said)}" for said in told))
    if others:
        parts.append(_folded("All metrics", _table(others)))
    settings = [one for one in found["differences"] if not one["warns"]]
    if settings:
        cells = [[_code(one[key]) for key in ("name", "before", "after")] for one in settings]
        parts.append(_folded("Settings that differ", _lines(("Setting", "Before", "After"), cells)))
    return parts


def _spoilt(rows: Sequence[Row]) -> list[str]:
    """Say which doubts spoil which levels."""
    levels: dict[str, dict[str, None]] = {}
    for row in rows:
        for code in row.doubts:
            levels.setdefault(code, {})[row.at] = None
    return [f"Spoilt by a doubt, {code}: {', '.join(names)}" for code, names in levels.items()]


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (
            _escaped(row.at),
            _escaped(row.title) + (" ?" if row.doubts else ""),
            _escaped(words.value(row, "before")),
            _escaped(words.value(row, "after")),
            _escaped(words.difference(row)),
            _escaped(words.interval(row)),
            f"{_MARKS[row.verdict]} {_escaped(words.verdict(row))}",
        )
        for row in rows
    ]
    return _lines(_HEAD, cells)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"


def _escaped(text: str) -> str:
    """Keep a text from being read as Markdown or HTML: it may hold a server's or a user's words."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _code(text: str) -> str:
    """Write a name as code; what ends code or a table's cell is replaced."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
