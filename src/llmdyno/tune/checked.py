"""What a study has asked of its quality gate so far: its quality.json, and what is told of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import store
from llmdyno.knobs import Value
from llmdyno.quality.answers import Answers
from llmdyno.quality.gate import SCHEMA
from llmdyno.results.quality import sentences

QUALITY = "quality.json"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A config that was compared with the baseline."""

    config: dict[str, Value]
    document: dict[str, Any]
    refused: bool = False


class Kept(msgspec.Struct, kw_only=True):
    """The content of a study's quality.json: what was asked, and what came of each config."""

    version: int = 1
    baseline: Answers | None = None
    checked: list[Checked] = []


def read(folder: Path) -> Kept:
    """Return what a study has asked so far; nothing where there is no such file.

    Raises:
        StorageError: the file cannot be read.
    """
    path = folder / QUALITY
    if not path.exists():
        return Kept()
    return msgspec.convert(store.read_json(path), Kept)


def told(folder: Path, winner: Mapping[str, Value] | None) -> dict[str, Any] | None:
    """Return the "quality" of a study's document: of its winner, and of whom it has refused."""
    kept = read(folder)
    refused = [
        {"config": one.config, "said": sentences(one.document)[:1]}
        for one in kept.checked
        if one.refused and one.config != winner
    ]
    own = next((one.document for one in kept.checked if one.config == winner), None)
    if own is None and not refused:
        return None
    return {**(own or {"schema": SCHEMA, "comparison": None, "verdict": None}), "refused": refused}
