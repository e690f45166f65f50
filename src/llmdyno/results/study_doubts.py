"""Doubts of a study, and of two runs beside each other: what one run alone cannot show.

Their codes stand with all others in doubts.CODES. Those of a study stand in study.json under
"doubts"; the doubts of its runs stand in the summaries of those.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmdyno import knobs
from llmdyno.knobs import Knob, Value
from llmdyno.machine import environment
from llmdyno.results import wording
from llmdyno.results.documents import Document, interval, items, levels, number, part, text
from llmdyno.results.doubts import Doubt
from llmdyno.results.titles import metric_of, title
from llmdyno.units import counted

FEW_PAIRS = 5
_UNEQUAL_OUTPUT = 0.05  # of the output tokens of a request
_NAMES = ("Baseline", "Tuned")


def entries(study: Document, guide: Mapping[str, Knob]) -> list[dict[str, Any]]:
    """Return a study's doubts as its document has them, ready for JSON."""
    return [
        {**msgspec.structs.asdict(doubt), "metrics": list(doubt.metrics)}
        for doubt in find(study, guide)
    ]


def of(study: Document, guide: Mapping[str, Knob]) -> list[Doubt]:
    """Return the doubts that stand in a study; those of an older one are found now."""
    try:
        return msgspec.convert(study.get("doubts"), list[Doubt])
    except msgspec.ValidationError:
        return find(study, guide)


def find(study: Document, guide: Mapping[str, Knob]) -> list[Doubt]:
    """Find the doubts of a study: of its confirmation, its winner, its search and its two runs.

    Args:
        study: the document.
        guide: the knobs of its engine and front by name.
    """
    changed = changed_settings(study, guide)
    # If no setting changed, the baseline is best and there is no winner to confirm.
    found = _about_confirmation(part(study, "confirmation")) if changed else []
    found += [
        _of_study(
            "altered-output",
            f"The changed setting {name} may alter the tokens themselves: compare the quality of"
            " the answers before you deploy it.",
        )
        for name in changed
        if name in guide and guide[name].alters_output
    ]
    trials = items(study, "trials")
    failed = [trial for trial in trials if text(trial, "state") == "failed"]
    if failed:
        said = f"{len(failed):,} of {counted(len(trials), 'trial')} failed"
        found.append(
            _of_study("failed-trials", f"{said}: the search could not judge those settings.")
        )
    before, after = (part(study, arm, "summary") for arm in ("baseline", "best"))
    if before and after:
        unlike = environment.differences(part(before, "environment"), part(after, "environment"))
        found += [
            _of_study(
                "unlike-places", f"Baseline and tuned were not measured in the same place: {it}"
            )
            for it in unlike
        ]
        found += between(before, after, _NAMES)
    return found


def between(before: Document, after: Document, names: tuple[str, str]) -> list[Doubt]:
    """Find whether two runs did the same work, level by level.

    Args:
        before: a summary.
        after: another one.
        names: what the two runs are called.
    """
    found: list[Doubt] = []
    old_levels, new_levels = levels(before), levels(after)
    for name, old in old_levels.items():
        new = new_levels.get(name)
        if new is None:
            found.append(_of_level("measured-once", name, old, f"measured in {names[0]} only."))
            continue
        one, other = _output_each(old), _output_each(new)
        if one and other and abs(other / one - 1) > _UNEQUAL_OUTPUT:
            said = (
                f"answers differ in length, {wording.significant(one)} against"
                f" {wording.significant(other)} output tokens a request: the work was not the same."
            )
            found.append(_of_level("unequal-work", name, old, said))
    return found + [
        _of_level("measured-once", name, new, f"measured in {names[1]} only.")
        for name, new in new_levels.items()
        if name not in old_levels
    ]


def changed_settings(study: Document, guide: Mapping[str, Knob]) -> list[str]:
    """Return the names of the settings in which the winner differs from the baseline."""
    if not part(study, "best"):
        return []
    before, after = (part(study, arm, "config") for arm in ("baseline", "best"))
    version = text(study, "engine_version") or None
    return [
        name
        for name in dict.fromkeys([*before, *after, *guide])
        if effective(before, name, guide, version) != effective(after, name, guide, version)
    ]


def effective(
    config: Document, name: str, guide: Mapping[str, Knob], version: str | None
) -> Value | None:
    """Return the value that a setting has under a config: its own, or the engine's default."""
    if name in config:
        value: Value | None = config[name]
        return value
    return knobs.default(guide[name], version) if name in guide else None


def _about_confirmation(confirmation: Document) -> list[Doubt]:
    ratios = part(confirmation, "ratio")
    if not ratios:
        said = "The winner was not confirmed by repeated pairs: its gain may be luck."
        return [_of_study("unconfirmed", said)]
    found: list[Doubt] = []
    pairs = number(confirmation, "pairs")
    if pairs is not None and pairs < FEW_PAIRS:
        said = (
            f"The verdict rests on {counted(pairs, 'pair')} (fewer than {FEW_PAIRS}): the"
            " interval is rough."
        )
        found.append(_of_study("few-pairs", said))
    for name in ratios:
        bounds = interval(ratios, name, "ci95")
        if bounds is None:
            said = f"The ratio of {title(name)} has no interval."
            found.append(_of_study("no-interval", said, [name]))
        elif bounds[0] <= 1 <= bounds[1]:
            said = (
                f"The interval of the ratio of {title(name)} includes 1: no difference is shown in"
                " it."
            )
            found.append(_of_study("no-difference-shown", said, [name]))
    return found


def _of_study(code: str, said: str, ratios: Iterable[str] = ()) -> Doubt:
    known = [metric for name in ratios if (metric := metric_of(name)) is not None]
    metrics = tuple(metric.name for metric in known)
    return Doubt(code=code, level=None, at=None, metrics=metrics, text=said)


def _of_level(code: str, name: str, level: Document, said: str) -> Doubt:
    key = "users" if level.get("users") is not None else "rate"
    return Doubt(code=code, level=number(level, key), at=name, metrics=(), text=said)


def _output_each(level: Document) -> float | None:
    """Return how many output tokens a completed request has, if both are known."""
    tokens, completed = number(level, "tokens", "output"), number(level, "requests", "completed")
    return tokens / completed if tokens is not None and completed else None
