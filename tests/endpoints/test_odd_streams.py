"""Streams of OpenAI's protocol as servers send them that hold on to it loosely.

Each was seen to be misread: tokens lost, or a whole response called failed.
"""

import json
from typing import Any

import pytest

from llmdyno.endpoints.openai_chat import ENDPOINT
from llmdyno.wire.reply import Reply, count_tokens, oddities, unstreamed

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


@pytest.mark.parametrize(
    "finish",
    ["error", "abort", "ERROR", "internal_error", "MALFORMED_FUNCTION_CALL", "time_out"],
)
def test_an_answer_that_the_server_broke_off_has_failed(finish: str) -> None:
    reply = ENDPOINT.read([(1, event(text("a")) + event(text("", finish)) + DONE)])

    assert reply.error == "stream-error"
    assert finish in reply.detail


def test_a_finish_reason_that_is_an_object_is_read_as_well() -> None:
    aborted = {"type": "abort", "message": "KV cache pool is full"}  # SGLang's own form
    reply = ENDPOINT.read([(1, event(text("a")) + event({"finish_reason": aborted}) + DONE)])

    assert (reply.error, reply.finish) == ("stream-error", "abort")
    assert reply.detail == "KV cache pool is full"


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter", "SAFETY"])
def test_what_the_model_ended_is_no_failure(finish: str) -> None:
    reply = ENDPOINT.read([(1, event(text("a")) + event(text("", finish)) + DONE)])

    assert (reply.error, reply.finish, reply.ended) == ("", finish, True)


@pytest.mark.parametrize(
    "mark", [b"[done]", b"DONE", b"[END]", b"<eos>", b'"[DONE]"', b" [DONE] ", b"[DONE]"]
)
def test_an_end_mark_is_one_however_it_is_written(mark: bytes) -> None:
    reply = read(event(text("a")), event(text("b")), data(mark))

    assert (reply.error, reply.ended, reply.texts) == ("", True, ["a", "b"])


def test_plain_words_after_the_end_cost_nothing_and_before_it_they_do() -> None:
    closing = b"event: close\ndata: stream closed\n\n"

    assert read(event(text("a")), STOP, closing).error == ""
    assert read(event(text("a")), closing).error == "bad-json"


def test_what_is_no_json_for_other_reasons_is_still_named() -> None:
    assert ENDPOINT.read([(1, b'data: {"choices": NaNsense}\n\n')]).error == "bad-json"


def data(document: Any) -> bytes:
    """Return an event of that JSON, or of those bytes."""
    return b"data: %s\n\n" % (
        document if isinstance(document, bytes) else json.dumps(document).encode()
    )


def read(*events: bytes) -> Reply:
    """Read events that came one after the other, at 1 ns, 2 ns and so on."""
    return ENDPOINT.read(list(enumerate(events, 1)))


def usage(tokens: Any, **more: Any) -> bytes:
    """Return the event that has the usage."""
    return event(usage={"prompt_tokens": 9, "completion_tokens": tokens, **more})


# Data that is neither a part of an answer nor an error.
SIGNS_OF_LIFE: list[Any] = [
    *("", None, 5, 2.5, [], [1, 2], True, {}, "ping", "processing", {"type": "ping"}, {"id": "x"}),
    *({"choices": None}, {"choices": []}, {"choices": {}}, {"choices": [None]}, {"choices": "x"}),
    *({"choices": [{}]}, {"choices": [{"delta": None}]}, {"choices": [{"delta": [1]}]}),
    *({"base_resp": {"status_code": 0, "status_msg": ""}}, {"code": 200}, {"success": True}),
    *({"status": 200, "error_code": 0}, {"x_groq": {"id": "x", "error": None}}),
    *({"message": ""}, {"error": None}, {"error": {}}, {"error": {"code": 0, "message": ""}}),
    *({"detail": []}, {"status": "processing", "message": "3 before you"}, {"message": {"a": 1}}),
    *(b"ping", b"keep-alive", b": a comment that went astray", b"  ", b"[ping]"),
]


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
def test_a_sign_of_life_is_no_token_and_no_fault(sign: Any) -> None:
    reply = read(event(text("a")), data(sign), event(text("b")), STOP, usage(2), DONE)

    assert (reply.error, reply.detail) == ("", "")
    assert (reply.stamps_ns, reply.texts) == ([1, 3], ["a", "b"])
    assert count_tokens(reply) == ([1, 1], "usage")


# Errors, of which all but the named say "out of memory".
ERRORS: list[Any] = [
    *({"error": "out of memory"}, {"error": {"message": "out of memory", "code": 500}}),
    *({"message": "out of memory"}, {"detail": "out of memory"}, {"errors": ["out of memory"]}),
    {"detail": [{"loc": ["body"], "msg": "out of memory", "type": "missing"}]},
    {"object": "error", "message": "out of memory", "code": 50_000},
    {"type": "error", "error": {"type": "overloaded", "message": "out of memory"}},
    {"error": True, "message": "out of memory"},
    {"error": None, "detail": {"message": "out of memory"}},
    [{"error": {"message": "out of memory"}}],
    {"choices": [], "message": "out of memory"},
    {"choices": None, "usage": None, "detail": "out of memory"},
    {"choices": [{"delta": {"content": ""}, "error": {"message": "out of memory"}}]},
    {"id": "x", "choices": [text("b")], "error": {"message": "out of memory"}},
    *("Error: out of memory", b"Internal Server Error: out of memory"),
    {"type": "about:blank", "title": "out of memory", "status": 502},  # RFC 9457
    {"text": "out of memory", "error_code": 50_004},  # FastChat
    {"choices": None, "base_resp": {"status_code": 1039, "status_msg": "out of memory"}},
    {"success": False, "reason": "out of memory"},
    {"modelStreamErrorException": {"message": "out of memory"}},  # Bedrock
    {"code": "InternalError.Algo", "description": "out of memory"},
    {"id": "x", "choices": [{"delta": {}}], "x_groq": {"error": "out of memory"}},
]
AFTER = {"nothing": b"", "the end mark": DONE, "a finish": STOP, "both": STOP + usage(1) + DONE}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_a_failure_wherever_it_stands(error: Any, after: str) -> None:
    for before in (b"", event(text("a")) * 20, event(text("a")) + STOP):
        reply = read(before, data(error), AFTER[after])

        assert reply.error == "stream-error"
        assert "out of memory" in reply.detail


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b'data: {"message": "out of memory"}\n', "out of memory"),
        (b"data: out of memory\n", "out of memory"),
        (b"data: out of\ndata: memory\n", "out of\nmemory"),
        (data({"choices": [text("b")]}), "choices"),
        (b"data: [DONE]\n", "[DONE]"),
        (b"", "an event named error"),
    ],
)
def test_an_event_named_error_is_a_failure_whatever_it_says(lines: bytes, words: str) -> None:
    for body in (lines, lines.replace(b"\n", b"\r\n")):
        end = b"\r\n" if b"\r" in body else b"\n"
        reply = read(event(text("a")), b"event: error" + end + body + end, STOP + DONE)

        assert reply.error == "stream-error"
        assert words in reply.detail


@pytest.mark.parametrize("count", [8.0, 8])
def test_a_whole_number_is_a_count_however_it_is_written(count: float) -> None:
    reply = read(*[event(text("w "))] * 8, STOP, usage(count), DONE)

    assert count_tokens(reply) == ([1] * 8, "usage")
    assert oddities(reply) == ()


ODD_USAGES: list[Any] = [
    *({"completion_tokens": odd} for odd in ("8", None, -5, True, 8.5, [8], {"n": 8}, 0)),
    *({"completion_tokens": odd} for odd in (2**53 + 1, 10**25, 1e300)),
    *({}, {"completion": 8}, {"usage": {"completion_tokens": 8}}),
    *("8", 8, True, [], [{"completion_tokens": 8}]),
]
UNWRITABLE = [b'{"choices":[],"usage":{"completion_tokens":%s}}' % n for n in (b"NaN", b"1e999")]


@pytest.mark.parametrize("odd", [*({"choices": [], "usage": o} for o in ODD_USAGES), *UNWRITABLE])
def test_an_unusable_usage_is_named_and_chunks_are_counted(odd: Any) -> None:
    reply = read(*[event(text("w "))] * 8, STOP, data(odd), DONE)

    assert (reply.error, reply.ended) == ("", True)
    assert count_tokens(reply) == ([1] * 8, "chunks")
    assert oddities(reply) == ("unusable-usage",)


def test_an_unusable_usage_beside_a_good_one_costs_nothing() -> None:
    reply = read(event(text("a"), usage="?"), event(text("b")), usage(2), usage(None), DONE)

    assert count_tokens(reply) == ([1, 1], "usage")
    assert oddities(reply) == ()


@pytest.mark.parametrize(
    ("tokens", "more"),
    [
        (28, {"completion_tokens_details": {"reasoning_tokens": 20}}),
        (28, {"reasoning_tokens": 20}),  # SGLang
        (8, {"completion_tokens_details": {"reasoning_tokens": 20}}),  # apart from the others
        (8, {"completion_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 20}),
    ],
)
def test_reasoning_that_was_not_streamed_is_counted_apart(
    tokens: int, more: dict[str, Any]
) -> None:
    reply = read(*[event(text("word "))] * 8, STOP, usage(tokens, **more), DONE)

    assert count_tokens(reply) == ([1] * 8, "usage")
    assert unstreamed(reply, 8) == (20 if tokens == 28 or "total_tokens" not in more else 3)


@pytest.mark.parametrize(("total", "hidden"), [(237, 200), (37, 0), (0, 0), (None, 0)])
def test_what_is_only_in_the_total_was_not_streamed(total: int | None, hidden: int) -> None:
    reply = read(*[event(text("word "))] * 28, STOP, usage(28, total_tokens=total), DONE)

    assert count_tokens(reply) == ([1] * 28, "usage")
    assert unstreamed(reply, 28) == hidden


def test_a_prompt_that_the_cache_had_is_no_hidden_output() -> None:
    cached = {"prompt_tokens_details": {"cached_tokens": 200}}
    reply = read(*[event(text("word "))] * 28, STOP, usage(28, total_tokens=237, **cached), DONE)

    assert unstreamed(reply, 28) == 0


USAGE = {"prompt_tokens": 9, "completion_tokens": 21}
ODD_PLACES: dict[str, bytes] = {
    "in the choice": event({"delta": {}, "finish_reason": "stop", "usage": USAGE}),
    "in a part of Groq's": STOP.replace(b"}]}", b'}],"x_groq":{"usage":%s}}')
    % json.dumps(USAGE).encode(),
    "before an empty one": event(text("", "stop"), usage=USAGE) + usage(0),
}


@pytest.mark.parametrize("name", ODD_PLACES)
def test_a_usage_is_found_where_servers_put_it(name: str) -> None:
    reply = read(*[event(text("word "))] * 20, ODD_PLACES[name], DONE)

    assert (reply.error, reply.input_tokens >= 0, reply.output_tokens) == ("", True, 21)
    assert sum(count_tokens(reply)[0]) == 21


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking", "reasoning_text"])
def test_reasoning_that_the_usage_leaves_out_keeps_its_time(name: str) -> None:
    thought = [delta(**{name: "hm"})] * 20
    reply = read(*thought, *[event(text("word "))] * 8, STOP, usage(8), DONE)

    assert reply.stamps_ns == list(range(1, 29))
    assert count_tokens(reply) == ([1] * 28, "chunks")
    assert oddities(reply) == ("usage-below-stream",)


def test_all_choices_are_counted_and_the_answer_ends_with_the_last_of_them() -> None:
    both = [event(text("a"), text("b", index=1))] * 4
    first, second = event(text("", "stop")), event(text("", "stop", index=1))

    whole = read(*both, first, second, usage(8), DONE)
    assert (whole.ended, count_tokens(whole)) == (True, ([1] * 8, "usage"))
    assert read(*both, first, second).ended
    assert not read(*both, first).ended
    assert not read(event(text("a")), first, *[event(text("b", index=1))] * 20).ended
    assert count_tokens(read(*both, first, second, usage(4), DONE)) == ([1] * 8, "chunks")


def test_chunks_that_are_numbered_like_choices_are_one_answer() -> None:
    chunks = [event(text("word ", index=number)) for number in range(20)]

    reply = read(*chunks, event(text("", "stop")))

    assert reply.ended
    assert not reply.has_choices


ODD_TEXTS: dict[str, list[bytes]] = {
    "text in chat": [event({"text": "a", "delta": {}})],
    "a delta that is text": [event({"delta": "a"})],
    "content that is one part": [delta(content={"type": "text", "text": "a"})],
    "thinking": [delta(thinking="a")],
    "the call of a function": [delta(function_call={"name": "a", "arguments": ""})],
    "the same reasoning under two names": [delta(reasoning="a", reasoning_content="a")],
    "reasoning in details": [delta(content="", reasoning_details=[{"text": "a", "index": 0}])],
    "blocks of thinking": [delta(thinking_blocks=[{"type": "thinking", "thinking": "a"}])],
    "a summary of reasoning": [delta(content=[{"type": "reasoning", "summary": [{"text": "a"}]}])],
    "a transcript of speech": [delta(audio={"id": "x", "transcript": "a", "data": "UklGRg=="})],
    "reasoning and text at once": [delta(reasoning="", content="a")],
    "fields of another kind": [event({"index": "0", "delta": {"content": "a", "refusal": 5}})],
    "no index": [event({"index": None, "delta": {"content": "a"}})],
    "several lines of data": [event(text("a")).replace(b', "finish', b',\ndata: "finish')],
    "no blank after the colon": [event(text("a")).replace(b"data: ", b"data:")],
    "a control character": [event(text("a")).replace(b'"a"', b'"a\x01"')],
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_text_is_found_where_servers_put_it(name: str) -> None:
    reply = read(*ODD_TEXTS[name] * 12, STOP + DONE)

    assert (reply.error, reply.ended) == ("", True)
    assert reply.stamps_ns == list(range(1, 13))
    assert {text.rstrip("\x01") for text in reply.texts} == {"a"}


def test_one_large_event_is_one_chunk() -> None:
    whole = event(text("word " * 200_000)) + STOP + usage(200_000) + DONE
    pieces = [
        (stamp, whole[at : at + 9_000]) for stamp, at in enumerate(range(0, len(whole), 9_000))
    ]

    reply = ENDPOINT.read(pieces)

    assert (reply.error, reply.ended) == ("", True)
    assert count_tokens(reply) == ([200_000], "usage")


@pytest.mark.parametrize("ended", [True, False])
def test_a_body_that_ends_within_an_event_is_cut_unless_its_end_came(ended: bool) -> None:
    begun = [event(text("a"))] * 3 + [STOP] * ended
    for last in (event(text("b")), usage(3), DONE):
        for length in range(7, len(last.rstrip())):
            reply = read(*begun, last[:length])

            assert reply.texts == ["a"] * 3
            assert (reply.error, reply.ended) == ("" if ended else "truncated", ended)


def test_what_follows_the_end_mark_is_read_as_well() -> None:
    reply = read(event(text("a")), DONE, event(text("b")), usage(2))

    assert reply.ended
    assert (reply.stamps_ns, reply.texts, reply.output_tokens) == ([1, 3], ["a", "b"], 2)
