"""The first sentence of a page: what was found, with its interval and what it rests on.

The verdict itself ("better", "no difference", "worse") is the study's; here it only gets its words.
Where nothing was repeated, the sentence says so before it gives a ratio.
"""

from typing import Literal, NamedTuple

import msgspec

from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.results import conclusions, titles, verdicts, wording
from llmdyno.results.slo import HEADLINES
from llmdyno.units import counted


class _Clause(NamedTuple):
    """What is said of a metric: "3.1x", or "higher by 2.1" where there is no ratio."""

    metric: str
    said: str
    joined: str = "the"  # "tuned is 3.1x *the* token rate"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence, and the tone in which the page sets it."""

    sentence: str
    tone: Literal["better", "same", "worse", "open"]


def of_study(study: Document, runs: tuple[Run, ...]) -> Verdict:
    """Say what the confirmation showed, or that there was none; and who meets the SLOs."""
    if documents.part(study, "outcome") and conclusions.stands_alone(study):
        said = conclusions.conclusion(study)
        if said.startswith(conclusions.NO_DIFFERENCE):
            return Verdict(sentence=_stays(study), tone="same")
        return Verdict(sentence=said, tone="open")
    found = _of_pairs(study, runs)
    slo = conclusions.of_slo(study)
    return msgspec.structs.replace(found, sentence=f"{found.sentence} {slo}".strip())


def _stays(study: Document) -> str:
    said = "No better settings were found: the baseline stands."
    return f"{said} {conclusions.of_slo(study)}".strip()


def _of_pairs(study: Document, runs: tuple[Run, ...]) -> Verdict:
    confirmation = documents.part(study, "confirmation")
    measured = documents.part(confirmation, "ratio")
    word = documents.text(confirmation, "verdict")
    if not measured or word not in verdicts.OPENINGS:
        return _unconfirmed(study, runs)
    pairs = documents.number(confirmation, "pairs")
    design = documents.text(confirmation, "design")
    basis = (
        f"{wording.count(pairs)} {f'{design} ' if design else ''}pair{'' if pairs == 1 else 's'}"
    )
    decided_by = documents.text(confirmation, "decided_by")
    clauses = [
        clause
        # The metric that decides comes first.
        for metric in sorted(measured, key=lambda metric: metric != decided_by)
        if (clause := _clause(metric, documents.part(measured, metric))) is not None
    ]
    if not clauses:
        return _unconfirmed(study, runs)
    tone: dict[str, Literal["better", "same", "worse"]] = {
        "better": "better",
        "no difference": "same",
        "worse": "worse",
    }
    said = _clauses(clauses, "tuned", _confirmed_at(confirmation, runs))
    return Verdict(
        sentence=f"{verdicts.OPENINGS[word]}: {said} ({basis}; 95 % intervals in brackets).",
        tone=tone[word],
    )


def of_comparison(before: Run, after: Run) -> Verdict:
    """Say how two single runs differ at the highest level that both have."""
    name, clauses = _single_ratios(before, after)
    if not clauses:
        return Verdict(sentence="These two runs have no measured level in common.", tone="open")
    return Verdict(
        sentence=f"One run each: {_clauses(clauses, after.name.lower(), name)}."
        " Only repeated pairs can tell this from noise.",
        tone="open",
    )


def of_run(summary: Document) -> Verdict:
    """Say what the run reached at its level of the highest token rate."""
    rates = {
        name: rate
        for name, level in documents.levels(summary).items()
        if (rate := documents.number(level, "token_rate", "mean")) is not None
    }
    if not rates:
        return Verdict(sentence="Nothing was measured: no level has a token rate.", tone="worse")
    best = max(rates, key=lambda name: rates[name])
    level = documents.levels(summary)[best]
    reached = wording.with_interval(rates[best], documents.interval(level, "token_rate", "ci95"))
    first = wording.milliseconds(documents.number(level, "ttft_ms", "p50"))
    among = "" if len(rates) == 1 else f", the highest of {len(rates)} levels"
    return Verdict(
        sentence=f"{reached} tokens/s at {best}{among}, with a TTFT p50 of {first}.", tone="open"
    )


def _unconfirmed(study: Document, runs: tuple[Run, ...]) -> Verdict:
    if len(runs) < 2:
        missing = "tuned" if documents.part(study, "baseline", "summary") else "baseline"
        return Verdict(sentence=f"No comparison: there is no {missing} measurement.", tone="open")
    if documents.part(study, "best", "config") == documents.part(study, "baseline", "config"):
        return Verdict(sentence="No better settings were found: the baseline stands.", tone="same")
    name, clauses = _single_ratios(runs[0], runs[1])
    if not clauses:
        return Verdict(sentence="No comparison: the runs have no level in common.", tone="open")
    return Verdict(
        sentence=f"Not confirmed: in one run each, {_clauses(clauses, 'tuned', name)}."
        " Without repeated pairs this may be noise.",
        tone="open",
    )


def _single_ratios(before: Run, after: Run) -> tuple[str, list[_Clause]]:
    levels = documents.levels(before.summary), documents.levels(after.summary)
    common = [name for name in levels[0] if name in levels[1]]
    for name in reversed(common):
        ratios = []
        for one in HEADLINES:
            old, new = (documents.number(level[name], one.metric, one.stat) for level in levels)
            if old and new is not None:
                ratios.append(_Clause(one.key, wording.ratio(new / old)))
        if ratios:
            return name, ratios
    return "", []


def _clause(metric: str, measured: Document) -> _Clause | None:
    """Say what the confirmation found of a metric; None if there is nothing to compare."""
    mean, bounds = documents.number(measured, "mean"), documents.interval(measured, "ci95")
    if mean is not None:
        return _Clause(metric, wording.with_interval(mean, bounds, wording.ratio))
    part = documents.part(measured, "difference")
    mean, bounds = documents.number(part, "mean"), documents.interval(part, "ci95")
    if mean is None:
        return None
    way = "higher"
    if mean < 0:
        way, mean, bounds = "lower", -mean, bounds and (-bounds[1], -bounds[0])
    by = f"{wording.with_interval(mean, bounds)} {titles.unit(metric)}"
    return _Clause(metric, f"{way} by {by}", "in the")


def _clauses(ratios: list[_Clause], subject: str, at: str) -> str:
    """Join ratios to "tuned is 3.1x the token rate at 100 users; TTFT p50 is 0.2x"."""
    first, *others = ratios
    title = titles.title(first.metric)
    sentence = f"{subject} is {first.said} {first.joined} {title}{f' at {at}' if at else ''}"
    return "; ".join([sentence, *(f"{titles.title(one.metric)} is {one.said}" for one in others)])


def _confirmed_at(confirmation: Document, runs: tuple[Run, ...]) -> str:
    """Name the level of the pairs: the one they name, else the only one there is."""
    named = documents.number(confirmation, "level")
    if named is not None:
        return counted(named, "user")
    names = documents.level_names(runs)
    return names[0] if len(names) == 1 else ""
