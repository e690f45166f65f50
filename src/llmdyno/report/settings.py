"""The settings before and after: what differs, what the default is, what each setting does.

A setting that a config leaves out has the engine's default. So two configs differ where their
*effective* values differ, and setting a knob to its own default is no change.
"""

from collections.abc import Mapping

import msgspec

from llmdyno import knobs
from llmdyno.knobs import Knob
from llmdyno.report import documents
from llmdyno.report.documents import Document
from llmdyno.results.study_doubts import effective


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a knob's value in both configs, and what the guide says of it."""

    name: str
    before: str
    after: str
    differs: bool
    knob: Knob | None  # None: the guide does not know it


def of_study(study: Document, guide: Mapping[str, Knob]) -> list[Setting]:
    """Return all settings of the guide and of both configs, those that differ first."""
    before = documents.part(study, "baseline", "config")
    after = documents.part(study, "best", "config")
    version = documents.text(study, "engine_version") or None
    names = dict.fromkeys([*before, *after, *guide])
    rows = [
        Setting(
            name=name,
            before=_written(before, name, guide, version),
            after=_written(after, name, guide, version),
            differs=effective(before, name, guide, version)
            != effective(after, name, guide, version),
            knob=guide.get(name),
        )
        for name in names
    ]
    return sorted(rows, key=lambda row: not row.differs)


def _written(config: Document, name: str, guide: Mapping[str, Knob], version: str | None) -> str:
    value = knobs.show(effective(config, name, guide, version))
    unit = f" {guide[name].unit}" if name in guide and guide[name].unit and value != "unset" else ""
    if name in config:
        return value + unit
    if name in guide and value == "unset":
        return "default: the engine decides"
    return f"{value}{unit} (default)" if name in guide else "not set"
