"""The first sentence of the page of a run or of two; that of a study is in results/findings.py.

Where nothing was repeated, the sentence says so before it gives a ratio.
"""

from typing import NamedTuple

from llmdyno.records.entries import OUTCOMES
from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.results import titles, wording
from llmdyno.results.findings import Verdict
from llmdyno.results.slo import HEADLINES
from llmdyno.units import counted


class _Clause(NamedTuple):
    """What is said of a metric: "3.1x", or "higher by 2.1" where there is no ratio."""

    metric: str
    said: str
    joined: str = "the"  # "tuned is 3.1x *the* token rate"


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
    failed = _failed(level)
    if not rates[best]:
        return Verdict(sentence=f"No token arrived at {best}{failed}.", tone="worse")
    reached = wording.with_interval(rates[best], documents.interval(level, "token_rate", "ci95"))
    first = wording.milliseconds(documents.number(level, "ttft_ms", "p50"))
    among = "" if len(rates) == 1 else f", the highest of {len(rates)} levels"
    return Verdict(
        sentence=f"{reached} tokens/s at {best}{among}, with a TTFT p50 of {first}{failed}.",
        tone="worse" if failed else "open",
    )


def _failed(level: Document) -> str:
    """Say how many requests of a level failed; empty: none did."""
    counts = {name: documents.number(level, "requests", name) or 0 for name in OUTCOMES}
    if not counts["failed"]:
        return ""
    return f"; {counts['failed']:,.0f} of {counted(sum(counts.values()), 'request')} failed"


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


def _clauses(ratios: list[_Clause], subject: str, at: str) -> str:
    """Join ratios to "tuned is 3.1x the token rate at 100 users; TTFT p50 is 0.2x"."""
    first, *others = ratios
    title = titles.title(first.metric)
    sentence = f"{subject} is {first.said} {first.joined} {title}{f' at {at}' if at else ''}"
    return "; ".join([sentence, *(f"{titles.title(one.metric)} is {one.said}" for one in others)])
