"""What a study found, in sentences that need no training: page, Markdown and terminal share them.

The verdict is study.json's; the figures are those of the confirmation, the ablation and the two
full runs. Here they only get their words.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from llmdyno.results import conclusions, limit_words, put_back, stacks, titles, verdicts, wording
from llmdyno.results.bottleneck import Bottleneck, bottleneck
from llmdyno.results.documents import (
    Document,
    interval,
    levels,
    number,
    part,
    text,
    texts,
)
from llmdyno.results.proportions import NOT_SHOWN, judged
from llmdyno.results.slo import HEADLINES, parse_objective, read_stat
from llmdyno.units import counted

Tone = Literal["better", "same", "worse", "open"]

STANDS = "No better settings were found: the baseline stands."
_TONES: dict[str, Tone] = {"better": "better", "no difference": "same", "worse": "worse"}
_ARMS = ("baseline", "best")
_HOLDERS = {
    "client": "the load generator",
    "kv": "a full KV cache",
    "queue": "the queue",
    "host": "the host",
    "prefill": "prefill",
    "decode": "decode",
}
_ON_ITS_OWN = "Its settings were measured on its own engine and front."


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a metric: "the token rate is twice as high", and from what to what."""

    said: str
    values: str = ""  # "from 525 to 1,630 tok/s"; empty: it is not known

    @property
    def whole(self) -> str:
        """Both, in one clause."""
        return f"{self.said}, {self.values}" if self.values else self.said


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, in a sentence, and the tone in which a page sets it.

    A page has the heading, and below it the rest of the sentence; where there is no heading, the
    sentence is one.
    """

    sentence: str
    tone: Tone
    heading: str = ""
    rest: str = ""


def stands(study: Document) -> bool:
    """Tell whether the winner is the baseline itself, so that there is one run to show."""
    baseline, best = (part(study, arm) for arm in _ARMS)
    one, other = (text(part(side, "summary"), "run") for side in (baseline, best))
    return bool(best) and part(best, "config") == part(baseline, "config") and one == other


def verdict(study: Document) -> Verdict:
    """Say what the confirmation showed, or that there was none; and who meets the SLOs."""
    if part(study, "outcome") and conclusions.stands_alone(study):
        said = conclusions.conclusion(study)
        if not said.startswith(conclusions.NOTHING_BETTER):
            return Verdict(sentence=said, tone="open")
        return _verdict(STANDS, study, "same")
    found = verdicts.confirmed(study)
    told = changes(study)
    if is_decided(study):
        at = f"at {level_of(study)} " if level_of(study) else ""
        compared = f"compared was {conclusions.compared(study)}" if found.stays else ""
        said = f"{found.opening}: {at}{told[0].said}"
        if found.word == "no difference":
            said = said.replace(f" {NOT_SHOWN}", "")
        said += f"; {found.stays}." if found.stays else "."
        clauses = [one for one in (compared, found.pairs_moved) if one]
        return _verdict(said, study, _TONES[found.word], clauses)
    if part(study, "best") and stands(study):
        return _verdict(STANDS, study, "same")
    return _verdict(_unconfirmed(study, told), study, "open")


def key_findings(study: Document, changed: Sequence[str]) -> list[str]:
    """Return three sentences: what became of it, which setting did it, and why; some may be more.

    Args:
        study: its document; where its levels have a "limit", the third tells it.
        changed: the names of the settings in which the winner differs from the baseline.
    """
    return [
        one
        for one in (by_how_much(study), which_setting(study, changed), " ".join(why(study)))
        if one
    ]


def is_decided(study: Document) -> bool:
    """Tell whether whole pairs of runs decided, whatever they showed."""
    found = verdicts.confirmed(study)
    return bool(found.word in verdicts.OPENINGS and changes_of_pairs(study))


def by_how_much(study: Document) -> str:
    """Say what became of the metrics that every study tells, and what that rests on."""
    if stands(study):
        return _of_the_baseline(study)
    told = changes(study)
    if not told:
        return "Nothing was compared: there are not two measurements of one level."
    luck = "" if _pairs_told(study) else ", which may be luck"
    return f"In {_runs_told(study)}{luck}, {_joined([one.whole for one in told])}."


def _pairs_told(study: Document) -> float:
    """Return how many pairs of runs `changes` tells of; 0: it tells of one run of each arm."""
    return verdicts.confirmed(study).pairs if changes_of_pairs(study) else 0


def _runs_told(study: Document) -> str:
    """Name the runs that `changes` tells of: "3 interleaved pairs of runs at 100 users"."""
    pairs = _pairs_told(study)
    at = f" at {level_of(study)}" if level_of(study) else ""
    return f"{counted(pairs, 'interleaved pair')} of runs{at}" if pairs else f"one run each{at}"


def _of_the_baseline(study: Document) -> str:
    """Say what the baseline reaches where nothing beats it."""
    level, _ = levels_that_decide(study)
    trials = conclusions.started(study)
    rate, first = number(level, "token_rate", "mean"), number(level, "ttft_ms", "p50")
    said = f"None of {counted(len(trials), 'trial')} is shown to beat the baseline"
    said = said if trials else "No other config was tried than the baseline"
    best = conclusions.best_so_far(study)
    if rate is None:
        return f"{said}. {best}".rstrip()
    at, asked = f" at {level_of(study)}", text(study, "objective")
    sought = "" if not asked or parse_objective(asked) in HEADLINES else _sought(asked, level)
    said += f", whose {sought}{at}; it" if sought else ", which"
    return (
        f"{said} gives {wording.significant(rate)} tok/s{'' if sought else at}, with a median"
        f" time to first token of {wording.milliseconds(first)}. {best}"
    ).rstrip()


def _sought(objective: str, level: Document) -> str:
    """Say what an objective comes to at a level: "goodput is 2.40 req/s"; empty: nothing."""
    asked = parse_objective(objective)
    value, unit = read_stat(level, asked.metric, asked.stat), titles.unit(objective)
    if value is None:
        return ""
    written = wording.significant(value)
    said = wording.milliseconds(value) if unit == "ms" else f"{written} {unit}".rstrip()
    return f"{titles.in_words(objective)} is {said}"


def how_sure(study: Document) -> str:
    """Say what the verdict rests on."""
    found = verdicts.confirmed(study)
    if not found.pairs:
        if stands(study):
            return "Each config ran once, nothing was repeated: a small difference would not show."
        return "Not sure: nothing was repeated, so a difference may be luck."
    design = text(study, "confirmation", "design")
    order = f" ({design}, so drift hits both alike)" if design == "ABBA" else ""
    pairs = counted(found.pairs, "pair")
    said = f"{pairs} of runs, baseline and tuned in turn{order}; in brackets the 95 % intervals"
    bounds = interval(found.ratios, found.decided_by, "ci95")
    if bounds is None:
        return f"{said}. The {titles.in_words(found.decided_by)}, which decides, has no interval."
    shown = "includes" if bounds[0] <= 1 <= bounds[1] else "leaves out"
    if found.is_equal:
        shown = f"lies within {wording.share(verdicts.EQUAL_WITHIN)} of"
    name = titles.in_words(found.decided_by)
    return f"{said}. The {name} decides: its interval {shown} “no difference”."


def changes(study: Document) -> list[Change]:
    """Return what became of the decisive metric and the headlines: of the pairs, else of the runs.

    The metric that decides comes first.
    """
    return changes_of_pairs(study) or _changes_of_runs(study)


def changes_of_pairs(study: Document) -> list[Change]:
    """Return what the confirmation found of each metric that it compared."""
    found = verdicts.confirmed(study)
    ordered = sorted(found.ratios, key=lambda metric: metric != found.decided_by)
    told = [
        _change(study, metric, part(found.ratios, metric), level_of(study)) for metric in ordered
    ]
    return [one for one in told if one is not None]


def _change(study: Document, metric: str, measured: Document, level: str) -> Change | None:
    name, values = titles.in_words(metric), _values(study, metric, measured, level)
    mean, bounds = number(measured, "mean"), interval(measured, "ci95")
    if mean is not None and mean >= 0:
        return Change(said=f"the {name} is {judged(mean, metric, bounds)}", values=values)
    # A run had 0 of it: there is a difference and no ratio.
    told = verdicts.told(measured, titles.unit(metric))
    return Change(said=f"the {name} differs by {told}", values=values) if told else None


def _changes_of_runs(study: Document) -> list[Change]:
    name, pair = _common_level(study)
    if pair is None:
        return []
    told = []
    for one in HEADLINES:
        old, new = (number(level, one.metric, one.stat) for level in pair)
        if old and new is not None:
            change = _change(study, one.key, {"mean": new / old}, name)
            told += [change] if change else []
    return told


def level_of(study: Document) -> str:
    """Return the level that decides: that of the pairs, else the highest that both runs have."""
    known = verdicts.confirmed(study).level
    return known if known and part(study, "confirmation", "ratio") else _common_level(study)[0]


def levels_that_decide(study: Document) -> tuple[Document, Document]:
    """Return the level that decides, of both full runs; one that was not measured is empty."""
    name = level_of(study)
    baseline, best = (levels(part(study, arm, "summary")).get(name, {}) for arm in _ARMS)
    return baseline, best


def _common_level(study: Document) -> tuple[str, tuple[Document, Document] | None]:
    baseline, best = (levels(part(study, arm, "summary")) for arm in _ARMS)
    for name in reversed(baseline):
        if name in best:
            return name, (baseline[name], best[name])
    return "", None


def _values(study: Document, key: str, measured: Document, level: str) -> str:
    """Return what a metric was before and after: "from 4.3 s to 910 ms".

    Args:
        study: its document.
        key: of the metric.
        measured: its ratio, which has the means of the pairs; in an older study it has none, and
            those of the full runs stand here.
        level: which decides.
    """
    metric = titles.metric_of(key)
    if metric is None:
        return ""
    old, new = (number(measured, arm) for arm in ("before", "after"))
    if old is None or new is None:
        stat = titles.statistic_of(key, metric) or "mean"
        old, new = (
            number(levels(part(study, arm, "summary")).get(level, {}), metric.name, stat)
            for arm in _ARMS
        )
    if old is None or new is None:
        return ""
    if metric.observe is not None:
        return f"from {wording.milliseconds(old)} to {wording.milliseconds(new)}"
    return f"from {wording.significant(old)} to {wording.significant(new)} {metric.unit}"


def which_setting(study: Document, changed: Sequence[str]) -> str:
    """Say which of the changed settings made the difference, by the ablation."""
    if not part(study, "best"):
        return ""
    if combination := stacks.replaced(study):
        said = f"No setting alone: what serves the model changed, too ({combination})."
        return " ".join([said, *_on_its_own(study, changed)])
    if not changed:
        other = conclusions.compared(study) if stands(study) and is_decided(study) else ""
        also = f"; compared was {other}" if other else ""
        return f"No setting differs from the baseline's{also}."
    if len(changed) == 1:
        return f"One setting differs, {changed[0]}, so whatever differs is its doing."
    return put_back.which(study, changed)


def _on_its_own(study: Document, changed: Sequence[str]) -> list[str]:
    """Say what the winner's settings add on its own engine and front; none has changed: nothing."""
    if not changed:
        return []
    if put_back.is_measured(study):
        return [_ON_ITS_OWN, put_back.which(study, changed)]
    one = len(changed) == 1
    each = "its changed setting" if one else f"each of its {len(changed)} changed settings"
    return [f"What {each} ({wording.listed(changed)}) adds was not measured."]


def why(study: Document) -> list[str]:
    """Say what held the server back before and after, and how near its limit it is."""
    before, after = map(bottleneck, levels_that_decide(study))
    at = f" at {level_of(study)}" if level_of(study) else ""
    if stands(study) and before.name:
        said = f"What held the server back{at} is {_HOLDERS[before.name]}: {before.why}."
    else:
        said = _held_back(before, after, at)
    return [said, near_the_limit(study)]


def _held_back(before: Bottleneck, after: Bottleneck, at: str) -> str:
    if not before.name and not after.name:
        return f"What held the server back{at} is not known."
    if before.name == after.name:
        holder = _HOLDERS[after.name]
        return f"Before as after, {holder} held the server back{at}: {after.why}."
    sides = [
        f"{side} it was {_HOLDERS[one.name]} ({one.why})" if one.name else f"{side} it is not known"
        for side, one in (("before,", before), ("after,", after))
    ]
    return f"What held the server back{at}: {'; '.join(sides)}."


def near_the_limit(study: Document) -> str:
    """Say how much of the machine's limit the winner uses, or why that is not known."""
    return limit_words.near(*levels_that_decide(study), texts(study, "engine_args"))


def _unconfirmed(study: Document, told: Sequence[Change]) -> str:
    arms = [part(study, arm, "summary") for arm in _ARMS]
    if not all(arms):
        missing = "tuned" if arms[0] else "baseline"
        return f"No comparison: there is no {missing} measurement."
    if not told:
        return "No comparison: the runs have no level in common."
    doubt = (
        "These pairs do not decide."
        if _pairs_told(study)
        else "Without repeated pairs this may be noise."
    )
    return f"Not confirmed: in {_runs_told(study)}, {_joined([one.said for one in told])}. {doubt}"


def _verdict(said: str, study: Document, tone: Tone, clauses: Sequence[str] = ()) -> Verdict:
    """Return a verdict with who else looked good, and who meets the SLOs.

    Args:
        said: the heading, a sentence.
        study: its document.
        tone: of the page.
        clauses: of that sentence; a page has them below the heading.
    """
    rest = [one for one in (conclusions.passed_over(study), conclusions.of_slo(study)) if one]
    below = [f"{one[0].upper()}{one[1:]}." for one in clauses]
    return Verdict(
        sentence=" ".join(["; ".join([said.removesuffix("."), *clauses]) + ".", *rest]),
        tone=tone,
        heading=said,
        rest=" ".join([*below, *rest]),
    )


def _joined(clauses: Sequence[str]) -> str:
    return "; ".join(clauses)
