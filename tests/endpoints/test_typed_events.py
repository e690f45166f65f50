"""Protocols whose events name their type: OpenAI's Responses and Anthropic's Messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno import endpoints
from llmdyno.wire.reply import Reply, count_tokens


def read(name: str, *events: dict[str, Any]) -> Reply:
    """Read a stream whose events came 1 ns apart, from 100 ns on."""
    pieces = [
        (stamp, b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()))
        for stamp, event in enumerate(events, 100)
    ]
    return endpoints.load(name).read(pieces)


USAGE = {"output_tokens": 2}


def ended(status: str, **facts: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, **facts}}


def test_a_response_is_all_that_the_model_says() -> None:
    reply = read(
        "openai-responses",
        {"type": "response.created", "response": {"status": "in_progress", "usage": None}},
        {"type": "response.reasoning_text.delta", "delta": "Hm"},
        {"type": "response.output_text.delta", "delta": "Yes"},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
        {"type": "response.custom_tool_call_input.delta", "delta": "x"},
        {"type": "response.audio.delta", "delta": "UklGRg=="},
        {"type": "response.audio.transcript.delta", "delta": "Yes"},
        {"type": "response.output_text.done", "text": "Yes"},
        ended("completed", usage={"input_tokens": 5, "output_tokens": 7}, error=None),
    )

    assert reply.texts == ["Hm", "Yes", "{}", "x", "Yes"]
    assert reply.stamps_ns == [101, 102, 103, 104, 106]
    assert (reply.input_tokens, reply.finish, reply.error) == (5, "completed", "")
    assert sum(count_tokens(reply)[0]) == 7


def test_a_response_that_is_cut_off_says_by_what() -> None:
    reply = read(
        "openai-responses",
        {"type": "response.output_text.delta", "delta": "Yes"},
        ended("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    )

    assert (reply.finish, reply.ended, reply.error) == ("length", True, "")


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("openai-responses", ended("cancelled")),
        ("anthropic-messages", {"type": "message_delta", "delta": {"stop_reason": "error"}}),
    ],
)
def test_an_answer_that_the_server_broke_off_has_failed(name: str, event: dict[str, Any]) -> None:
    assert read(name, event).error == "stream-error"


def test_text_that_begins_a_block_is_text_and_an_empty_usage_counts_nothing() -> None:
    reply = read(
        "anthropic-messages",
        {"type": "content_block_start", "content_block": {"type": "text", "text": "Yes"}},
        {"type": "content_block_delta", "delta": {"text": " sir"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 0}},
    )

    assert (reply.texts, reply.output_tokens) == (["Yes", " sir"], 2)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "overloaded", "message": "no room", "param": None},
        {"type": "error", "error": {"type": "overloaded", "message": "no room"}},
        ended("failed", error={"code": "server_error", "message": "no room"}),
    ],
)
def test_a_response_that_fails_has_the_servers_words(event: dict[str, Any]) -> None:
    reply = read("openai-responses", {"type": "response.output_text.delta", "delta": "Y"}, event)

    assert (reply.error, reply.detail) == ("stream-error", "no room")


def test_a_message_is_thought_text_and_tools_with_its_last_usage() -> None:
    usage = {"input_tokens": 4, "cache_read_input_tokens": 60, "output_tokens": 1}
    reply = read(
        "anthropic-messages",
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {
            "type": "content_block_delta",
            "delta": {"type": "thinking_delta", "thinking": "Hm"},
        },
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Yes"}},
        {
            "type": "content_block_delta",
            "delta": {"type": "input_json_delta", "partial_json": "{}"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    )

    assert reply.texts == ["Hm", "Yes", "{}"]
    assert reply.stamps_ns == [103, 105, 106]
    assert (reply.input_tokens, reply.output_tokens) == (64, 9)
    assert (reply.finish, reply.ended, reply.error) == ("length", True, "")


def test_a_message_cut_before_its_end_has_no_usage() -> None:
    reply = read(
        "anthropic-messages",
        {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Yes"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": " no"}},
    )

    assert (reply.ended, reply.output_tokens) == (False, -1)
    assert count_tokens(reply) == ([1, 1], "chunks")


@pytest.mark.parametrize(
    ("name", "file", "asked"),
    [
        ("openai-responses", "vllm_responses.txt", 22),
        ("anthropic-messages", "vllm_messages.txt", 21),
    ],
)
def test_what_vllm_sends_is_read_whole(name: str, file: str, asked: int) -> None:
    """Streams of vLLM 0.26 on one H200: six tokens were asked for."""
    whole = (Path(__file__).parent / "samples" / file).read_bytes()

    reply = endpoints.load(name).read([(7, whole)])

    assert (reply.error, reply.ended, reply.finish) == ("", True, "length")
    assert (reply.input_tokens, reply.output_tokens) == (asked, 6)
    tokens, source = count_tokens(reply)  # an event may hold several tokens
    assert (sum(tokens), source) == (6, "usage")


@pytest.mark.parametrize(
    ("endpoint", "event"),
    [
        ("openai-responses", '{"type":"response.created","response":{"model":%s}}'),
        ("anthropic-messages", '{"type":"message_start","message":{"model":%s}}'),
        ("openai-completions", '{"model":%s,"choices":[{"index":0,"text":"a"}]}'),
    ],
)
def test_the_model_that_answers_is_named(endpoint: str, event: str) -> None:
    def named(model: str) -> str:
        body = f"data: {event % model}\n\n".encode()
        return endpoints.load(endpoint).read([(1, body)]).model

    assert named('"m-large"') == "m-large"
    assert [named(odd) for odd in ("null", "7", "[]")] == ["", "", ""]
