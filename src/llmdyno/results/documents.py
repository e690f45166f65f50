"""Reads JSON documents of ours, old ones and incomplete ones too.

A document comes from a run that has just ended, from a file that an earlier version wrote, or from
a run that broke off. Whatever is missing reads as None or as empty, so a reader works with what
there is and never fails over what there is not.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmdyno.units import counted

Document = Mapping[str, Any]
Interval = tuple[float, float]


def part(document: Document, *path: str) -> Document:
    """Return the mapping at that path, or an empty one."""
    found: Any = document
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def items(document: Document, key: str) -> list[Document]:
    """Return the mappings of the list under that key, or none."""
    found = document.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [item for item in found if isinstance(item, Mapping)]


def number(document: Document, *path: str) -> float | None:
    """Return the finite number at that path, or None."""
    return finite(part(document, *path[:-1]).get(path[-1]))


def finite(value: object) -> float | None:
    """Return the value if it is a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def interval(document: Document, *path: str) -> Interval | None:
    """Return the two ends of the interval at that path, or None."""
    match part(document, *path[:-1]).get(path[-1]):
        case [int() | float() as low, int() | float() as high]:
            return (low, high) if math.isfinite(low) and math.isfinite(high) else None
    return None


def text(document: Document, *path: str) -> str:
    """Return what stands at that path as text; nothing is an empty text."""
    found = part(document, *path[:-1]).get(path[-1])
    return "" if found is None else str(found)


def texts(document: Document, *path: str) -> list[str]:
    """Return the list at that path as texts, or none."""
    found = part(document, *path[:-1]).get(path[-1])
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [str(item) for item in found]


def level_name(level: Document) -> str:
    """Return what a level of a summary document is called: "10 users", "poisson 2/s".

    A label tells levels of one load apart: an imported file may hold those of several models.
    """
    users, arrival, rate = level.get("users"), level.get("arrival") or "closed", level.get("rate")
    label = f", {level['label']}" if level.get("label") else ""
    if arrival == "closed":
        return ("level" if users is None else counted(users, "user")) + label
    pace = f"{arrival} arrivals" if rate is None else f"{arrival} {rate:g}/s"
    return pace + (f", {counted(users, 'user')}" if users is not None else "") + label


def short_loads(levels: Iterable[Document]) -> tuple[str, dict[str, str]]:
    """Return the head of a column of loads, with its unit, and each level's name to its cell."""
    found = list(levels)
    head = "requests/s" if any(level.get("rate") is not None for level in found) else "users"
    cells = {}
    for level in found:
        load = level.get("rate") if head == "requests/s" else level.get("users")
        cells[level_name(level)] = (
            f"{load:g}" if load is not None else str(level.get("arrival") or "closed")
        )
    return head, cells


def levels(summary: Document) -> dict[str, Document]:
    """Return the levels by name, in the order in which they were run.

    A closed level is named by its users, an open one by its arrivals; a second one of the same name
    says so.
    """
    named: dict[str, Document] = {}
    seen: Counter[str] = Counter()
    for level in items(summary, "levels"):
        name = level_name(level)
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = level
    return named


def flat(document: Document, prefix: str = "") -> dict[str, str]:
    """Return a nested document as one level of dotted names and texts, to compare and to print."""
    rows: dict[str, str] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows |= flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if any(isinstance(item, Mapping) for item in value):
                rows |= flat({str(place): item for place, item in enumerate(value)}, f"{name}.")
            elif value:
                rows[name] = ", ".join(_fact(item) for item in value)
        elif value not in {None, ""}:
            rows[name] = _fact(value)
    return rows


def _fact(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
