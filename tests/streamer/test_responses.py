"""What the server of known timing answers, as a client reads it."""

import json
from typing import Any

import httptools
import msgspec
import pytest

from llmdyno.streamer.responses import STREAM_HEAD, CompletionRequest, chunk, http, stream, whole


class Body:
    """What httptools finds in a response."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.complete = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


def events(data: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]


def asked(**fields: Any) -> CompletionRequest:
    return msgspec.convert(fields, CompletionRequest)


@pytest.mark.parametrize(
    ("count", "each", "tokens"),
    [(1, 1, [1]), (4, 1, [1, 1, 1, 1]), (5, 2, [2, 2, 1]), (4, 2, [2, 2]), (2, 8, [2])],
)
def test_a_stream_has_all_its_tokens(count: int, each: int, tokens: list[int]) -> None:
    writes, counts = stream(asked(), count, each, chat=True)

    assert counts == tokens
    read = Body(STREAM_HEAD + b"".join(writes))
    assert read.complete
    texts = [event["choices"][0]["delta"]["content"] for event in events(read.body)]
    assert texts == [" word" * number for number in tokens]
    assert events(read.body)[-1]["choices"][0]["finish_reason"] == "length"
    assert read.body.endswith(b"data: [DONE]\n\n")


def test_usage_comes_last_and_only_if_it_is_asked_for() -> None:
    request = asked(prompt="one two three", stream_options={"include_usage": True})

    with_usage, _ = stream(request, 2, 1, chat=False)
    without, _ = stream(asked(prompt="one two three"), 2, 1, chat=False)

    assert events(Body(STREAM_HEAD + b"".join(with_usage)).body)[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
    }
    assert b"usage" not in b"".join(without)


def test_the_chunk_without_tokens_names_the_role() -> None:
    (event,) = events(chunk("m", chat=True))

    assert event["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (event["object"], event["model"]) == ("chat.completion.chunk", "m")


@pytest.mark.parametrize("chat", [False, True])
def test_a_whole_reply_has_its_text_and_usage(chat: bool) -> None:
    request = asked(messages=[{"role": "user", "content": "one two"}])

    read = Body(whole(request, 3, chat=chat))
    document = json.loads(read.body)

    (choice,) = document["choices"]
    text = choice["message"]["content"] if chat else choice["text"]
    assert text == " word word word"
    assert document["object"] == ("chat.completion" if chat else "text_completion")
    assert document["usage"]["total_tokens"] == 5


def test_a_response_bears_its_status_and_length() -> None:
    assert http(404, "text/plain", b"no") == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"
    )


def test_none_is_asked_for_less_than_one_token() -> None:
    with pytest.raises(msgspec.ValidationError, match=">= 1"):
        asked(max_tokens=0)
