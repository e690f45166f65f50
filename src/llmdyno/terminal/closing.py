"""What a study ends with: its key findings, and lines that are each fit to be quoted alone."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from llmdyno.knobs import show
from llmdyno.results import stacks, verdicts, wording
from llmdyno.results.documents import Document, interval, items, level_name, number, part, text
from llmdyno.results.proportions import judged
from llmdyno.results.slo import HEADLINES, read_stat
from llmdyno.results.titles import lower_is_better, metric_of, statistic_of, title, unit
from llmdyno.terminal.tables import line, wrapped


def show_findings(findings: Sequence[str], stream: TextIO) -> None:
    """Print the key findings of a study, numbered, as its page has them."""
    stream.write("Key findings\n")
    stream.writelines(
        wrapped(said, stream, first=f"{place}. ", rest="   ")
        for place, said in enumerate(findings, 1)
    )
    stream.write("\n")
    stream.flush()


def show_closing(study: Mapping[str, Any], stream: TextIO) -> None:
    """Print the lines, on a terminal in bold."""
    bold = stream.isatty() and not os.environ.get("NO_COLOR")
    for one in closing_lines(study):
        said = line(one, stream)
        stream.write(f"\x1b[1m{said}\x1b[0m" if bold else said)
    stream.flush()


def closing_lines(study: Mapping[str, Any]) -> list[str]:
    """Return three lines: what decided, the other headline, the settings. Empty: nothing was won.

    Where pairs are of before the study moved, a fourth says so.

    Args:
        study: its document; one of an older version has no values of the pairs, so those of its
            summaries stand there.
    """
    found = verdicts.confirmed(study)
    if found.word != "better" or not found.pairs or not part(study, "best"):
        return []
    other = next(one.key for one in HEADLINES if one.key != found.decided_by)
    where = f" at {found.level}" if found.level else ""
    lines = [_gain(study, found.decided_by, where), _gain(study, other, "")]
    moved = f"Mind: {found.pairs_moved}" if found.moved else ""
    return [one for one in (*lines, _settings(study), moved) if one]


def _gain(study: Document, key: str, where: str) -> str:
    """Write "Token rate at 2 users: 102 -> 615 tok/s, 6 times as high (5.5 to 6.6)"."""
    ratio = part(study, "confirmation", "ratio", key)
    mean = number(ratio, "mean")
    if mean is None:
        said = verdicts.told(ratio, unit(key))
    else:
        said = judged(mean, key, interval(ratio, "ci95"))
    before, after = (_value(study, ratio, key, arm) for arm in ("before", "after"))
    parts = [_from_to(before, after, unit(key)) if before and after else "", said]
    name = title(key)
    line = ", ".join(one for one in parts if one)
    return f"{name[0].upper()}{name[1:]}{where}: {line}" if line else ""


def _value(study: Document, ratio: Document, key: str, arm: str) -> float | None:
    """Return what an arm measured: the mean of its pairs, else its summary at that level."""
    measured = number(ratio, arm)
    metric = metric_of(key)
    if measured is not None or metric is None:
        return measured
    config = "baseline" if arm == "before" else "best"
    levels = items(part(study, config, "summary"), "levels")
    decides = verdicts.confirmed(study).level
    level = next((one for one in levels if level_name(one) == decides), None)
    statistic = statistic_of(key, metric) or "mean"
    return None if level is None else read_stat(level, metric.name, statistic)


def _from_to(before: float, after: float, of_unit: str) -> str:
    if of_unit == "ms":
        return f"{wording.milliseconds(before)} -> {wording.milliseconds(after)}"
    return f"{_figure(before)} -> {_figure(after)} {of_unit}".rstrip()


def _figure(value: float) -> str:
    """Write thousands in full: a reader takes 6,150 beside 1,022 for a rounder measurement."""
    return wording.count(value) if abs(value) >= 1000 else wording.significant(value)


def _settings(study: Document) -> str:
    before, after = part(study, "baseline"), part(study, "best")
    old, new = part(before, "config"), part(after, "config")
    stack = ""
    if items(study, "combinations") and stacks.named(before) != stacks.named(after):
        stack, old = f"{stacks.named(after)} instead of {stacks.named(before)}", {}
    changed = [f"{knob}={show(value)}" for knob, value in new.items() if old.get(knob) != value]
    changed += [f"{knob} left at its default" for knob in old if knob not in new]
    most = _most(study)
    by = f" (most by {most})" if most and len(changed) > 1 else ""
    return f"Settings: {', '.join([stack, *changed] if stack else changed)}{by}"


def _most(study: Document) -> str:
    """Return the knob that alone gave most of what decided, if its interval says so; else ""."""
    key = verdicts.confirmed(study).decided_by
    gains = []
    for one in items(study, "ablation"):
        effect = part(one, "effect", key)
        mean, bounds = number(effect, "ratio"), interval(effect, "ci95")
        if mean and bounds and min(bounds) > 0:
            turned = [1 / edge if lower_is_better(key) else edge for edge in (mean, *bounds)]
            gains.append((turned[0], min(turned[1:]), text(one, "knob")))
    gains.sort(reverse=True)
    # It must lie clear of 1, and of what the next knob is thought to give.
    next_best = max([1.0, *(gain for gain, _, _ in gains[1:])])
    return gains[0][2] if gains and gains[0][1] > next_best else ""
