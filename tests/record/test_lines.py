"""A line of the trace: counts and their sources, settings, hashes; never a text, never a key."""

from typing import Any

import msgspec
import pytest

from llmdyno.record.entries import Passed, Settings
from llmdyno.record.lines import Lines
from scripted_server import DONE, STOP, chunk

SECRET = "sk-very-secret-key"
SAID = "tell me the word swordfish"
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": SAID}]
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":7}}\n\n'
STREAM = [chunk("no"), chunk("way"), STOP]


def settings(**more: Any) -> Settings:
    return Settings(**{"out": "", "started_ns": 0, "key": b"k", "block_characters": 64, **more})


def passed(body: object, *parts: bytes, **more: Any) -> Passed:
    """Return a request that was whole at 1 s, with a part of the answer each 10 ms."""
    given: dict[str, Any] = {
        "path": "/v1/chat/completions",
        "headers": {"authorization": f"Bearer {SECRET}"},
        "body": msgspec.json.encode(body),
        "asked_ns": 1_000_000_000,
        "end_ns": 1_500_000_000,
        "status": 200,
        "answer_headers": {"content-type": "text/event-stream"},
        "pieces": [(1_010_000_000 + 10_000_000 * n, part) for n, part in enumerate(parts)],
    }
    return Passed(**{**given, **more})


def line(one: Passed, count: Any = None, **more: Any) -> dict[str, Any]:
    return Lines(settings(**more), count).line(one)


def test_usage_is_believed_and_nothing_of_the_text_is_kept() -> None:
    asked = {"model": "m", "messages": MESSAGES, "temperature": 0.5, "stop": ["swordfish"]}

    found = line(passed(asked, *STREAM, USAGE, DONE))

    assert (found["input_tokens"], found["output_tokens"]) == (31, 7)
    assert (found["input_source"], found["output_source"]) == ("usage", "usage")
    assert (found["outcome"], found["finish"], found["status"]) == ("completed", "stop", 200)
    assert (found["arrival_s"], found["ttft_ms"], found["e2e_ms"]) == (1.0, 10.0, 500.0)
    assert found["sampling"] == {"temperature": 0.5, "stop": 1}
    written = msgspec.json.encode(found).decode()
    for text in (SECRET, "swordfish", "brief", "way"):
        assert text not in written


def test_without_usage_chunks_are_counted_or_a_tokenizer_counts() -> None:
    asked = {"messages": MESSAGES}

    found = line(passed(asked, *STREAM, DONE))
    counted = line(passed(asked, *STREAM, DONE), lambda text, special: len(text) + special)

    assert (found["output_tokens"], found["output_source"]) == (2, "chunks")
    assert (found["input_tokens"], found["input_source"]) == (12, "characters")
    assert (counted["output_tokens"], counted["output_source"]) == (5, "tokenizer")
    prompt = f"system\nbe brief\nuser\n{SAID}"
    assert (counted["input_tokens"], counted["input_source"]) == (len(prompt) + 1, "tokenizer")


def test_an_answer_that_came_whole_is_read() -> None:
    document = {
        "choices": [
            {"message": {"role": "assistant", "content": "no way"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9.0, "completion_tokens": 4},
    }
    body = msgspec.json.encode(document)
    kind = {"content-type": "application/json"}

    found = line(passed({"messages": MESSAGES}, body, answer_headers=kind))

    assert (found["input_tokens"], found["output_tokens"], found["finish"]) == (9, 4, "stop")
    assert found["ttft_ms"] is None


@pytest.mark.parametrize(
    ("more", "outcome", "error"),
    [
        ({"status": 429}, "failed", "http-429"),
        ({"status": 0, "error": "no-response"}, "failed", "no-response"),
        ({"error": "cut"}, "cut", ""),
        ({"error": "truncated"}, "failed", "truncated"),
    ],
)
def test_what_went_wrong_is_named(more: dict[str, Any], outcome: str, error: str) -> None:
    found = line(passed({"messages": MESSAGES}, chunk("a"), **more))

    assert (found["outcome"], found["error"]) == (outcome, error)


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'{"messages": 5, "prompt": null}'])
def test_a_body_that_is_no_request_still_has_its_line(body: bytes) -> None:
    found = line(passed(msgspec.Raw(body), b"what"))

    assert found["hash_ids"] == ()
    assert found["input_tokens"] == 0


def test_kept_texts_have_no_key_in_them() -> None:
    asked = {"messages": [{"role": "user", "content": f"my key is {SECRET}"}]}

    found = line(passed(asked, chunk("hello"), STOP, DONE), keep_text=True)

    assert found["body"]["messages"][0]["content"] == "my key is [API key]"
    assert found["answer"] == "hello"


def test_adapters_are_told_from_models() -> None:
    adapters = {"sql": "base"}

    by_name = line(passed({"model": "sql", "messages": []}), adapters=adapters)
    by_field = line(passed({"model": "base", "lora_path": "a/b", "messages": []}))

    assert (by_name["model"], by_name["lora"]) == ("base", "sql")
    assert (by_field["model"], by_field["lora"]) == ("base", "a/b")


def test_a_call_of_a_tool_goes_on_in_the_next_turn() -> None:
    event = (
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":'
        b'{"name":"look","arguments":"{}"}}]},"finish_reason":null}]}\n\n'
    )
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "nothing"},
    ]
    lines = Lines(settings())
    tools = [{"type": "function", "function": {"name": "look"}}]

    first = lines.line(passed({"messages": MESSAGES, "tools": tools}, event, STOP, DONE))
    other = lines.line(passed({"messages": MESSAGES, "tools": tools}, chunk("no"), STOP, DONE))
    second = lines.line(passed({"messages": turns, "tools": tools}, chunk("ok"), STOP, DONE))

    assert (first["session"], first["turn"]) == (0, 0)
    assert (other["session"], other["turn"]) == (1, 0)
    assert (second["session"], second["turn"]) == (0, 1)
    assert second["hash_ids"][: len(first["hash_ids"])] == first["hash_ids"]
    assert second["sampling"]["tools"] == 1


def test_images_and_token_ids_have_blocks_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 100_000}}
    parts = [{"type": "text", "text": "what is this"}, image]

    seen = line(passed({"messages": [{"role": "user", "content": parts}]}))
    ids = line(passed({"prompt": list(range(40))}, path="/v1/completions"))

    assert len(seen["hash_ids"]) == 2
    assert len(ids["hash_ids"]) == 3  # 16 token ids a block


def test_an_unknown_compression_is_said_to_be_one() -> None:
    kind = {"content-type": "text/event-stream", "content-encoding": "br"}

    found = line(passed({"messages": MESSAGES}, b"\x8b\x01", answer_headers=kind))

    assert (found["outcome"], found["output_source"]) == ("completed", "unreadable")
