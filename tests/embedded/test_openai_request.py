"""OpenAI's wire format: what a request may ask for."""

import json
from typing import Any

import pytest

from llmdyno.embedded.messages import Ids, Sampling
from llmdyno.embedded.openai_request import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    TokenizeRequest,
    read,
    warning,
)

CHATTING = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
COMPLETING = {"model": "m", "prompt": "a"}


def read_chat(**fields: Any) -> ChatRequest:
    return read(json.dumps(CHATTING | fields).encode(), ChatRequest)[0]


def read_completion(**fields: Any) -> CompletionRequest:
    return read(json.dumps(COMPLETING | fields).encode(), CompletionRequest)[0]


def test_a_chat_may_fill_the_context_and_a_completion_makes_sixteen() -> None:
    assert read_chat().asked()[0]["max_tokens"] is None
    assert read_chat(max_tokens=5).asked()[0]["max_tokens"] == 5
    assert read_chat(max_tokens=5, max_completion_tokens=6).asked()[0]["max_tokens"] == 6
    assert read_completion().asked()[0]["max_tokens"] == 16
    assert read_completion(max_completion_tokens=6).asked()[0]["max_tokens"] == 6


def test_no_temperature_is_greedy_and_a_seed_is_kept() -> None:
    asked = read_chat(seed=5, stop=["x", ""]).asked()[0]

    assert asked["sampling"] == Sampling(seed=5)
    assert asked["stop"] == ("x",)
    assert read_chat(stop="y").asked()[0]["stop"] == ("y",)
    assert read_chat().asked()[0]["sampling"] != read_chat().asked()[0]["sampling"]


def test_parts_of_a_message_are_one_text() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]

    asked = read_chat(messages=[{"role": "user", "content": parts, "name": "me"}]).asked()[0]

    assert asked["prompt"] == [{"role": "user", "content": "one two"}]


def test_what_asks_for_nothing_more_is_taken() -> None:
    read_chat(n=1, user="me", logit_bias={}, tools=[], response_format={"type": "text"}, echo=None)


WRONG: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b"{", "The body is not valid JSON", None),
    "no object": (b"[]", "The body must be a JSON object.", None),
    "not supported": (
        b'{"logprobs": 2}', "'logprobs': 2 is not supported by this server.", "logprobs",
    ),
    "0 is not false": (b'{"logprobs": 0}', "'logprobs': 0 is not supported", "logprobs"),
    "no whole number": (json.dumps({**CHATTING, "n": True}).encode(), "'n': ", "n"),
    "too many choices": (json.dumps({**CHATTING, "n": 129}).encode(), "'n': ", "n"),
    "a long value": (
        json.dumps({"tools": ["x" * 100]}).encode(), '\'tools\': ["xxx', "tools",
    ),
    "a form": (
        b'{"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}',
        "'response_format': this server cannot hold an answer to a JSON schema, a grammar or a c",
        "response_format",
    ),
    "missing": (b'{"model": "m"}', "'messages': ", "messages"),
    "too hot": (
        json.dumps({**CHATTING, "temperature": 3}).encode(), "'temperature': ", "temperature",
    ),
    "no messages": (b'{"model": "m", "messages": []}', "'messages': ", "messages"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_done_is_refused_by_its_field(name: str) -> None:
    body, words, param = WRONG[name]

    with pytest.raises(ApiError) as raised:
        read(body, ChatRequest)

    assert str(raised.value).startswith(words)
    assert len(str(raised.value)) < 200
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize("fields", [{}, {"prompt": "a", "messages": []}])
def test_either_a_prompt_or_a_chat_is_tokenised(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="either 'prompt' or 'messages'"):
        read(json.dumps(fields).encode(), TokenizeRequest)[0].asked()
    assert read(b'{"prompt": "a"}', TokenizeRequest)[0].asked() == "a"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [Ids([1, 2])]),
        ([[1, 2], [3]], [Ids([1, 2]), Ids([3])]),
    ],
)
def test_a_prompt_is_a_text_or_token_ids_or_a_list_of_one_of_the_two(
    prompt: object, prompts: list[object]
) -> None:
    asked = read_completion(prompt=prompt, n=2, seed=5).asked()

    assert [each["prompt"] for each in asked] == [one for one in prompts for _ in range(2)]
    assert [each["sampling"].seed for each in asked] == [5, 6] * len(prompts)


@pytest.mark.parametrize("prompt", [[], ["a", 1], [1, [2]], ["a", [1]]])
def test_a_prompt_of_several_kinds_or_of_nothing_is_refused(prompt: object) -> None:
    with pytest.raises(ApiError, match="'prompt': give a text, token ids, or a list") as raised:
        read_completion(prompt=prompt).asked()
    assert (raised.value.status, raised.value.param) == (400, "prompt")


def test_the_prompts_own_probabilities_are_not_taken_for_those_of_the_answer() -> None:
    assert read_completion(echo=True, logprobs=False).asked()
    with pytest.raises(ApiError, match="'echo' with 'logprobs': this server gives no"):
        read_completion(echo=True, logprobs=1).asked()


def test_what_the_engine_can_do_is_asked_of_it() -> None:
    asked = read_completion(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        seed=3,
        max_tokens=9,
        min_tokens=4,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        stop_token_ids=[8],
        skip_special_tokens=False,
        echo=True,
        add_special_tokens=False,
        ignore_eos=True,
    ).asked()[0]

    assert asked["sampling"] == Sampling(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        seed=3,
        min_tokens=4,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        stop_ids=(8,),
    )
    assert (asked["show_special"], asked["echo"], asked["special"]) == (True, True, False)
    assert asked["ignore_eos"]


@pytest.mark.parametrize("top_k", [None, 0, -1])
def test_no_top_k_is_all_tokens(top_k: int | None) -> None:
    assert read_chat(top_k=top_k).asked()[0]["sampling"].top_k is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"best_of": 3, "n": 2}, "best_of"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(fields: Any, param: str) -> None:
    with pytest.raises(ApiError) as raised:
        read_chat(**fields).asked()
    assert (raised.value.status, raised.value.param) == (400, param)


def test_null_asks_for_the_default() -> None:
    nothing = dict.fromkeys(("n", "stream", "ignore_eos", "stop", "min_tokens", "top_k"))

    assert read_chat(**nothing, seed=1).asked() == read_chat(seed=1).asked()


def test_unknown_fields_are_ignored_and_named() -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    fields = {"modell": "m", "chat_id": 3, "user": "me", "n": 1, "stream_options": options}

    asked, ignored = read(json.dumps(CHATTING | fields).encode(), ChatRequest)

    assert asked.stream_options is not None
    assert asked.stream_options.include_usage
    assert ignored == ("modell", "chat_id", "stream_options.include_obfuscation")
    assert warning(ignored[:2]) == {
        "X-Warning": 'ignored, unknown to this server: "modell", "chat_id"'
    }
    assert warning(()) == {}


def test_no_name_of_a_field_ends_the_header() -> None:
    (header,) = warning(("a\r\nSet-Cookie: b", "é" * 2000)).values()

    assert header.isascii()
    assert header.isprintable()
    assert len(header) <= 1000


def test_tools_are_taken_where_the_model_may_not_call_them() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]

    read_chat(tools=tools, tool_choice="none")
    with pytest.raises(ApiError, match="'tools'"):
        read_chat(tools=tools, tool_choice="auto")


def test_a_message_without_content_is_empty() -> None:
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": []}]

    assert read_chat(messages=messages).prompts() == [[{"role": "assistant", "content": ""}]]
