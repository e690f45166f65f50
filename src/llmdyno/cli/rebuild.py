"""Documents and pages from what lies on disk: what `dyno report` does, and the end of a study."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno import store
from llmdyno.cli.output import say
from llmdyno.cli.repeat import with_repeat
from llmdyno.cli.told import guide_of
from llmdyno.errors import StorageError, UsageError
from llmdyno.predict.limits import run_with_limits, with_limits
from llmdyno.report import run_markdown, run_page, study_markdown, study_page
from llmdyno.results import doubts
from llmdyno.results.summary import summarise
from llmdyno.serve.stack import Stack
from llmdyno.store import JOURNAL, LEDGER, REPORT, STUDY, SUMMARY
from llmdyno.tune.combined_study import document_of
from llmdyno.tune.folder import write_study
from llmdyno.tune.ledger import Ledger

MARKDOWN, ASSETS = "report.md", "assets"  # beside the page


def rebuild(folder: Path, out: Path | None = None) -> tuple[Mapping[str, Any], Path]:
    """Derive the document and the page of a run or study anew and write them; return both.

    Args:
        folder: of the run or study; it is only read when `out` is another one.
        out: the folder to write into, made if it is not there; None: the run's or study's own.

    Raises:
        UsageError: the folder holds neither, `out` holds results of its own, or may not be written.
        StorageError: what the folder holds cannot be read, or a file cannot be written.
    """
    target = _target(folder, out)
    if (folder / LEDGER).exists() or (folder / STUDY).exists():
        return _rebuild_study(folder, target)
    summary = run_summary(folder)
    store.make_folder(target)
    if target != folder or (folder / JOURNAL).exists():
        store.write_json(target / SUMMARY, summary)
    page = target / REPORT
    store.write_atomically(page, run_page(with_repeat(run_with_limits(summary))).encode())
    return summary, page


def _rebuild_study(folder: Path, target: Path) -> tuple[Mapping[str, Any], Path]:
    """Derive a study anew; of one whose ledger or journals are gone, take its document as it is."""
    derived = _derived(folder)
    if derived is None:
        stored = store.read_document(folder / STUDY)
        say(f"{folder}: not all of its runs are there; the page is made of its {STUDY} as it is.")
    store.make_folder(target)
    if derived is not None:
        written = write_study(target, *derived)
        return written, write_study_page(target, written)
    if target != folder:
        store.write_json(target / STUDY, stored)
    return stored, write_study_page(target, stored)


def _derived(folder: Path) -> tuple[Mapping[str, Any], Stack] | None:
    """Derive a study's document; None: something is missing for that, and study.json is there."""
    has_document = (folder / STUDY).exists()
    if has_document and not (folder / LEDGER).exists():
        return None
    try:
        return _study(folder)
    except StorageError as error:
        if has_document and isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _target(folder: Path, out: Path | None) -> Path:
    """Return the checked folder to write into, before anything is derived, which may take long."""
    if out is None or out.resolve() == folder.resolve():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{folder}: may not be written; name another folder with --out.")
        return folder
    store.check_folder(out)
    if _holds_results(out) or _holds_another_study(out, folder):
        raise UsageError(f"--out {out}: already holds results; name another folder.")
    return out


def _holds_results(folder: Path) -> bool:
    """Return whether a folder is that of a run or a study, whose files must not be replaced."""
    if any((folder / name).exists() for name in (JOURNAL, LEDGER)):
        return True
    if not (folder / SUMMARY).exists():
        return False
    # An imported run has a summary alone; so has what an earlier report has written.
    document = store.read_json(folder / SUMMARY)
    return isinstance(document, dict) and document.get("dir") == str(folder.resolve())


def _holds_another_study(out: Path, folder: Path) -> bool:
    """Return whether a folder has the only document of a study, which is not that of `folder`."""
    if not (out / STUDY).exists():
        return False
    kept = store.read_json(out / STUDY)
    study = kept.get("study") if isinstance(kept, dict) else None
    if (folder / LEDGER).exists():
        return bool(study != folder.resolve().name)
    if not (folder / STUDY).exists():
        return True
    ours = store.read_json(folder / STUDY)
    return not isinstance(ours, dict) or bool(study != ours.get("study"))


def _study(folder: Path) -> tuple[Mapping[str, Any], Stack]:
    """Derive a study's document; return with it what was tuned."""
    ledger = Ledger(folder)
    if ledger.began is None:
        raise UsageError(f"{folder}: its ledger is empty.")
    return document_of(folder, ledger)


def run_summary(folder: Path) -> Mapping[str, Any]:
    """Derive a run's summary anew from its journal, or read it if only that is left.

    Nothing is written.

    Raises:
        UsageError: the folder holds no run.
        StorageError: what it holds cannot be read.
    """
    if (folder / JOURNAL).exists():
        return summarise(folder / JOURNAL)
    if (folder / SUMMARY).exists():
        stored = store.read_document(folder / SUMMARY)
        # One of an older version has no doubts yet.
        return {**stored, "doubts": doubts.entries(stored)}
    raise UsageError(f"{folder}: holds neither a run nor a study.")


def write_study_page(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a study's page and return its path."""
    guide = guide_of(document)
    page = folder / REPORT
    # What is predicted stands on the page alone: study.json holds what was measured.
    store.write_atomically(page, study_page(_for_page(document), guide).encode())
    return page


def write_markdown(folder: Path, document: Mapping[str, Any], assets: Path | None = None) -> Path:
    """Write the page of a run or a study as Markdown, and its charts; return the text's path.

    Args:
        folder: to write it into, beside the page.
        document: of the run or the study.
        assets: the folder of the charts; None: one beside the text.

    Raises:
        StorageError: a file cannot be written.
    """
    target = folder / MARKDOWN
    place = folder / ASSETS if assets is None else assets
    link = Path(os.path.relpath(place, folder)).as_posix()
    if "trials" in document:
        text = study_markdown(_for_page(document), guide_of(document), place, link)
    else:
        text = run_markdown(with_repeat(run_with_limits(document)), place, link)
    store.write_atomically(target, text.encode())
    return target


def _for_page(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's document with what stands on its page alone."""
    return with_repeat(with_limits(study))
