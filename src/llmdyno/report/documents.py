"""Reads summary and study documents, old ones and incomplete ones too.

The report's inputs are plain JSON documents: from a run that has just ended, or from a file that an
earlier version wrote, or from a run that broke off. The readers of llmdyno.results.documents take
whatever is there; what a page cannot do without is checked once, by `require`.
"""

from collections.abc import Sequence

import msgspec

from llmdyno.errors import StorageError
from llmdyno.results.documents import (
    Document,
    Interval,
    finite,
    flat,
    interval,
    items,
    levels,
    number,
    part,
    text,
    texts,
)

# The readers of documents that every page needs are exported here too: a plot imports one module.
__all__ = [
    "Document",
    "Interval",
    "Material",
    "Run",
    "confirmation_runs",
    "finite",
    "flat",
    "interval",
    "items",
    "level_names",
    "levels",
    "number",
    "pair_number",
    "part",
    "require",
    "text",
    "texts",
]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One measured run under the name that the page gives it: Baseline, Tuned, Before, After."""

    name: str
    summary: Document


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plot may draw from: the runs in the order of the page, and the study if any."""

    runs: tuple[Run, ...]
    study: Document = msgspec.field(default_factory=dict)


def require(document: Document, schema: str) -> None:
    """Refuse a document that is not of the schema, rather than make an empty page of it.

    Raises:
        StorageError: the document says that it is something else.
    """
    found = document.get("schema")
    if found != schema:
        raise StorageError(f"report: schema is {found!r}, but this page is made of '{schema}'.")


def confirmation_runs(study: Document) -> list[Document]:
    """Return the single runs of the pairs in the order in which they were made."""
    return items(part(study, "confirmation"), "runs")


def pair_number(run: Document) -> float | None:
    """Return the number of a confirmation run's pair as a person counts: from 1."""
    counted = number(run, "pair")
    return None if counted is None else counted + 1


def level_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all levels of these runs, each once, in the order of the first."""
    return list(dict.fromkeys(name for run in runs for name in levels(run.summary)))
