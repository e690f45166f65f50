"""What is read of an answer in one piece: the forms of both endpoints, and what is odd."""

import json
from typing import Any

import pytest

from llmdyno.quality.answers import Said, read_whole


def completion(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", **choice}]}).encode()


def test_a_completion_of_vllm_is_read() -> None:
    logprobs = {
        "tokens": ["token_id:5", "token_id:7"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"token_id:5": -0.5, "token_id:6": -2.0}, {"token_id:7": -1.5}],
        "text_offset": [0, 2],
    }
    assert read_whole(completion(text="a b", logprobs=logprobs)) == Said(
        text="a b",
        finish="stop",
        tokens=("token_id:5", "token_id:7"),
        logprobs=(-0.5, -1.5),
        top=({"token_id:5": -0.5, "token_id:6": -2.0}, {"token_id:7": -1.5}),
    )


def test_a_chat_is_read_and_half_characters_are_told_apart() -> None:
    content = [
        {
            "token": "\ufffd",
            "bytes": [226],
            "logprob": -0.25,
            "top_logprobs": [
                {"token": "\ufffd", "bytes": [226], "logprob": -0.25},
                {"token": "\ufffd", "bytes": [240], "logprob": -3.0},
            ],
        }
    ]
    message = {"role": "assistant", "content": "…", "reasoning_content": "hm "}
    said = read_whole(completion(message=message, logprobs={"content": content}))
    assert said is not None
    assert said.text == "hm …"
    assert said.tokens == ("\ufffd [226]",)
    assert said.top == ({"\ufffd [226]": -0.25, "\ufffd [240]": -3.0},)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        "none",
        {},
        {"content": "no"},
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": ["a"], "token_logprobs": [-1.0, -2.0]},
        {"tokens": ["a"], "token_logprobs": "x", "top_logprobs": [None]},
    ],
)
def test_what_is_no_list_of_log_probabilities_is_none(logprobs: object) -> None:
    said = read_whole(completion(text="a", logprobs=logprobs))
    assert said is not None
    assert (said.text, said.logprobs, said.top) == ("a", (), ())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [1]}'])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    assert read_whole(body) is None
