"""What the quality gate has found, in words: the same for terminal, page and bundle.

The document is made by quality/gate.py; it stands in study.json under "quality".
"""

from llmdyno.results.documents import Document, interval, items, number, part, text, texts
from llmdyno.units import counted


def sentences(document: Document) -> list[str]:
    """Say what was found, in a few sentences for people; none without a comparison."""
    if not part(document, "comparison"):
        why = text(document, "why")
        return [f"Quality was not compared: {why}"] if why else []
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
    return said + texts(document, "cannot_judge")[1:]


def of_study(study: Document) -> list[str]:
    """Say what a study's quality gate found of its winner, and how many configs it kept out."""
    found = part(study, "quality")
    refused = items(found, "refused")
    kept_out = (
        [f"The quality gate kept {counted(len(refused), 'config')} out, as the output differs."]
        if refused
        else []
    )
    return sentences(found) + kept_out


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
