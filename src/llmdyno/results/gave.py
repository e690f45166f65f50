"""What a knob gave in the studies of the store, for `dyno knobs ENGINE KNOB`."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.results import verdicts
from llmdyno.results.catalog import Entry
from llmdyno.results.documents import Document, items, part, text


class Gave(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of one change of a knob in one study, by its ablation."""

    study: str
    engine: str
    engine_version: str
    front: str
    model: str
    hardware: str
    level: str  # the load at which it was measured
    before: Any
    after: Any
    effect: Mapping[str, Document]  # by metric: "ratio" and "ci95", winner ÷ winner without it
    pairs: int | None  # of runs; None: an older study does not say
    matters: bool | None  # beyond the noise; None: likewise


def gave(found: Sequence[Entry], owner: str, knob: str) -> list[Gave]:
    """Return what a knob gave in some studies, the newest first.

    Args:
        found: of the store.
        owner: the engine or front whose knob it is.
        knob: its name.
    """
    rows = []
    for entry in sorted(found, key=lambda one: one.started, reverse=True):
        study = entry.document
        if entry.kind != "study" or owner not in {text(study, "engine"), text(study, "front")}:
            continue
        rows += [
            _row(entry.id, study, row)
            for row in items(study, "ablation")
            if row.get("knob") == knob and part(row, "effect")
        ]
    return rows


def _row(name: str, study: Document, row: Document) -> Gave:
    pairs, matters = row.get("pairs"), row.get("matters")
    return Gave(
        study=name,
        engine=text(study, "engine"),
        engine_version=text(study, "engine_version"),
        front=text(study, "front"),
        model=text(study, "model"),
        hardware=_hardware(part(study, "environment")),
        level=verdicts.confirmed(study).level or "its arrival rate",
        before=row.get("from"),
        after=row.get("to"),
        effect={key: one for key, one in part(row, "effect").items() if isinstance(one, Mapping)},
        pairs=pairs if isinstance(pairs, int) else None,
        matters=matters if isinstance(matters, bool) else None,
    )


def _hardware(environment: Document) -> str:
    """Name the GPUs of a machine, or its CPU where there are none."""
    names = [text(gpu, "name") for gpu in items(environment, "gpus")]
    if names:
        return ", ".join(
            f"{names.count(name)} x {name}" if names.count(name) > 1 else name
            for name in dict.fromkeys(names)
        )
    cores = part(environment, "cpu").get("cores_usable")
    model = text(environment, "cpu", "model") or "unknown hardware"
    return f"{model}, {cores} cores" if cores else model
