"""A prompt → its token ids, with a tokenizer of which every letter is a token."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmdyno.embedded.encoding import Encoder, PromptError
from llmdyno.embedded.messages import Ids, Prompt

BEGIN = 1


class Letters:
    """Puts BEGIN before a text, and refuses a chat without a user."""

    def __init__(self, chat_template: str = "a template") -> None:
        self.chat_template = chat_template

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        ids = [BEGIN] * add_special_tokens + [ord(letter) for letter in text]
        return SimpleNamespace(input_ids=SimpleNamespace(data=np.array([ids], dtype=np.int64)))

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(
        self, messages: list[dict[str, str]], add_generation_prompt: bool
    ) -> str:
        if messages[0]["role"] != "user":
            raise RuntimeError("Exception from somewhere:\nroles must begin with user")
        return messages[0]["content"] + ">" * add_generation_prompt


ENCODER = Encoder(Letters(), 128)
CHAT = [{"role": "user", "content": "ab"}]


@pytest.mark.parametrize(
    ("prompt", "special", "ids"),
    [
        ("ab", True, [BEGIN, 97, 98]),
        ("ab", False, [97, 98]),
        (CHAT, True, [97, 98, ord(">")]),  # the template has the special tokens in it
        (Ids([97, 127]), True, [97, 127]),
    ],
)
def test_every_kind_of_prompt_becomes_a_row_of_ids(
    prompt: Prompt, special: bool, ids: list[int]
) -> None:
    assert ENCODER.ids(prompt, special=special).tolist() == [ids]


@pytest.mark.parametrize(
    ("encoder", "prompt", "param", "words"),
    [
        (ENCODER, "", "prompt", "it is empty"),
        (ENCODER, Ids([]), "prompt", "it is empty"),
        (ENCODER, Ids([5, 128]), "prompt", "128 is no token of this model, whose ids end with 127"),
        (ENCODER, [{"role": "x", "content": "a"}], "messages", "refuses them: roles must begin"),
        (Encoder(Letters(""), 128), CHAT, "messages", "no chat template; use /v1/completions"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_field(
    encoder: Encoder, prompt: Prompt, param: str, words: str
) -> None:
    with pytest.raises(PromptError, match=words) as raised:
        encoder.ids(prompt, special=False)
    assert raised.value.param == param


def test_a_prompt_can_be_said_again() -> None:
    assert ENCODER.text("ab") == ENCODER.text(Ids([97, 98])) == "ab"
