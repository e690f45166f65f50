"""A study's folder: what is opened to go on with a study, and what is written at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno import deploy, store
from llmdyno.errors import UsageError
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.store import BUNDLE, STUDY
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study


def write_study(folder: Path, document: Mapping[str, Any], stack: Stack) -> dict[str, Any]:
    """Write a study's document, and what serves its winner elsewhere, into a folder.

    Returns:
        The document as written; "bundle" is the path of the bundle, null without a winner.

    Raises:
        ServerError: what is needed to write the front's files cannot be installed.
        StorageError: a file cannot be written.
    """
    written = {**document, "bundle": None}
    try:
        if document["best"] is not None:
            place = folder / BUNDLE
            config = document["best"]["config"]
            deploy.write(place, stack, config, study=document, notify=lambda _: None)
            written["bundle"] = str(place)
    finally:  # the document must not be lost to a bundle that cannot be written
        store.write_json(folder / STUDY, written)
    return written


def stack_of(study: Study) -> Stack:
    """Return what a study tunes.

    Raises:
        UsageError: there is no such engine or front.
    """
    return load_stack(study.engine, study.front, study.model, study.engine_args)


def open_study(folder: Path) -> Study:
    """Return the spec of a study that is to be resumed.

    Raises:
        UsageError: there is no study in that folder.
    """
    ledger = Ledger(folder) if folder.is_dir() else None
    if ledger is None or ledger.began is None:
        raise UsageError(f"{folder}: holds no study; `dyno runs` lists them.")
    return ledger.spec
