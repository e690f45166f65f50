"""What failed: requests of the runs, and trials of the search."""

from collections import Counter

from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.results import wording
from llmdyno.units import counted


def lines(study: Document, runs: tuple[Run, ...]) -> list[str]:
    """Say how many requests failed in each run, and which trials did."""
    return [*(_of_run(run) for run in runs), *_of_trials(study)]


def _of_run(run: Run) -> str:
    levels = documents.levels(run.summary).values()
    counts = {
        outcome: sum(documents.number(level, "requests", outcome) or 0 for level in levels)
        for outcome in ("completed", "failed", "cut")
    }
    asked = sum(counts.values())
    said = "none failed" if not counts["failed"] else f"{wording.count(counts['failed'])} failed"
    cut = f"; {wording.count(counts['cut'])} were cut off at a level's end" if counts["cut"] else ""
    return f"{run.name}: of {counted(asked, 'request')} {said}{cut}."


def _of_trials(study: Document) -> list[str]:
    trials = documents.items(study, "trials")
    if not trials:
        return []
    failed = Counter(
        documents.text(trial, "failure", "class") or "not known"
        for trial in trials
        if documents.text(trial, "state") == "failed"
    )
    if not failed:
        return [f"Of {counted(len(trials), 'trial')} none failed."]
    classes = ", ".join(f"{count} x {kind}" for kind, count in failed.items())
    return [f"Of {counted(len(trials), 'trial')} {failed.total()} failed: {classes}."]
