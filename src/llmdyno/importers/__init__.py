"""Other tools' result files as summary documents of ours. One file a tool, `IMPORTER` last.

An old result is worth keeping beside a new one, so it becomes a run like any other: a folder with
a summary.json that `dyno report`, `dyno compare` and `dyno runs` read. It was not measured by our
definitions, however. So each importer states in `definitions` what its tool means by a metric where
we mean something else. These sentences stand in the document's `spec`, where a comparison looks for
differences between two runs, and in `imported.notes` for a reader. They are no doubts: a metric
that is defined otherwise is another metric, not a wrong one. What the file itself lacks or
contradicts is a doubt, and stands under "doubts" as well. A number that the file does not hold is
null; nothing is computed from an assumption.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from llmdyno import plugins, store
from llmdyno.errors import StorageError, UsageError
from llmdyno.results import doubts
from llmdyno.results.summary import SCHEMA
from llmdyno.store import JOURNAL, SUMMARY

# A decoded JSON document that is not ours: any value may stand anywhere in it.
Foreign = Mapping[str, Any]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What an importer found in a file: the levels, and what the file says of the run."""

    levels: list[dict[str, Any]]
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
        """Return what the file holds: one document, or several if the tool appends to its files.

        Raises:
            msgspec.ValidationError: a value is missing or of the wrong type.
        """


def import_file(path: Path, tool: str | None = None) -> dict[str, Any]:
    """Return another tool's result file as a summary document.

    Args:
        path: the tool's JSON file.
        tool: the tool's name, e.g. "vllm"; None: it is recognised by the content.

    Raises:
        UsageError: there is no such tool, or the file is not one of its results.
        StorageError: the file cannot be read.
    """
    documents = _decode(path)
    chosen = _choose(path, documents[0], tool)
    try:
        findings = chosen.read(documents)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: is not a result of {chosen.name} as we know them: {error}."
        ) from error
    definitions = dict(chosen.definitions)
    document = {
        "schema": SCHEMA,
        "run": "",
        "dir": "",
        "started": findings.started,
        "environment": findings.environment,
        "spec": {"tool": chosen.name, **findings.spec, "definitions": definitions},
        "levels": findings.levels,
        "slo": [],
        "imported": {
            "tool": chosen.name,
            "version": findings.version,
            "file": path.name,
            "notes": [
                *(f"{subject}: {meaning}" for subject, meaning in definitions.items()),
                *findings.notes,
            ],
        },
    }
    return {**document, "doubts": doubts.entries(document)}


def run_id(document: Mapping[str, Any]) -> str:
    """Return a new id for a run that was imported."""
    return store.new_id(f"{document['imported']['tool']}-{Path(document['spec']['model']).name}")


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


def _choose(path: Path, document: Foreign, tool: str | None) -> Importer:
    if tool is not None:
        named: Importer = plugins.load("importers", tool)
        return named
    names = plugins.names("importers")
    known: list[Importer] = [plugins.load("importers", name) for name in names]
    chosen = next((one for one in known if one.recognises(document)), None)
    if chosen is None:
        raise UsageError(
            f"{path}: is no result that we know; it must be the JSON file of one of"
            f" {', '.join(names)}. If it is, name the tool with --from."
        )
    return chosen


def _decode(path: Path) -> list[Foreign]:
    """Read a file of one JSON object, or of one on each line. NaN and infinity count as null."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error
    try:
        try:
            documents = [_decode_one(text)]
        except json.JSONDecodeError:
            documents = [_decode_one(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}.") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise UsageError(f"{path}: is no result that we know: it holds no JSON object.")
    return documents


def _decode_one(text: bytes) -> Any:
    return json.loads(text, parse_constant=lambda _: None)
