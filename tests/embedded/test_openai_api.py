"""OpenAI's wire format: what a request may ask for, and how the answer is written."""

import json
from typing import Any

import pytest

from llmdyno.embedded.engine import Generation, Mailbox
from llmdyno.embedded.metrics import Metrics
from llmdyno.embedded.openai_api import (
    CHAT,
    COMPLETION,
    DONE,
    Answer,
    ApiError,
    ChatRequest,
    CompletionRequest,
    Dialect,
    TokenizeRequest,
    error_body,
    parse,
    usage,
)

CHATTING = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
COMPLETING = {"model": "m", "prompt": "a"}


def read_chat(**fields: Any) -> ChatRequest:
    return parse(json.dumps(CHATTING | fields).encode(), ChatRequest)


def generation(finish: str = "stop") -> Generation:
    made = Generation(Mailbox(), Metrics())
    made.prompt_tokens, made.output_tokens, made.finish = 7, 3, finish
    return made


def events(data: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]


def test_a_chat_may_fill_the_context_and_a_completion_makes_sixteen() -> None:
    assert read_chat().asked()["max_tokens"] is None
    assert read_chat(max_tokens=5).asked()["max_tokens"] == 5
    assert read_chat(max_tokens=5, max_completion_tokens=6).asked()["max_tokens"] == 6
    completion = parse(json.dumps(COMPLETING).encode(), CompletionRequest)
    assert completion.asked()["max_tokens"] == 16


def test_no_temperature_is_greedy_and_a_seed_is_kept() -> None:
    asked = read_chat(seed=5, stop=["x", ""]).asked()

    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.0, 1.0, 5)
    assert asked["stop"] == ("x",)
    assert read_chat(stop="y").asked()["stop"] == ("y",)
    assert read_chat().asked()["seed"] != read_chat().asked()["seed"]


def test_parts_of_a_message_are_one_text() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]

    asked = read_chat(messages=[{"role": "user", "content": parts, "name": "me"}]).asked()

    assert asked["prompt"] == [{"role": "user", "content": "one two"}]


def test_what_asks_for_nothing_more_is_taken() -> None:
    read_chat(n=1, user="me", logit_bias={}, tools=[], response_format={"type": "text"}, echo=None)


WRONG: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b"{", "The body is not valid JSON", None),
    "no object": (b"[]", "The body must be a JSON object.", None),
    "unknown": (b'{"modell": "m"}', "'modell' is not a parameter of this server.", "modell"),
    "not supported": (b'{"n": 2}', "'n': 2 is not supported by this server.", "n"),
    "true is not 1": (b'{"n": true}', "'n': true is not supported", "n"),
    "a long value": (
        json.dumps({"tools": ["x" * 100]}).encode(), '\'tools\': ["xxx', "tools",
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
        parse(body, ChatRequest)

    assert str(raised.value).startswith(words)
    assert len(str(raised.value)) < 200
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (503, "server_error")]
)
def test_an_error_is_written_as_openais(status: int, kind: str) -> None:
    error = ApiError(status, "no", param="n", code="c")

    assert error_body(error) == {
        "error": {"message": "no", "type": kind, "param": "n", "code": "c"}
    }


@pytest.mark.parametrize("fields", [{}, {"prompt": "a", "messages": []}])
def test_either_a_prompt_or_a_chat_is_tokenised(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="either 'prompt' or 'messages'"):
        parse(json.dumps(fields).encode(), TokenizeRequest).asked()
    assert parse(b'{"prompt": "a"}', TokenizeRequest).asked() == "a"


def answer(dialect: Dialect, **fields: Any) -> Answer:
    body = CHATTING if dialect is CHAT else COMPLETING
    return Answer(dialect, parse(json.dumps(body | fields).encode(), dialect.request))


def test_a_chats_stream_opens_with_its_role_and_ends_with_the_mark() -> None:
    made = answer(CHAT, stream=True)

    data = made.opening() + made.text('a "quoted"\né') + made.closing(generation())

    opening, text, closing = events(data)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": 'a "quoted"\né'}
    assert closing["choices"][0]["finish_reason"] == "stop"
    assert len({event["id"] for event in (opening, text, closing)}) == 1
    assert data.endswith(DONE)
    assert "usage" not in closing


def test_usage_is_the_last_event_if_it_is_asked_for() -> None:
    made = answer(COMPLETION, stream=True, stream_options={"include_usage": True})

    assert made.opening() == b""
    text, closing, counted = events(made.text("a") + made.closing(generation("length")))

    assert (text["choices"][0]["text"], text["usage"]) == ("a", None)
    assert closing["choices"][0]["finish_reason"] == "length"
    assert (counted["choices"], counted["usage"]["total_tokens"]) == ([], 10)


@pytest.mark.parametrize("dialect", [CHAT, COMPLETION])
def test_an_answer_in_one_piece_has_text_finish_and_usage(dialect: Dialect) -> None:
    document = json.loads(answer(dialect).whole("hello", generation()))

    (choice,) = document["choices"]
    text = choice["message"]["content"] if dialect is CHAT else choice["text"]
    assert (text, choice["finish_reason"]) == ("hello", "stop")
    assert document["object"] == dialect.whole
    assert document["usage"] == usage(generation())
    assert document["id"].startswith(dialect.id_prefix)
