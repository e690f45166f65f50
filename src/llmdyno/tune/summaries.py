"""What a step's run has measured, from the summary in its folder, if that is still there."""

from pathlib import Path
from typing import Any

from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.store import SUMMARY
from llmdyno.tune.entries import Step


def summary_of(run: Path) -> dict[str, Any] | None:
    """Return the summary in a run's folder; None: it has none, or is gone."""
    try:
        summary: dict[str, Any] = store.read_json(run / SUMMARY)
    except StorageError:
        return None
    return summary


def last_level(folder: Path, step: Step) -> dict[str, Any] | None:
    """Return the level of a step's run that decides; None: the run has no summary.

    Args:
        folder: of the study.
        step: of its ledger.
    """
    summary = summary_of(folder / step.run)
    if summary is None:
        return None
    level: dict[str, Any] = summary["levels"][-1]
    return level
