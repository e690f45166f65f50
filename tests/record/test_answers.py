"""Answers of the protocols whose events name their type: streamed or whole, and as they go on."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmdyno.record.lines import Lines
from record.test_lines import SECRET, passed, settings

SAMPLES = Path(__file__).parents[1] / "endpoints" / "samples"
STREAM = {"content-type": "text/event-stream"}
DOCUMENT = {"content-type": "application/json"}
TOOL = {"name": "look", "description": "looks it up", "input_schema": {}}
CALLED = {"city": "Ulm", "days": 2}


def messages(asked: list[dict[str, Any]], *answer: bytes, **more: Any) -> Any:
    body = {"model": "m", "max_tokens": 9, "messages": asked, **more}
    return passed(body, *answer, path="/v1/messages", headers={"x-api-key": SECRET})


def responses(items: object, *answer: bytes, kind: Any = None, **more: Any) -> Any:
    body = {"model": "m", "input": items, **more}
    return passed(body, *answer, path="/v1/responses", answer_headers=kind or STREAM)


def sse(*parts: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (part["type"].encode(), msgspec.json.encode(part))
        for part in parts
    )


def block(number: int, begins: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """Return the events of a block of a message."""
    return sse(
        {"type": "content_block_start", "index": number, "content_block": begins},
        *({"type": "content_block_delta", "index": number, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": number},
    )


def ended(output: list[dict[str, Any]], name: str = "resp_1", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 12, "output_tokens": 3}
    return {"id": name, "status": "completed", "output": output, "usage": usage, **more}


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("path", "sample", "tokens", "finish"),
    [
        ("/v1/messages", "vllm_messages.txt", (21, 6), "length"),
        ("/v1/responses", "vllm_responses.txt", (22, 6), "length"),
    ],
)
def test_what_vllm_streamed_is_read(
    path: str, sample: str, tokens: tuple[int, int], finish: str
) -> None:
    given = {"model": "base", "messages": [], "input": "swordfish", "instructions": "be brief"}

    found = Lines(settings()).line(passed(given, (SAMPLES / sample).read_bytes(), path=path))

    assert (found["path"], found["model"]) == (path, "base")
    assert (found["input_tokens"], found["output_tokens"]) == tokens
    assert (found["input_source"], found["output_source"]) == ("usage", "usage")
    assert (found["outcome"], found["finish"], found["ttft_ms"]) == ("completed", finish, 10.0)
    assert "swordfish" not in msgspec.json.encode(found).decode()


def test_a_message_that_came_whole_is_read() -> None:
    document = {
        "content": [{"type": "text", "text": "no way"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 90, "output_tokens": 4},
    }
    one = messages([{"role": "user", "content": "hi"}], msgspec.json.encode(document))
    one.answer_headers = DOCUMENT

    found = Lines(settings(keep_text=True)).line(one)

    assert (found["input_tokens"], found["output_tokens"]) == (99, 4)
    assert (found["output_source"], found["finish"]) == ("usage", "end_turn")
    assert (found["answer"], found["ttft_ms"]) == ("no way", None)


def test_a_response_that_came_whole_is_read_with_or_without_usage() -> None:
    told = msgspec.json.encode(ended([message("no way")]))
    untold = msgspec.json.encode(ended([message("no way")], usage=None))

    counted = Lines(settings()).line(responses("hi", told, kind=DOCUMENT))
    guessed = Lines(settings()).line(responses("hi", untold, kind=DOCUMENT))

    assert (counted["input_tokens"], counted["output_tokens"]) == (12, 3)
    assert (guessed["output_tokens"], guessed["output_source"]) == (2, "characters")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'{"error": {"message": "no"}}'])
def test_an_answer_that_is_none_still_has_its_line(path: str, body: bytes) -> None:
    found = Lines(settings()).line(passed({"input": 5}, body, path=path, answer_headers=DOCUMENT))

    assert (found["output_tokens"], found["hash_ids"]) == (0, ())
    assert found["error"] == ("stream-error" if b"error" in body else "")


def test_a_message_with_tools_goes_on_with_its_own_answer() -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": "the weather?"}]}]
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    call = block(
        1,
        {"type": "tool_use", "id": "t", "name": "look", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"city": "Ulm",'},
        {"type": "input_json_delta", "partial_json": ' "days": 2}'},
    )
    thought = block(0, {"type": "thinking", "thinking": ""}, {"thinking": "Hm"})
    other = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "no"})
    content = [
        {"type": "thinking", "thinking": "Hm", "signature": "x"},
        {"type": "tool_use", "id": "t", "name": "look", "input": CALLED},
    ]
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"text": "rain"}]}
    turns: list[dict[str, Any]] = [
        *asked,
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    given = {"system": system, "tools": [TOOL], "metadata": {"user_id": 5}}
    lines = Lines(settings())

    first = lines.line(messages(asked, thought, call, **given))
    second = lines.line(messages(asked, other, system=system, tools=[TOOL]))
    third = lines.line(messages(turns, other, system=system, tools=[TOOL]))

    assert [first["session"], second["session"], third["session"]] == [0, 1, 0]
    assert third["turn"] == 1
    assert third["hash_ids"][: len(first["hash_ids"])] == first["hash_ids"]
    assert len(first["part_characters"]) == 3  # tools, system, question
    assert first["sampling"] == {"max_tokens": 9, "tools": 1}


QUESTION = {"role": "user", "content": "the weather?"}
AGAIN = {"role": "user", "content": "and then?"}


def thoughtful_message(text: str, *, whole: bool) -> Any:
    said = [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": text}]
    if whole:
        found = messages([QUESTION], msgspec.json.encode({"content": said}))
        return msgspec.structs.replace(found, answer_headers=DOCUMENT)
    thought = {"type": "thinking_delta", "thinking": "Hm"}
    return messages(
        [QUESTION],
        block(0, {"type": "thinking", "thinking": ""}, thought),
        block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": text}),
    )


def thoughtful_response(text: str) -> Any:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    end = {"type": "response.completed", "response": ended([thought, message(text)])}
    return responses([QUESTION], sse(end))


def thoughtful_chat(text: str) -> Any:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm", "content": None},
        {"content": text[:2]},
        {"content": text[2:]},
    ]
    parts = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    body = {"model": "m", "messages": [QUESTION], "stream": True}
    return passed(body, *(b"data: %s\n\n" % msgspec.json.encode(part) for part in parts))


@pytest.mark.parametrize(
    ("begun", "other", "again"),
    [
        (thoughtful_message("rain", whole=False), thoughtful_message("sun", whole=False), messages),
        (thoughtful_message("rain", whole=True), thoughtful_message("sun", whole=True), messages),
        (thoughtful_response("rain"), thoughtful_response("sun"), responses),
        (
            *(thoughtful_chat("rain"), thoughtful_chat("sun")),
            lambda turns: passed({"model": "m", "messages": turns}),
        ),
    ],
)
def test_a_turn_without_its_thoughts_goes_on_with_its_own_answer(
    begun: Any, other: Any, again: Any
) -> None:
    """Clients drop the thoughts of a turn; the question alone would join what began alike."""
    lines = Lines(settings())

    first, second = lines.line(begun), lines.line(other)
    third = lines.line(again([QUESTION, {"role": "assistant", "content": "rain"}, AGAIN]))

    assert [first["session"], second["session"]] == [0, 1]
    assert (third["session"], third["turn"]) == (0, 1)


def test_a_response_is_gone_on_with_by_its_items() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    output: list[dict[str, Any]] = [thought, {**call, "id": "fc_1", "status": "completed"}]
    came = {"type": "function_call_output", "call_id": "c", "output": "rain"}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "the weather?"}]}
    lines = Lines(settings())

    first = lines.line(
        responses([asked], sse({"type": "response.completed", "response": ended(output)}))
    )
    lines.line(responses([asked], sse({"type": "response.completed", "response": ended([])})))
    second = lines.line(responses([asked, thought, call, came], b""))

    assert (second["session"], second["turn"]) == (first["session"], 1)
    assert second["hash_ids"][: len(first["hash_ids"])] == first["hash_ids"]


def test_a_response_is_gone_on_with_by_its_name() -> None:
    lines = Lines(settings())
    told = [sse({"type": "response.completed", "response": ended([message("rain")], "resp_7")})]

    first = lines.line(responses("the weather?", *told, instructions="be brief"))
    second = lines.line(
        responses("and then?", previous_response_id="resp_7", instructions="be brief")
    )
    whole = [
        {"role": "user", "content": "the weather?"},
        {"role": "assistant", "content": "rain"},
        {"role": "user", "content": "and then?"},
    ]
    same = lines.line(responses(whole, instructions="be brief"))
    unknown = lines.line(responses("and then?", previous_response_id="resp_8"))

    assert (second["session"], second["turn"]) == (first["session"], 1)
    assert second["hash_ids"] == same["hash_ids"]
    assert unknown["session"] != first["session"]
    assert len(unknown["hash_ids"]) == 1


def test_settings_within_fields_are_kept() -> None:
    more = {
        "max_output_tokens": 7,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "schema": {"secret": 1}}},
    }

    found = Lines(settings()).line(responses("hi", **more))

    assert found["sampling"] == {
        "max_output_tokens": 7,
        "reasoning_effort": "low",
        "text_format": "json_schema",
    }


# The protocols' own words, in any place: what comes may be anything, and the writer must not die.
words = st.sampled_from(
    [
        *(
            "type",
            "role",
            "content",
            "text",
            "thinking",
            "input",
            "output",
            "response",
            "id",
            "delta",
        ),
        *("name", "arguments", "usage", "output_tokens", "input_tokens", "tool_use", "tool_result"),
        *("function_call", "function_call_output", "reasoning", "error", "status", "conversation"),
        *("previous_response_id", "instructions", "system", "tools", "metadata", "user_id"),
        *("message_start", "message_delta", "content_block_start", "content_block_stop", "message"),
        *("content_block_delta", "content_block", "response.completed", "stop_reason", "delta"),
        "messages",
    ]
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**60), st.floats(), words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=5)),
    max_leaves=20,
)


@hypothesis_settings(deadline=None)
@given(
    st.sampled_from(["/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1/completions"]),
    st.lists(st.tuples(anything, st.lists(anything, min_size=1, max_size=4)), max_size=3),
    st.booleans(),
)
def test_whatever_passes_has_its_line(path: str, asked: list[Any], streamed: bool) -> None:
    lines = Lines(settings(keep_text=True))
    for body, parts in asked:
        whole = [b"data: %s\n\n" % msgspec.json.encode(part) for part in parts]
        answer = whole if streamed else [msgspec.json.encode(parts[0])]
        kind = STREAM if streamed else DOCUMENT

        found = lines.line(passed(body, *answer, path=path, answer_headers=kind))

        assert found["output_tokens"] >= 0
        assert msgspec.json.encode(found)
