"""The ten questions that a reader has of a study, each with its answer and where more stands."""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.knobs import Knob
from llmdyno.report import documents, settings, setup, spending
from llmdyno.report.documents import Document, Run
from llmdyno.results import findings, stacks, verdicts, wording, worsened
from llmdyno.results.study_doubts import changed_settings
from llmdyno.units import counted


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A question, its answer, and the section that has the rest."""

    question: str
    says: str
    section: str


def of_study(
    study: Document,
    runs: tuple[Run, ...],
    guide: Mapping[str, Knob],
    untested: Sequence[str],
    doubts: Sequence[str],
) -> list[Answer]:
    """Return the ten answers; what is not known is said to be so."""
    changed = changed_settings(study, guide)
    said = (
        ("What was run?", setup.what(study, runs), "setup"),
        ("On what?", setup.on_what(study, runs), "setup"),
        ("What changed?", _what_changed(study, guide), "settings"),
        ("By how much?", findings.by_how_much(study), "measured"),
        ("How sure is that?", _how_sure(study, doubts), "confirmation"),
        ("Which setting did it?", findings.which_setting(study, changed), "settings"),
        ("What did it cost?", _cost(study, runs), "cost"),
        ("How near is the limit?", findings.near_the_limit(study), "why"),
        ("What was not tested?", _not_tested(untested), "untested"),
        ("How is it repeated?", _repeat(study, runs), "repeat"),
    )
    return [
        Answer(question=question, says=says or "Not known.", section=section)
        for question, says, section in said
    ]


def _what_changed(study: Document, guide: Mapping[str, Knob]) -> str:
    rows = [row for row in settings.of_study(study, guide) if row.differs]
    combination = stacks.replaced(study)
    of = ", told against the baseline of what won" if combination else ""
    if combination and not rows:
        return f"What serves the model: {combination}."
    if not documents.part(study, "best") or not rows:
        return "Nothing: no setting differs from the baseline's."
    told = "; ".join(f"{row.name}: {row.before} → {row.after}" for row in rows)
    said = f"{counted(len(rows), 'setting')}{of}. {told}."
    return f"What serves the model: {combination}. {said}" if combination else said


def _how_sure(study: Document, doubts: Sequence[str]) -> str:
    verdict = verdicts.confirmed(study).word
    word = f"Verdict: {verdict}. " if verdict else ""
    rest = f" {counted(len(doubts), 'reason')} for doubt below." if doubts else ""
    return f"{word}{findings.how_sure(study)}{rest}"


def _cost(study: Document, runs: tuple[Run, ...]) -> str:
    worse = worsened.what_got_worse(study)
    price = (
        f"What got worse, in one run each: {'; '.join(worse)}."
        if worse
        else "Nothing that was measured got clearly worse."
        if len(runs) > 1
        else ""
    )
    return " ".join(one for one in (price, *spending.lines(study, runs)) if one)


def _not_tested(untested: Sequence[str]) -> str:
    heads = [one.split(":")[0].rstrip(".") for one in untested]
    first, *others = heads or [""]
    return f"{'; '.join([first, *(one[:1].lower() + one[1:] for one in others)])}." if first else ""


def _repeat(study: Document, runs: tuple[Run, ...]) -> str:
    blocks = documents.items(study, "repeat")
    command = next(
        (text for one in blocks if (text := documents.text(one, "text")).startswith("dyno tune")),
        "",
    )
    seed = documents.number(study, "spec", "seed")
    sides = [documents.part(run.summary, "environment") for run in runs]
    version = next((found for one in sides if (found := documents.text(one, "llmdyno"))), "")
    told = [
        f"llmdyno {version}" if version else "",
        *(stacks.engines(study) or [setup.engine(study)]),
        f"seed {wording.count(seed)}" if seed is not None else "",
    ]
    first = f"{command}, with" if command else "The commands are not known; it was made with"
    return f"{first} {', '.join(one for one in told if one)}."
