"""A level by model: the same metrics for each of several that were asked at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmdyno.records.columns import Columns
from llmdyno.records.entries import OUTCOMES
from llmdyno.results.facts import LevelFacts
from llmdyno.results.measures import measures
from llmdyno.results.slo import Slo
from llmdyno.results.window import steady_window


def part(repeats: Sequence[LevelFacts], slos: Sequence[Slo]) -> dict[str, Any]:
    """Return "models" of a load point, its repeats together; nothing where one model was asked.

    The window is the level's: all models were asked at the same time.
    """
    names = sorted({name for facts in repeats for name in facts.by_model})
    if not names:
        return {}
    is_open = repeats[0].started.users is None
    asked = sum(len(facts.columns.sent_ns) for facts in repeats)
    found = []
    for name in names:
        runs = [
            (facts.by_model[name], steady_window(facts))
            for facts in repeats
            if name in facts.by_model
        ]
        columns = [one for one, _ in runs]
        outcomes = np.sum([_outcomes(one) for one in columns], axis=0)
        found.append(
            {
                "model": name,
                "share": round(sum(len(one.sent_ns) for one in columns) / asked, 4),
                "requests": {
                    outcome: int(count) for outcome, count in zip(OUTCOMES, outcomes, strict=True)
                },
                "tokens": {
                    "input": sum(int(c.input_tokens[c.input_tokens > 0].sum()) for c in columns),
                    "output": sum(int(c.output_tokens.sum()) for c in columns),
                },
                **measures(runs, slos, is_open=is_open),
            }
        )
    return {"models": found}


def _outcomes(columns: Columns) -> Any:
    return np.bincount(columns.outcome, minlength=len(OUTCOMES))
