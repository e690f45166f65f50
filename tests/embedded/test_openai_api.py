"""OpenAI's wire format: how the answer is written."""

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
    Dialect,
    error_body,
    usage,
)
from llmdyno.embedded.openai_request import ApiError, read

CHATTING = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
COMPLETING = {"model": "m", "prompt": "a"}


def generation(finish: str = "stop") -> Generation:
    made = Generation(Mailbox(), Metrics())
    made.prompt_tokens, made.output_tokens, made.finish = 7, 3, finish
    return made


def events(data: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (503, "server_error")]
)
def test_an_error_is_written_as_openais(status: int, kind: str) -> None:
    error = ApiError(status, "no", param="n", code="c")

    assert error_body(error) == {
        "error": {"message": "no", "type": kind, "param": "n", "code": "c"}
    }


def answer(dialect: Dialect, **fields: Any) -> Answer:
    body = CHATTING if dialect is CHAT else COMPLETING
    asked, _ = read(json.dumps(body | fields).encode(), dialect.request)
    return Answer(dialect, asked)


def closed(made: Answer, finish: str = "stop") -> bytes:
    ended = generation(finish)
    return made.finish(0, ended) + made.closing([ended])


def test_a_chats_stream_opens_with_its_role_and_ends_with_the_mark() -> None:
    made = answer(CHAT, stream=True)

    data = b"".join(
        [made.opening(0, generation()), made.text(0, 'a "quoted"\né', generation()), closed(made)]
    )

    opening, text, closing = events(data)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": 'a "quoted"\né'}
    assert closing["choices"][0]["finish_reason"] == "stop"
    assert len({event["id"] for event in (opening, text, closing)}) == 1
    assert data.endswith(DONE)
    assert "usage" not in closing


def test_usage_is_the_last_event_if_it_is_asked_for() -> None:
    made = answer(COMPLETION, stream=True, stream_options={"include_usage": True})

    assert made.opening(0, generation()) == b""
    text, closing, counted = events(made.text(0, "a", generation()) + closed(made, "length"))

    assert (text["choices"][0]["text"], text["usage"]) == ("a", None)
    assert closing["choices"][0]["finish_reason"] == "length"
    assert (counted["choices"], counted["usage"]["total_tokens"]) == ([], 10)


@pytest.mark.parametrize("dialect", [CHAT, COMPLETION])
def test_an_answer_in_one_piece_has_text_finish_and_usage(dialect: Dialect) -> None:
    document = json.loads(answer(dialect).whole(["hello"], [generation()]))

    (choice,) = document["choices"]
    text = choice["message"]["content"] if dialect is CHAT else choice["text"]
    assert (text, choice["finish_reason"]) == ("hello", "stop")
    assert document["object"] == dialect.whole
    assert document["usage"] == usage([generation()])
    assert document["id"].startswith(dialect.id_prefix)


def test_every_event_has_the_usage_so_far_if_it_is_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    made = answer(CHAT, stream=True, stream_options=options)
    growing = generation()
    growing.output_tokens = 1

    opening, text = events(made.opening(0, growing) + made.text(0, "a", growing))
    finish, counted = events(closed(made))

    assert text["choices"][0]["delta"] == {"content": "a"}
    assert [event["usage"]["completion_tokens"] for event in (opening, text)] == [1, 1]
    assert finish["usage"] == counted["usage"] == usage([generation()])
    alone = answer(CHAT, stream=True, stream_options={"continuous_usage_stats": True})
    (only,) = events(closed(alone))  # without include_usage no event is for the usage alone
    assert only["usage"]["total_tokens"] == 10


def test_choices_have_their_numbers_and_share_the_tokens_of_a_prompt() -> None:
    made = answer(COMPLETION, prompt=["a", "b"], n=2)
    four = [generation() for _ in range(4)]

    document = json.loads(made.whole(["a1", "a2", "b1", "b2"], four))

    assert [one["index"] for one in document["choices"]] == [0, 1, 2, 3]
    assert [one["text"] for one in document["choices"]] == ["a1", "a2", "b1", "b2"]
    assert (document["usage"]["prompt_tokens"], document["usage"]["completion_tokens"]) == (14, 12)
    first, last = events(made.text(0, "x", four[0]) + made.text(3, "y", four[3]))
    assert (first["choices"][0]["index"], last["choices"][0]["index"]) == (0, 3)
    assert (first["choices"][0]["text"], last["choices"][0]["text"]) == ("x", "y")
