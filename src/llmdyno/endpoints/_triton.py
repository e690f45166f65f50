"""What Triton's two protocols share: the names of a model's inputs, and how its tokens add up."""

from typing import Any

from llmdyno.endpoints import Ask
from llmdyno.endpoints._json_events import joined_prompt
from llmdyno.wire.reply import Reply


def inputs(ask: Ask) -> dict[str, Any]:
    """Return what is asked for, under the names that TensorRT-LLM's ensemble has for it."""
    named: dict[str, Any] = {
        "text_input": joined_prompt(ask),
        "stream": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    if ask.max_tokens is not None:
        named["max_tokens"] = ask.max_tokens
        if ask.exact_length:
            # TensorRT-LLM's name for it until 2024, and since.
            named["min_length"] = named["min_tokens"] = ask.max_tokens
    if ask.temperature is not None:
        named["temperature"] = ask.temperature
    return named


class Tally:
    """Puts the responses of a stream into a reply; each counts its own tokens, if any does."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._tokens = 0

    def add(
        self, stamp_ns: int, text: str, input_tokens: int | None, output_tokens: int | None
    ) -> None:
        """Take in one response."""
        reply = self._reply
        if input_tokens is not None:
            reply.input_tokens = input_tokens
        self._tokens += output_tokens or 0
        if text:
            reply.stamps_ns.append(stamp_ns)
            reply.texts.append(text)
            reply.usage_after.append(self._tokens)

    def end(self) -> None:
        """Give the reply its total."""
        if self._tokens and self._reply.usage_after:
            # What came after the last text was the end-of-sequence token.
            self._reply.output_tokens = self._reply.usage_after[-1] = self._tokens
