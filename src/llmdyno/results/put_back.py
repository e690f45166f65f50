"""What an ablation has shown, in words: which setting did it, by runs with one of them put back."""

from collections.abc import Sequence

from llmdyno.knobs import show
from llmdyno.results import conclusions, titles, verdicts, wording
from llmdyno.results.documents import Document, interval, items, number, part, text
from llmdyno.results.proportions import NOT_SHOWN, up_to, worded
from llmdyno.results.slo import HEADLINES, shift
from llmdyno.results.titles import lower_is_better

_DID = "What did it is"
_COSTS = "Against it works"
_OPEN = "Not shown to be for it or against it, by too few runs, is"
_NOT_PUT_BACK = "the winner was not measured again without it"
_PUT_BACK = "the winner was not measured again with one of them put back"


def which(study: Document, changed: Sequence[str]) -> str:
    """Say which of the changed settings made a difference, by runs with one of them put back."""
    if not changed:
        return ""
    effects = [(row, effect_of(study, row)) for row in items(study, "ablation")]
    known = [(row, said) for row, said in effects if said]
    if not known:
        listed = wording.listed(changed)
        return (
            f"Which of the {len(changed)} changed settings ({listed}) did it is not known:"
            f" {_PUT_BACK}."
        )
    found: dict[str, list[str]] = {opening: [] for opening in (_DID, _COSTS, _OPEN)}
    idle: list[Document] = []
    for row, said in known:
        slo = conclusions.of_slo_setting(study, row)
        own = said if slo or has_effect(study, row) else ""
        if not (slo or own):
            idle.append(row)
            continue
        opening = _opening(study, row)
        if opening == _OPEN:
            slo = conclusions.of_slo_runs(study, row)
        values = f"{show(row.get('from'))} → {show(row.get('to'))}"
        with_it = " and ".join(one for one in (slo, own) if one)
        found[opening].append(f"{text(row, 'knob')} ({values}): with it {with_it}")
    told = [f"{opening} {'; '.join(clauses)}." for opening, clauses in found.items() if clauses]
    rest = _without_effect(study, idle)
    together = conclusions.interactions(study)
    return " ".join(one for one in (*told, rest, *together, _unknown(changed, known)) if one)


def is_measured(study: Document) -> bool:
    """Tell whether runs with a setting put back have shown what one of them gives."""
    return any(effect_of(study, row) for row in items(study, "ablation"))


def _without_effect(study: Document, idle: Sequence[Document]) -> str:
    """Say which settings are not shown to do anything, and what they may do all the same."""
    if not idle:
        return ""
    names = [text(row, "knob") for row in idle]
    verb, whose = ("is", "its") if len(idle) == 1 else ("are", "their")
    said = f"{wording.listed(names)} {verb} not shown to have an effect of {whose} own"
    hidden: dict[str, list[str]] = {}  # by the metric
    for row, name in zip(idle, names, strict=True):
        metric, measured = _effect(study, row)
        bounds = interval(measured, "ci95")
        if bounds is not None:
            which = f" ({name})" if len(idle) > 1 else ""
            hidden.setdefault(titles.in_words(metric), []).append(f"{up_to(bounds)}{which}")
    may = [f"up to {wording.listed(sizes)} in the {metric}" for metric, sizes in hidden.items()]
    verb = "is" if sum(map(len, hidden.values())) == 1 else "are"
    return f"{said}; {' and '.join(may)} {verb} not ruled out." if may else f"{said}."


def _opening(study: Document, row: Document) -> str:
    """Return with which words a setting is told that makes a difference.

    The SLOs come before the objective. Where the objective says one thing of a setting, and runs
    that are too few to show it say the other of the SLOs, it is open on which side it stands.
    """
    shifted = shift(part(row, "slo_met"))
    if part(row, "slo_met").get("decides"):
        return _DID if shifted > 0 else _COSTS
    if _is_adverse(study, row):
        return _OPEN if shifted > 0 else _COSTS
    return _OPEN if shifted < 0 else _DID


def _unknown(changed: Sequence[str], known: Sequence[tuple[Document, str]]) -> str:
    """Name the changed settings that no run has put back; empty: there are none."""
    put_back = {text(row, "knob") for row, _ in known}
    left = [name for name in changed if name not in put_back]
    if not left:
        return ""
    how = _NOT_PUT_BACK if len(left) == 1 else _PUT_BACK
    return f"What {wording.listed(left)} gave is not known: {how}."


def effect_of(study: Document, row: Document) -> str:
    """Return what a row of the ablation gives, in words; empty: it has no ratio."""
    metric, measured = _effect(study, row)
    said = worded(number(measured, "ratio"), metric, interval(measured, "ci95"))
    shown = "" if has_effect(study, row) else f"{NOT_SHOWN} "
    return f"the {titles.in_words(metric)} is {shown}{said}" if said else ""


def has_effect(study: Document, row: Document) -> bool:
    """Tell whether a row of the ablation shows an effect beyond the noise."""
    bounds = interval(_effect(study, row)[1], "ci95")
    if bounds is None:
        return row.get("matters") is True
    return not bounds[0] <= 1 <= bounds[1]


def _is_adverse(study: Document, row: Document) -> bool:
    """Tell whether a setting makes worse what the study is to make better."""
    metric, measured = _effect(study, row)
    ratio = number(measured, "ratio")
    return ratio is not None and (ratio > 1) is (lower_is_better(metric) is True)


def _effect(study: Document, row: Document) -> tuple[str, Document]:
    """Return the metric by which a row is told, the decisive one if it can be, and its ratio."""
    decisive = verdicts.confirmed(study).decided_by
    known = number(row, "effect", decisive, "ratio") is not None
    metric = decisive if known else HEADLINES[0].key
    return metric, part(row, "effect", metric)
