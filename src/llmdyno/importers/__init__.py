"""Other tools' result files as summary documents of ours. One file a tool, `IMPORTER` last.

An old result is worth keeping beside a new one, so it becomes a run like any other: a folder with
a summary.json that `dyno report`, `dyno compare` and `dyno runs` read. It was not measured by our
definitions, however. So each importer states in `definitions` what its tool means by a metric where
we mean something else. These sentences stand in the document's `spec`, where a comparison looks for
differences between two runs, and in `imported.notes` for a reader. They are no doubts: a metric
that is defined otherwise is another metric, not a wrong one. What the file itself lacks or
contradicts is a doubt, and stands under "doubts" as well. A number that the file does not hold is
null, and so is one that cannot be (_plausible.py); nothing is computed from an assumption.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from llmdyno import plugins, store
from llmdyno.errors import UsageError
from llmdyno.importers._documents import Foreign, from_json, from_yaml
from llmdyno.importers._level import ForeignLevel, level_document, statistics
from llmdyno.importers._looks import looks
from llmdyno.importers._plausible import checked
from llmdyno.importers._text import read_text
from llmdyno.results import doubts
from llmdyno.results.documents import level_name
from llmdyno.results.summary import SCHEMA
from llmdyno.store import JOURNAL, SUMMARY

__all__ = [
    "Findings",
    "Foreign",
    "ForeignLevel",
    "Importer",
    "TextImporter",
    "import_file",
    "run_id",
    "statistics",
    "store_imported",
]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What an importer found in a file: the levels, and what the file says of the run."""

    levels: list[ForeignLevel | dict[str, Any]]  # a dict: a level of a summary as it is
    spec: dict[str, Any]  # what was asked, under our own names where we have one
    version: str | None = None  # of the tool
    started: str | None = None  # ISO 8601; without a zone if the file has none
    environment: dict[str, Any] = {}
    notes: tuple[str, ...] = ()  # on this file, beside the tool's definitions


class Importer(Protocol):
    """The interface of an importer."""

    name: str
    # What the tool means by a metric, or by another part of a level, where we mean something else.
    definitions: Mapping[str, str]

    def recognises(self, document: Foreign) -> bool:
        """Tell whether this is one of the tool's results, by keys that no other file has."""

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return what the file holds: one document, or several; each is recognised.

        Raises:
            msgspec.ValidationError: a value is missing or of the wrong type.
        """


@runtime_checkable
class TextImporter(Protocol):
    """What an importer has as well if its tool writes neither JSON nor YAML."""

    def parse(self, text: str) -> list[Foreign]:
        """Return what a text of the tool holds as documents; none: it is not the tool's."""


def import_file(path: Path, tool: str | None = None) -> dict[str, Any]:
    """Return another tool's result file as a summary document.

    Args:
        path: the tool's file.
        tool: the tool's name, e.g. "vllm"; None: it is recognised by the content.

    Raises:
        UsageError: there is no such tool, or the file is not one of its results.
        StorageError: the file cannot be read.
    """
    named: Importer | None = None if tool is None else plugins.load("importers", tool)
    known = _known(named)
    text = read_text(path)
    documents = _decode(path, text, known)
    chosen = _choose(path, text, documents, known, named)
    try:
        findings = chosen.read(documents)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: is not a result of {chosen.name} as we know them: {error}."
        ) from error
    levels, notes = _levels(findings.levels)
    definitions = dict(chosen.definitions)
    document = {
        "schema": SCHEMA,
        "run": "",
        "dir": "",
        "started": findings.started,
        "environment": _plain(findings.environment),
        "spec": {"tool": chosen.name, **_plain(findings.spec), "definitions": definitions},
        "levels": levels,
        "slo": [],
        "imported": {
            "tool": chosen.name,
            "version": findings.version,
            "file": path.name,
            "notes": [
                *(f"{subject}: {meaning}" for subject, meaning in definitions.items()),
                *findings.notes,
                *notes,
            ],
        },
    }
    return {**document, "doubts": doubts.entries(document)}


def run_id(document: Mapping[str, Any]) -> str:
    """Return a new id for a run that was imported."""
    model = str(document["spec"].get("model") or "").partition(",")[0]
    return store.new_id(f"{document['imported']['tool']}-{Path(model).name}")


def store_imported(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make an imported document a run in a folder of its own, and return it as stored.

    Raises:
        UsageError: the folder already holds a run.
        StorageError: it cannot be written.
    """
    if any((folder / name).exists() for name in (JOURNAL, SUMMARY)):
        raise UsageError(f"--out {folder}: already holds results; name another folder.")
    store.make_folder(folder)
    stored = {**document, "run": folder.name, "dir": str(folder.resolve())}
    store.write_json(folder / SUMMARY, stored)
    return stored


def _known(named: Importer | None) -> list[Importer]:
    """Return our importers, and the named one if it is somebody else's."""
    ours: list[Importer] = [plugins.load("importers", one) for one in plugins.names("importers")]
    return ours if named is None or named in ours else [*ours, named]


def _decode(path: Path, text: str, known: Sequence[Importer]) -> list[Foreign]:
    if not text.strip():
        raise UsageError(f"{path}: is empty, so it is not JSON: it holds no JSON object.")
    for one in known:
        if isinstance(one, TextImporter) and (parsed := one.parse(text)):
            return parsed
    if documents := from_json(path, text):
        return documents
    said = looks(text, [])
    # "INFO: started" is a mapping of YAML, too.
    if said != "a log" and (documents := from_yaml(text)):
        return documents
    raise UsageError(f"{path}: is not JSON: it looks like {said}; {_readable(known)}.")


def _choose(
    path: Path,
    text: str,
    documents: Sequence[Foreign],
    known: Sequence[Importer],
    named: Importer | None,
) -> Importer:
    """Return the importer of a file's documents: the named one, or that of the first of them."""
    chosen = named or next((one for one in known if one.recognises(documents[0])), None)
    if chosen is None:
        raise UsageError(
            f"{path}: is no result that we know: it looks like {looks(text, documents)};"
            f" {_readable(known)}."
        )
    for number, document in enumerate(documents, 1):
        if not chosen.recognises(document):
            other = next((one.name for one in known if one.recognises(document)), None)
            said = looks(text, [document]) if other is None else f"a result of {other}"
            which = "" if len(documents) == 1 else f" (entry {number} of {len(documents)})"
            raise UsageError(
                f"{path}: is not a result of {chosen.name}: it looks like {said}{which}."
            )
    return chosen


def _readable(known: Sequence[Importer]) -> str:
    return f"tools that can be read: {', '.join(one.name for one in known)}"


def _levels(
    found: Sequence[ForeignLevel | dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the levels of a summary, and the notes on what in them cannot be.

    A level is called after its load. Where the lines of a file differ in the model, the endpoint or
    a setting, that is its label, so that two of them are never taken for one.
    """
    levels, all_notes = [], []
    for level in found:
        if isinstance(level, ForeignLevel):
            clean, notes = checked(level)
            levels.append(level_document(clean))
            all_notes.append(notes)
        else:
            levels.append(level)
            all_notes.append([])
    caps = {level["max_concurrency"] for level in levels if "max_concurrency" in level}
    asked = [_identity(level, is_capped=len(caps) > 1) for level in levels]
    varied = [
        name
        for name in dict.fromkeys(name for one in asked for name in one)
        if len({one.get(name) for one in asked}) > 1
    ]
    for level, identity in zip(levels, asked, strict=True):
        if label := ", ".join(identity[name] for name in varied if name in identity):
            level["label"] = label
    return levels, [
        f"{level_name(level)}: {note}"
        for level, notes in zip(levels, all_notes, strict=True)
        for note in notes
    ]


def _identity(level: Mapping[str, Any], *, is_capped: bool) -> dict[str, str]:
    """Return what a level's line asked for, each as it would stand in a label."""
    asked = level.get("asked") or {}
    config = asked.get("config") or {}
    cap = level.get("max_concurrency") if is_capped else None
    return {
        **({"max_concurrency": f"at most {cap} at once"} if cap else {}),
        **({"model": str(level["model"])} if level.get("model") else {}),
        **({"endpoint": str(asked["endpoint"])} if asked.get("endpoint") else {}),
        **{name: f"{name}={value}" for name, value in config.items()},
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: an endless rate is none at all, and 8.0 users are 8."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
