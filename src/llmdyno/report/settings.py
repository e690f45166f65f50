"""The settings before and after: what differs, what the default is, what each setting does.

A setting that a config leaves out has the engine's default. So two configs differ where their
*effective* values differ, and setting a knob to its own default is no change.
"""

import shlex
from collections.abc import Mapping

import msgspec

from llmdyno import knobs
from llmdyno.knobs import Knob
from llmdyno.report import documents
from llmdyno.report.documents import Document
from llmdyno.results import stacks
from llmdyno.results.study_doubts import effective

ENGINE_ARGUMENTS = "engine arguments"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a setting's value in both configs, and what the guide says of it."""

    name: str
    before: str
    after: str
    differs: bool
    knob: Knob | None  # None: the guide does not know it
    does: str = "(not in the guide)"  # what is said where there is no knob


def of_study(study: Document, guide: Mapping[str, Knob]) -> list[Setting]:
    """Return all settings of the guide and of both configs, those that differ first.

    Both are of the engine and front that won: another engine's settings are other ones.
    """
    before = stacks.own_baseline(study)
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
    return [*sorted(rows, key=lambda row: not row.differs), *_engine_arguments(study)]


def _engine_arguments(study: Document) -> list[Setting]:
    """Return the row of the words that --engine-arg gave, the same for every config; or none."""
    words = study.get("engine_args")
    if not isinstance(words, list) or not words:
        return []
    written = shlex.join(map(str, words))
    return [
        Setting(
            name=ENGINE_ARGUMENTS,
            before=written,
            after=written,
            differs=False,
            knob=None,
            does="Words at the end of the engine's command line, given with --engine-arg.",
        )
    ]


def _written(config: Document, name: str, guide: Mapping[str, Knob], version: str | None) -> str:
    value = effective(config, name, guide, version)
    if name not in guide:
        return knobs.show(value) if name in config else "not set"
    if value is None and name not in config:
        return "default: the engine decides"
    unit = "" if value is None else guide[name].unit_of(value)
    said = f"{knobs.show(value)} {unit}".rstrip()
    return said if name in config else f"{said} (default)"
