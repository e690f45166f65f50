"""Documents and pages from what lies on disk: what `dyno report` does, and the end of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno import doubts, plugins, store
from llmdyno.bench import JOURNAL, SUMMARY
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob
from llmdyno.ledger import LEDGER, Ledger
from llmdyno.report import run_page, study_page
from llmdyno.study import study_document
from llmdyno.summary import summarise
from llmdyno.tune import STUDY, subject_of

REPORT = "report.html"


def rebuild(folder: Path) -> tuple[Mapping[str, Any], Path]:
    """Derive the document and the page of a run or study anew; return both.

    Raises:
        UsageError: the folder holds neither.
        StorageError: what it holds cannot be read.
    """
    if (folder / LEDGER).exists():
        ledger = Ledger(folder)
        if ledger.began is None:
            raise UsageError(f"{folder}: its ledger is empty.")
        document = study_document(folder, ledger, subject_of(ledger.began.spec))
        store.write_json(folder / STUDY, document)
        return document, write_study_page(folder, document)
    summary = run_summary(folder)
    page = folder / REPORT
    store.write_atomically(page, run_page(summary).encode())
    return summary, page


def run_summary(folder: Path) -> Mapping[str, Any]:
    """Derive a run's summary anew from its journal, or read it if only that is left.

    Raises:
        UsageError: the folder holds no run.
        StorageError: what it holds cannot be read.
    """
    if (folder / JOURNAL).exists():
        summary = summarise(folder / JOURNAL)
        store.write_json(folder / SUMMARY, summary)
        return summary
    if (folder / SUMMARY).exists():
        stored: Mapping[str, Any] = store.read_json(folder / SUMMARY)
        # One of an older version has no doubts yet.
        return {**stored, "doubts": doubts.entries(stored)}
    raise UsageError(f"{folder}: holds neither a run nor a study.")


def write_study_page(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a study's page and return its path."""
    guide = guide_of(document)
    page = folder / REPORT
    store.write_atomically(page, study_page(document, guide).encode())
    return page


def guide_of(document: Mapping[str, Any]) -> dict[str, Knob]:
    """Return the guide to the settings of a study's engine and front, by name."""
    parts = (plugins.load("engines", document["engine"]), plugins.load("fronts", document["front"]))
    return {knob.name: knob for part in parts for knob in part.knobs}
