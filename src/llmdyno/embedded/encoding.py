"""A prompt → its token ids: a text, a chat in the model's template, or ids as they are.

worker.py does this in front of the engine, and the OpenAI port of the front triton in front of
Triton, so that both refuse the same prompts with the same words.
"""

from typing import Any

import numpy as np

from llmdyno.embedded.messages import Ids, Prompt

Row = np.ndarray[Any, np.dtype[np.int64]]  # one row of token ids


class PromptError(Exception):
    """What was asked cannot be done; the message is for the client, `param` the field at fault."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Encoder:
    """Turns prompts into ids, with OpenVINO GenAI's tokenizer that knows so many tokens."""

    def __init__(self, tokenizer: Any, tokens_known: int) -> None:
        self._tokenizer = tokenizer
        self._tokens_known = tokens_known

    def ids(self, prompt: Prompt, *, special: bool = True) -> Row:
        """Return the ids as one row; special: a text gets those that the tokenizer puts around it.

        Raises:
            PromptError: it is empty, the model's template refuses it, or it is of no known tokens.
        """
        if isinstance(prompt, Ids):
            row: Row = self._checked(prompt.ids)
        elif isinstance(prompt, str):
            row = self._tokenizer.encode(prompt, add_special_tokens=special).input_ids.data
        else:
            row = self._chat(prompt)
        if row.shape[1] == 0:
            raise PromptError("prompt: it is empty; one token at least is needed.", "prompt")
        return row

    def text(self, prompt: Prompt) -> str:
        """Return the text of a completion's prompt."""
        if isinstance(prompt, Ids):
            return str(self._tokenizer.decode(prompt.ids))
        assert isinstance(prompt, str), "only completions say their prompt"
        return prompt

    def _chat(self, messages: list[dict[str, Any]]) -> Any:
        if not self._tokenizer.chat_template:
            raise PromptError(
                "messages: the model has no chat template; use /v1/completions.", "messages"
            )
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        except RuntimeError as error:  # a template may refuse an order of roles, for one
            words = str(error).strip().splitlines()[-1]
            raise PromptError(
                f"messages: the model's chat template refuses them: {words}", "messages"
            ) from error
        # The template has the special tokens in it already.
        return self._tokenizer.encode(text, add_special_tokens=False).input_ids.data

    def _checked(self, ids: list[int]) -> Any:
        wrong = next((one for one in ids if not 0 <= one < self._tokens_known), None)
        if wrong is not None:
            raise PromptError(
                f"prompt: {wrong} is no token of this model, whose ids end with"
                f" {self._tokens_known - 1}.",
                "prompt",
            )
        return np.array([ids], dtype=np.int64)
