"""Streams of OpenAI's protocol as servers send them that hold on to it loosely.

Each was seen to be misread: tokens lost, or a whole response called failed.
"""

import json
from typing import Any

import pytest

from llmdyno.endpoints.openai_chat import ENDPOINT
from llmdyno.wire.reply import count_tokens

DONE = b"data: [DONE]\n\n"


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    """Return one event of the stream."""
    return b"data: %s\n\n" % json.dumps({"choices": choices, **fields}).encode()


def text(words: Any, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    """Return one choice of an event."""
    return {"index": index, "delta": {"content": words}, "finish_reason": finish}


def delta(**fields: Any) -> bytes:
    """Return an event with that delta."""
    return event({"index": 0, "delta": fields, "finish_reason": None})


STOP = event(text("", "stop"))
MISTRAL = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
CALL = [{"index": 0, "function": {"name": "weather", "arguments": '{"a"'}}]
HALF = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
NAN = b'data: {"choices":[{"index":0,"delta":{"content":"b"},"logprobs":[-Infinity,NaN]}]}\n\n'

# Name → events, of which each but the last is of one token.
STREAMS: dict[str, list[bytes]] = {
    "data without anything": [b"data: \n\n" + event(text("a")), b"data\n\n" + event(text("b"))],
    "an end mark with blanks": [event(text("a")), event(text("b")), b"data:  [DONE] \n\n"],
    "an error that is none": [event(text("a"), error=""), event(text("b"), error=None)],
    "the first choice is silent": [
        event({"index": 1, "delta": {}}, text("a")),
        event({"index": 1, "delta": {}}, text("b")),
    ],
    "content in parts": [delta(content=MISTRAL), delta(content=[{"type": "text", "text": "b"}])],
    "a refusal": [delta(refusal="I"), delta(refusal=" cannot")],
    "the call of a tool": [
        delta(content=None, tool_calls=CALL),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
    ],
    "half a character an event": [HALF % rb"\ud83d", HALF % rb"\ude00"],
    "log probabilities that are no JSON": [event(text("a")), NAN],
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_token_is_counted_where_it_came(name: str) -> None:
    *events, last = [*STREAMS[name], STOP + DONE]

    reply = ENDPOINT.read([*enumerate(events, 1), (9, last)])

    assert (reply.error, reply.detail) == ("", "")
    assert reply.ended
    assert reply.stamps_ns[:2] == [1, 2]
    assert count_tokens(reply)[0] == [1, 1]


@pytest.mark.parametrize("finish", ["error", "abort"])
def test_an_answer_that_the_server_broke_off_has_failed(finish: str) -> None:
    reply = ENDPOINT.read([(1, event(text("a")) + event(text("", finish)) + DONE)])

    assert reply.error == "stream-error"
    assert finish in reply.detail


def test_what_is_no_json_for_other_reasons_is_still_named() -> None:
    assert ENDPOINT.read([(1, b'data: {"choices": NaNsense}\n\n')]).error == "bad-json"
