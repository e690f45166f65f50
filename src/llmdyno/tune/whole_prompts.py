"""Configs that refuse the longest prompt of a load: known before such a server is started."""

from collections.abc import Mapping

from llmdyno.engines import facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Value, show
from llmdyno.serve.stack import Stack


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
    if scheduling is None or scheduling.splits_prompts(config):
        return
    step = config.get(scheduling.tokens.knob)
    if isinstance(step, int) and step < tokens:
        raise UsageError(
            f"{scheduling.tokens.knob}={show(step)} is less than the longest prompt of this load,"
            f" {tokens} tokens, and {scheduling.chunks}=false keeps prompts whole: it takes at"
            f" least {tokens}, or {scheduling.chunks}=true."
        )
