"""Doubts of a study, and of two runs beside each other: what one run alone cannot show.

Their codes stand with all others in doubts.CODES. Those of a study stand in study.json under
"doubts"; the doubts of its runs stand in the summaries of those.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmdyno import knobs
from llmdyno.knobs import Knob, Value
from llmdyno.machine import environment
from llmdyno.results import pair_doubts, quality, stacks, wording
from llmdyno.results.documents import Document, interval, items, levels, number, part, text, texts
from llmdyno.results.doubts import Doubt
from llmdyno.results.load_checks import about_backlog, about_rate, about_users
from llmdyno.results.pair_doubts import FAULTS, STOPPED
from llmdyno.results.titles import metric_of, title
from llmdyno.units import counted

FEW_PAIRS = 5
_UNEQUAL_OUTPUT = 0.02  # of the output tokens of a request
_UNEQUAL_LOAD = 0.02  # of the requests a second that were sent
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
    if text(study, "quality", "verdict") == "differs":
        found.append(_of_study("altered-output", quality.sentences(part(study, "quality"))[0]))
    found += [
        _of_study("altered-output", said) for said in quality.worse_tasks(part(study, "quality"))
    ]
    trials = items(study, "trials")
    failed = [trial for trial in trials if text(trial, "state") == "failed"]
    if failed:
        said = f"{len(failed):,} of {counted(len(trials), 'trial')} failed"
        found.append(
            _of_study("failed-trials", f"{said}: the search could not judge those settings.")
        )
    found += _about_doubtful_trials(trials)
    found += _about_stops(study)
    found += _about_the_machine(study)
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
        found += [_of_level(code, name, old, said) for code, said in unequal(old, new, names)]
    return found + [
        _of_level("measured-once", name, new, f"measured in {names[1]} only.")
        for name, new in new_levels.items()
        if name not in old_levels
    ]


def unequal(old: Document, new: Document, names: tuple[str, str]) -> list[tuple[str, str]]:
    """Return why the numbers of two levels of one name are not of the same work and load.

    Args:
        old: a level of a summary.
        new: that of another one.
        names: what the two runs are called.

    Returns:
        Codes with their sentences; none: nothing speaks against their ratios.
    """
    found: list[tuple[str, str]] = []
    one, other = _output_each(old), _output_each(new)
    if one and other and abs(other / one - 1) > _UNEQUAL_OUTPUT:
        said = (
            f"answers differ in length, {wording.significant(one)} against"
            f" {wording.significant(other)} output tokens a request: the work was not the same."
        )
        found.append(("unequal-work", said))
    return found + [("unequal-load", said) for said in _unequal_loads(old, new, names)]


def _unequal_loads(old: Document, new: Document, names: tuple[str, str]) -> list[str]:
    found = [
        f"the load was not the same: of {name}, {said}"
        for name, level in zip(names, (old, new), strict=True)
        for check in (about_rate, about_users, about_backlog)
        for _, said in check(level)  # it did not put on the load that its name says
    ]
    one, other = (number(level, "delivered", "rate", "sent") for level in (old, new))
    if one and other and abs(other / one - 1) > _UNEQUAL_LOAD:
        found.append(
            f"the load was not the same: {wording.significant(one)} against"
            f" {wording.significant(other)} requests/s were sent."
        )
    if old.get("arrival") == "burst":
        sizes = [number(level, "requests", "completed") or 0 for level in (old, new)]
        if sizes[0] != sizes[1]:
            counts = " against ".join(wording.count(size) for size in sizes)
            found.append(f"the load was not the same: {counts} requests at once.")
    if old.get("max_concurrency") != new.get("max_concurrency"):
        limits = [level.get("max_concurrency") or "no limit" for level in (old, new)]
        found.append(f"the load was not the same: --max-concurrency {limits[0]} and {limits[1]}.")
    if any(_is_unknown(level) for level in (old, new)):
        found.append("a file does not tell the load: whether it was the same is not known.")
    return found


def _is_unknown(level: Document) -> bool:
    """Tell whether a level, of another tool's file, says neither users nor a rate."""
    if level.get("arrival") == "burst":  # all at once, and how many is known
        return False
    known = (level.get("users"), level.get("rate"), number(level, "delivered", "rate", "sent"))
    return known == (None, None, None)


def changed_settings(study: Document, guide: Mapping[str, Knob]) -> list[str]:
    """Return the names of the settings in which the winner differs from its engine's baseline."""
    if not part(study, "best"):
        return []
    before, after = stacks.own_baseline(study), part(study, "best", "config")
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


def _about_doubtful_trials(trials: Sequence[Document]) -> list[Doubt]:
    """Find trials whose value tells of a fault of the load generator or the machine, too."""
    measured = [
        one
        for one in trials
        # What a race has ended was worse anyhow, unless it was dyno that stood still.
        if text(one, "state") == "measured" or STOPPED in texts(one, "doubts")
    ]
    counted_codes = Counter(code for one in measured for code in {*texts(one, "doubts")})
    told = [f"{code} in {counted_codes[code]}" for code in FAULTS if counted_codes[code]]
    if not told:
        return []
    said = f"Of {counted(len(measured), 'trial')} some have doubts of their own: {', '.join(told)}"
    return [_of_study("doubtful-trials", f"{said}. The search may have missed what is best.")]


def _about_stops(study: Document) -> list[Doubt]:
    """Find what, beside trials and pairs, counts although dyno was stopped in it."""
    told = []
    for one in items(study, "stood"):
        phase, device = text(one, "phase"), text(one, "device")
        if phase in {"trial", "confirm"}:
            continue
        name = f"{phase} {number(one, 'id') or 0:g}" if phase == "ablation" else phase
        where = f" of {stacks.named(one)}" if text(one, "engine") else ""
        where += f" on {device}" if device else ""
        told.append(f"{name}{where} ({number(one, 'stood_s') or 0:.0f} s)")
    if not told:
        return []
    said = (
        f"dyno itself was stopped in runs that count all the same: {', '.join(told)}. What is"
        " compared with them is as doubtful."
    )
    return [_of_study(STOPPED, said)]


def _about_the_machine(study: Document) -> list[Doubt]:
    """Find whether the study stayed in its place, and had the machine to itself."""
    found = _about_a_shift(part(study, "confirmation", "shift"))
    moves = texts(study, "moves")
    if moves:
        said = f"The study went on in another place, and its runs are not alike: {'; '.join(moves)}"
        found.append(_of_study("another-place", f"{said}."))
    beside = texts(study, "beside")
    if beside:
        said = f"{wording.studies_beside(beside)}. Each measured the other's load."
        found.append(_of_study("studies-beside", said))
    devices = texts(study, "lanes", "devices")
    if devices and devices[0].startswith("host "):
        said = (
            f"Trials ran with {counted(len(devices), 'worker')} of other hosts, of the same kind"
            " and as fast with the baseline."
        )
        if items(part(study, "confirmation"), "runs"):
            said += " The confirmation ran on one machine, alone."
        found.append(_of_study("several-hosts", said))
    if len(devices) > 1 and any(number(one, "beside") for one in items(study, "trials")):
        said = (
            f"Trials ran {len(devices)} at once ({', '.join(devices)}) and shared memory, its"
            " bandwidth, disk and power, so another config may be the best alone."
        )
        value, alone = (number(study, "lanes", name) for name in ("value", "alone"))
        if value and alone:
            said += f" There the baseline made {value / alone:.2f} times what it makes alone."
        if items(part(study, "confirmation"), "runs"):
            said += " The confirmation ran alone."
        if devices[0].startswith("core"):
            said += " Each trial had a part of the cores, what ran alone had all."
        found.append(_of_study("parallel-trials", said))
    return found


def _about_a_shift(shift: Document) -> list[Doubt]:
    """Find whether the baseline is another in the pairs than it was before the trials."""
    mean, bounds = number(shift, "mean"), interval(shift, "ci95")
    if mean is None or bounds is None:
        return []
    times = wording.with_interval(mean, bounds, wording.ratio)
    said = (
        f"In the pairs the baseline came to {times} of what it was before the trials: the machine"
        " or the server has changed meanwhile. The pairs stand, as both configs ran in each; trials"
        " before and after the change are not alike, so the search may have missed what is best."
    )
    return [_of_study("changed-baseline", said)]


def _about_confirmation(confirmation: Document) -> list[Doubt]:
    ratios = part(confirmation, "ratio")
    if not ratios:
        said = "The winner was not confirmed by repeated pairs: its gain may be luck."
        return [_of_study("unconfirmed", said)]
    found: list[Doubt] = []
    pairs = number(confirmation, "pairs")
    if text(confirmation, "verdict") == "not confirmed":
        said = f"The winner is not confirmed: {counted(pairs or 0, 'whole pair')} do not decide."
        found.append(_of_study("unconfirmed", said))
    if pairs is not None and pairs < FEW_PAIRS:
        said = (
            f"The verdict rests on {counted(pairs, 'pair')} (fewer than {FEW_PAIRS}): the"
            " interval is rough."
        )
        found.append(_of_study("few-pairs", said))
    found += [_of_study(code, said) for code, said in pair_doubts.find(confirmation)]
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
    mean = number(level, "delivered", "output_tokens", "mean")
    if mean is not None:  # of the completed ones alone
        return mean
    tokens, completed = number(level, "tokens", "output"), number(level, "requests", "completed")
    return tokens / completed if tokens is not None and completed else None
