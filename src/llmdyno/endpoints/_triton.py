"""What Triton's two protocols share: a model's inputs, how its tokens add up, which model it is.

TensorRT-LLM's pipeline and its llmapi model have different names for what a client asks for: a name
of the latter is used where the model declares it and not the other. The llmapi model puts the
prompt in front of the answer unless it is told not to; so is any model that declares such a switch.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from llmdyno.endpoints import Ask, ServerProbe
from llmdyno.endpoints._json_events import joined_prompt
from llmdyno.errors import TargetError
from llmdyno.wire.reply import Reply

# A model that generates text has these among its tensors.
TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"
# TensorRT-LLM's names of its whole pipeline, which is preferred to its parts.
_FIRST = ("ensemble", "tensorrt_llm_bls")
# The name in the pipeline → the name in the llmapi model.
_LLMAPI = {
    "max_tokens": "sampling_param_max_tokens",
    "temperature": "sampling_param_temperature",
    "stream": "streaming",
}
_WITHOUT_PROMPT = ("sampling_param_exclude_input_from_output", "exclude_input_in_output")


async def choose_model(
    server: ServerProbe,
    names: Collection[str],
    generates_text: Callable[[str], Awaitable[bool]],
) -> str:
    """Choose among the models that are ready the one that takes text and gives text.

    Raises:
        TargetError: there is none, or it is not clear which.
    """
    for name in _FIRST:
        if name in names:
            return name
    text_models = [name for name in names if await generates_text(name)]
    if len(text_models) == 1:
        return text_models[0]
    found = ", ".join(text_models) or "none"
    raise TargetError(
        f"{server.target.authority}: one of Triton's models must take {TEXT_INPUT} and give"
        f" {TEXT_OUTPUT}, but there are these that do: {found}. Name one with --model."
    )


def inputs(ask: Ask) -> dict[str, Any]:
    """Return what is asked for, under the names that the model declares for it.

    Where it is not known what the model declares, these are those of TensorRT-LLM's ensemble.
    """
    named: dict[str, Any] = {
        TEXT_INPUT: joined_prompt(ask),
        "stream": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    if ask.max_tokens is not None:
        named["max_tokens"] = ask.max_tokens
        if ask.exact_length:
            # TensorRT-LLM called it min_length until 2024, and calls it min_tokens since.
            named["min_length"] = named["min_tokens"] = ask.max_tokens
    if ask.temperature is not None:
        named["temperature"] = ask.temperature
    declared = {tensor.name for tensor in ask.tensors}
    for ours, theirs in _LLMAPI.items():
        if ours in named and theirs in declared and ours not in declared:
            named[theirs] = named.pop(ours)
    return {**named, **{name: True for name in _WITHOUT_PROMPT if name in declared}}


class Tally:
    """Puts the responses of a stream into a reply and adds up their tokens.

    Each response counts only its own tokens, if the model counts any. Where a text has no count of
    its own, only the total is known, which count_tokens() spreads over the texts.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._tokens = 0
        self._counts_each = True  # every text so far came with a count

    def add(
        self, stamp_ns: int, text: str, input_tokens: int | None, output_tokens: int | None
    ) -> None:
        """Add one response, with its own counts of tokens if it has any."""
        reply = self._reply
        if input_tokens is not None:
            reply.input_tokens = input_tokens
        self._tokens += output_tokens or 0
        if text:
            reply.stamps_ns.append(stamp_ns)
            reply.texts.append(text)
            reply.usage_after.append(self._tokens)
            self._counts_each = self._counts_each and output_tokens is not None

    def end(self) -> None:
        """Write the total into the reply; call it once, after the last response."""
        if self._tokens and self._reply.usage_after:
            # What came after the last text was the end-of-sequence token.
            self._reply.output_tokens = self._reply.usage_after[-1] = self._tokens
        if not self._counts_each:
            self._reply.usage_after = []
