"""The quality gate: two servers' answers in, what their difference shows out.

The engine's own nondeterminism is the yardstick: the baseline is compared with itself, asked again,
and asked with other requests beside. Only what goes beyond that is the other config's. The
document's keys are a contract; its version's history:

    llmdyno.quality/1 (November 2026): the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmdyno.quality.answers import Answers, Said
from llmdyno.quality.compare import Couples, compared, couples, draw
from llmdyno.results.documents import Document, number
from llmdyno.results.stats import interval95, significant

SCHEMA = "llmdyno.quality/1"
# Of the chosen tokens: below it the likeliest token is hardly likelier than others.
FLAT_PROBABILITY = 0.05

AGREEMENT = (
    "Agreement is not correctness: the prompts have no right answers. A task with them, such as one"
    " of lm-eval's, is for that."
)

SAME = "the same"
WITHIN = "within the engine's own noise"
DIFFERS = "differs"


def judge(before: Answers, after: Answers | None) -> dict[str, Any]:
    """Return the document of a comparison.

    Args:
        before: the baseline's answers, asked twice alone.
        after: the other server's; None: the baseline is compared with itself alone.
    """
    yardstick = {
        "again": couples(before.alone, before.again) if before.again else None,
        "loaded": couples(before.alone, before.loaded),
    }
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "endpoint": before.endpoint,
        "model": before.model,
        "prompts": len(before.alone),
        "tokens_max": before.tokens_max,
        "concurrency": before.concurrency,
        "detail": _detail([before, *([after] if after else [])]),
        "yardstick": _compared(yardstick),
        "comparison": None,
        "excess": None,
        "verdict": None,
        "cannot_judge": _cannot_judge(before, after),
    }
    if after is None:
        return document
    alone, loaded = couples(before.alone, after.alone), couples(before.alone, after.loaded)
    document["comparison"] = _compared({"alone": alone, "loaded": loaded})
    document["excess"] = _excess(alone, [one for one in yardstick.values() if one is not None])
    document["verdict"] = _verdict(alone, document["excess"])
    return document


def _compared(found: Mapping[str, Couples | None]) -> dict[str, Any]:
    return {name: one and compared(one) for name, one in found.items()}


def _excess(alone: Couples, yardsticks: Sequence[Couples]) -> dict[str, Any]:
    """Return by how much two servers disagree beyond the larger of the baseline's own shares."""
    drawn = draw(len(alone.couples))
    own = np.max([one.disagreement() for one in yardsticks], axis=0)
    own_drawn = np.max([one.disagreement(drawn) for one in yardsticks], axis=0)
    low, high = interval95(alone.disagreement(drawn) - own_drawn)
    return {
        "mean": significant(float((alone.disagreement() - own)[0])),
        "ci95": [significant(low), significant(high)],
    }


def _verdict(alone: Couples, excess: Mapping[str, Any]) -> str:
    if not any(one.differs for one in alone.couples):
        return SAME
    return DIFFERS if excess["ci95"][0] > 0 else WITHIN


def _detail(answers: Sequence[Answers]) -> str:
    """Return the most that all servers tell: "top", "chosen", "tokens" or "text"."""
    said = [one for each in answers for one in (*each.alone, *each.loaded) if one.text]
    for name, has in (("top", "top"), ("chosen", "logprobs"), ("tokens", "tokens")):
        if said and all(getattr(one, has) for one in said):
            return name
    return "text"


def _cannot_judge(before: Answers, after: Answers | None) -> list[str]:
    """Say what the numbers do not show."""
    said = [AGREEMENT]
    detail = _detail([before, *([after] if after else [])])
    if detail == "text":
        said.append(
            "A server tells no tokens: texts are compared by characters, and a changed probability"
            " shows only where it changes the text."
        )
    elif detail == "chosen":
        said.append(
            "A server tells the log-probability of the chosen token alone: there is no divergence"
            " of the distributions."
        )
    probability = _probability(before.alone)
    if probability is not None and probability < FLAT_PROBABILITY:
        said.append(
            f"The chosen tokens have a probability of {probability:.2g} (geometric mean): the model"
            " hardly prefers one token to another, as one with random weights. Such answers diverge"
            " at the slightest change of arithmetic, and quality cannot be read from them."
        )
    if len({one.text for one in before.alone}) <= max(1, len(before.alone) // 4):
        said.append("Most answers are alike: the prompts hardly matter to this server.")
    return said


def _probability(said: Sequence[Said]) -> float | None:
    logprobs = [value for one in said for value in one.logprobs]
    return float(np.exp(np.mean(logprobs))) if logprobs else None


def admits(document: Document, limit: float | None) -> bool:
    """Tell whether a config may win that is searched under --allow-altered-output.

    Args:
        document: what judge() returned.
        limit: the most disagreement beyond the yardstick, as a share; None: any.
    """
    if limit is None:
        return True
    excess = number(document, "excess", "mean")
    return excess is not None and excess <= limit
