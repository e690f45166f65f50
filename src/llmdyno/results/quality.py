"""What the quality gate has found, in words: the same for terminal, page and bundle.

The document is made by quality/gate.py; it stands in study.json under "quality".
"""

from collections.abc import Sequence

from llmdyno.results import verdicts
from llmdyno.results.documents import Document, interval, items, number, part, text, texts
from llmdyno.units import counted

_NAMED = 3  # of the tasks that have no score


def sentences(document: Document) -> list[str]:
    """Say what was found, in a few sentences for people; none without a comparison."""
    tasks = of_tasks(part(document, "lm_eval"))
    if not part(document, "comparison"):
        why = text(document, "why")
        return [*([f"Quality was not compared: {why}"] if why else []), *tasks]
    alone = part(document, "comparison", "alone")
    unit = text(alone, "unit")
    same, prompts = number(alone, "same_answers", "mean"), number(alone, "prompts")
    wrong, excess = number(alone, "disagreement", "mean"), number(document, "excess", "mean")
    bounds = interval(document, "excess", "ci95")
    headline = (
        f"Output: {text(document, 'verdict')}. {_share(same)} of {prompts or 0:g} greedy answers"
        f" equal the baseline's; {_share(wrong)} of the {unit} differ where the text before them"
        f" is the same, {_beside(excess, bounds)} than in the baseline against itself."
    )
    said = [headline]
    if (by := number(alone, "logprob_difference", "mean")) is not None:
        own = number(document, "yardstick", "loaded", "logprob_difference", "mean")
        beside = "" if own is None else f" (the baseline against itself: {own:.3g})"
        said.append(f"Log-probabilities of equal tokens differ by {by:.3g} on average{beside}.")
    return said + texts(document, "cannot_judge")[1:] + tasks


def of_tasks(document: Document) -> list[str]:
    """Say how the winner does at lm-eval's tasks beside the baseline; a sentence a score."""
    why = text(document, "why")
    return [
        *([f"lm-eval has compared nothing: {why}"] if why else []),
        *map(_of_task, items(document, "tasks")),
        *_of_dropped(items(document, "dropped")),
    ]


def _of_dropped(rows: Sequence[Document]) -> list[str]:
    """Say which tasks have no score, a sentence a reason."""
    by_why: dict[str, list[str]] = {}
    for row in rows:
        by_why.setdefault(text(row, "why"), []).append(text(row, "task"))
    return [f"lm-eval has no score of {_some(tasks)}: {why}." for why, tasks in by_why.items()]


def _some(names: Sequence[str]) -> str:
    """Name the first few of many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def worse_tasks(document: Document) -> list[str]:
    """Return the sentences of the tasks at which the winner is shown to be worse."""
    rows = items(part(document, "lm_eval"), "tasks")
    return [_of_task(row) for row in rows if text(row, "verdict") == "worse"]


def _of_task(row: Document) -> str:
    filtered = text(row, "filter")
    named = text(row, "metric") + ("" if filtered in {"", "none"} else f" ({filtered})")
    winner, baseline = number(row, "winner"), number(row, "baseline")
    said = f"lm-eval, {text(row, 'task')}: {named} {winner or 0:.4g}"
    said += f", the baseline's {baseline or 0:.4g}"
    verdict, questions = text(row, "verdict"), number(row, "questions") or 0
    if not verdict:
        return f"{said}; there are no scores of single questions, so no interval."
    by, bounds = number(row, "difference", "mean"), interval(row, "difference", "ci95")
    within = "" if bounds is None else f" [{bounds[0]:.3g}, {bounds[1]:.3g}]"
    return f"{said}; {by or 0:+.3g}{within} over {questions:g} questions: {verdict}."


def of_study(study: Document) -> list[str]:
    """Say what a study's quality gate found of its winner, and how many configs it kept out."""
    found = part(study, "quality")
    refused = items(found, "refused")
    kept_out = (
        [f"The quality gate kept {counted(len(refused), 'config')} out, as the output differs."]
        if refused
        else []
    )
    return sentences(found) + kept_out + _unasked(study)


# Ends of a study in which no config has won.
_NO_WINNER = ("nothing better", "nothing tried", "rejected")


def _unasked(study: Document) -> list[str]:
    """Say that lm-eval's tasks were not answered, where there is no winner to answer them.

    Nothing better was found then, or what was found ties with the baseline.
    """
    tasks = texts(study, "spec", "lm_eval")
    if not tasks or part(study, "quality", "lm_eval"):
        return []
    if text(study, "outcome", "state") not in _NO_WINNER and not verdicts.confirmed(study).stays:
        return []
    why = "not asked; the baseline stays, so there is no winner to compare."
    return [f"lm-eval, {', '.join(tasks)}: {why}"]


def _beside(excess: float | None, bounds: tuple[float, float] | None) -> str:
    """Say a difference of two shares without a sign: "0.27 % [0.07, 0.53] fewer"."""
    if excess is None or excess >= 0:
        return f"{_share(excess)}{_interval(bounds)} more"
    turned = None if bounds is None else (-bounds[1], -bounds[0])
    return f"{_share(-excess)}{_interval(turned)} fewer"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f" [{100 * bounds[0]:.3g}, {100 * bounds[1]:.3g}]"
