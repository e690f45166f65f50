"""Configs that refuse the longest prompt of a load: known before such a server is started."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from llmdyno.engines import facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Value, show
from llmdyno.serve.stack import Stack
from llmdyno.tune.entries import Step
from llmdyno.tune.summaries import summary_of


def longest_prompt(study: Path, steps: Iterable[Step]) -> int:
    """Return the tokens of the longest prompt that any of a study's runs has measured.

    A short run on a busy machine completes few requests, and seldom the longest.

    Args:
        study: its folder.
        steps: of its ledger.

    Returns:
        0 where nobody counted the prompts' tokens.
    """
    return max((_longest_in(study / step.run) for step in steps if step.run), default=0)


@cache
def _longest_in(run: Path) -> int:
    levels = (summary_of(run) or {"levels": []})["levels"]  # none: it failed, or its files are gone
    return max(
        (int((level.get("tokens") or {}).get("input_max") or 0) for level in levels), default=0
    )


def check_prompt(stack: Stack, config: Mapping[str, Value], tokens: int) -> None:
    """Refuse a config that keeps prompts whole and has no step for the longest.

    What is unset is taken for large enough: an engine's own choice depends on the model.

    Args:
        stack: what is tuned.
        config: of it.
        tokens: of the longest prompt; 0: it is not known.

    Raises:
        UsageError: names the knobs, and what would be right.
    """
    scheduling = facts(stack.engine).scheduling
    if scheduling is None or (rules := scheduling.under(config)).splits_prompts(config):
        return
    step = config.get(rules.tokens.knob)
    if isinstance(step, int) and step < tokens:
        raise UsageError(
            f"{rules.tokens.knob}={show(step)} is less than the longest prompt of this load,"
            f" {tokens} tokens, and {rules.chunks}=false keeps prompts whole: it takes at"
            f" least {tokens}, or {rules.chunks}=true."
        )
