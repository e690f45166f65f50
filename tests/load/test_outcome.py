"""What became of a request: its record, from the response alone."""

import json
from typing import Any

import pytest

from llmdyno import plugins, spec
from llmdyno.load.outcome import Request, record_of
from llmdyno.load.plan import Plan
from llmdyno.records.entries import Record
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import parse_url
from llmdyno.workload.sessions import Item
from scripted_server import DONE, STOP, chunk

ZERO_NS = 1_000
SENT_NS = 5_000
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4}}\n\n'
WHOLE = [(6_000, chunk("aaa")), (8_000, chunk("b")), (9_000, STOP + USAGE + DONE)]


def plan(endpoint: str = "openai-chat") -> Plan:
    return Plan(
        level=2,
        users=1,
        load=spec.Load(),
        target=parse_url("http://h", "sk-0123456789"),
        endpoint=plugins.load("endpoints", endpoint),
        model="m",
    )


def judged(
    item: Item | None = None, endpoint: str = "openai-chat", **response: Any
) -> tuple[Record, str]:
    given: dict[str, Any] = {
        "sent_ns": SENT_NS,
        "end_ns": 9_500,
        "first_byte_ns": 5_500,
        "status": 200,
        "pieces": WHOLE,
        "reads": 4,
    }
    asked = Request(
        number=3, user=1, item=item or Item(number=8, prompt="p", system_prompt="s"), due_ns=4_000
    )
    return record_of(Response(**given | response), asked, plan(endpoint), ZERO_NS)


def test_moments_count_from_the_run_or_from_sending() -> None:
    record, _ = judged()

    assert (record.due_ns, record.sent_ns) == (3_000, 4_000)
    assert (record.first_byte_ns, record.end_ns) == (500, 4_500)
    assert record.gaps_ns == (1_000, 2_000)
    assert (record.level, record.request, record.user, record.prompt) == (2, 3, 1, 8)


def test_the_servers_count_is_spread_over_the_text() -> None:
    record, _ = judged()

    assert (record.outcome, record.finish, record.source) == ("completed", "stop", "usage")
    assert (record.tokens, record.output_tokens, record.input_tokens) == ((3, 1), 4, 7)
    assert (record.texts, record.input_text) == ((), "")


def test_without_a_count_the_texts_are_kept_to_be_counted_again() -> None:
    record, _ = judged(pieces=[(6_000, chunk("aaa")), (8_000, chunk("b") + STOP + DONE)])

    assert (record.source, record.output_tokens) == ("chunks", 2)
    assert (record.texts, record.input_text) == (("aaa", "b"), "s\n\np")


def test_a_session_goes_on_from_an_answer_and_from_no_failure() -> None:
    turn = Item(number=8, prompt="p", session=4, turn=1)

    record, answer = judged(turn)
    assert (record.session, record.turn, answer) == (4, 1, "aaab")
    assert judged(turn, error="reset", pieces=WHOLE[:1])[1] == ""
    assert judged()[1] == ""  # it stands alone


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a refusal in the server's words": (
        {"status": 400, "pieces": [(6_000, b'{"error": {"message": "too long"}}')]},
        "http-400",
        "too long",
    ),
    "elsewhere": (
        {"status": 307, "headers": {"location": "https://h/v1"}, "pieces": []},
        "redirect",
        "https://h/v1",
    ),
    "no way there": (
        {"status": 0, "error": "refused", "detail": "nobody", "pieces": [], "first_byte_ns": -1},
        "refused",
        "nobody",
    ),
    "cut off before the end mark": (
        {"error": "truncated", "detail": "by peer", "pieces": WHOLE[:2]},
        "truncated",
        "by peer",
    ),
    "an end without a mark": (
        {"pieces": WHOLE[:2]},
        "truncated",
        "no finish reason and no end mark; the last words are: ",
    ),
    "a page": ({"pieces": [(6_000, b"<html>hello</html>")]}, "not-a-stream", ""),
    "a mark and nothing else": (
        {"pieces": [(6_000, DONE)]},
        "no-tokens",
        "the stream ended without a single token",
    ),
    "the key in the words": (
        {"status": 401, "pieces": [(6_000, b"sk-0123456789 is wrong")]},
        "http-401",
        "[API key] is wrong",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_class_and_its_words(name: str) -> None:
    response, error, words = FAULTS[name]

    record, _ = judged(**response)

    assert (record.outcome, record.error) == ("failed", error)
    assert record.detail.startswith(words)


def fixed(tokens: int) -> Item:
    return Item(number=8, prompt="p", max_tokens=tokens, exact_length=True)


@pytest.mark.parametrize(
    "end", [DONE, USAGE + DONE, USAGE.replace(b"4", b"0") + DONE, USAGE.replace(b"4", b"null")]
)
def test_an_answer_that_is_shorter_than_asked_for_no_reason_is_truncated(end: bytes) -> None:
    pieces = [*WHOLE[:2], (9_000, end + DONE)]

    record, _ = judged(fixed(16), pieces=pieces)

    assert (record.outcome, record.error) == ("failed", "truncated")
    assert record.detail.endswith("of 16 tokens, without a finish reason")
    # It may be as long as it likes, it is as long as was asked, or it says why it ended.
    free = Item(number=8, prompt="p", max_tokens=16)
    assert judged(free, pieces=pieces)[0].outcome == "completed"
    assert judged(fixed(2), pieces=pieces)[0].outcome == "completed"
    assert judged(fixed(16), pieces=[*pieces[:2], (9_000, STOP + end + DONE)])[0].error == ""


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'


@pytest.mark.parametrize("begun", [ROLE, b": keep-alive\n\n", ROLE + chunk("a"), chunk("a")[:20]])
def test_a_stream_that_ends_early_is_truncated_wherever_it_does(begun: bytes) -> None:
    record, _ = judged(pieces=[(6_000, begun)])

    assert (record.outcome, record.error) == ("failed", "truncated")


@pytest.mark.parametrize("each", [1, 2])
def test_a_usage_of_each_event_alone_is_summed(each: int) -> None:
    usage = b'"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n' % each
    event = chunk("ab ").removesuffix(b"}\n\n") + b"," + usage
    record, _ = judged(pieces=[*((6_000 + at, event) for at in range(8)), (9_000, STOP + DONE)])

    assert (record.source, record.output_tokens, record.oddities) == ("usage", 8 * each, ())
    assert record.tokens == (() if each == 1 else (each,) * 8)


def test_a_running_usage_of_each_choice_is_not_summed() -> None:
    def event(at: int) -> bytes:
        choice, so_far = at % 2, 1 + at // 2 + 3 * (at % 2)
        return (
            b'data: {"choices":[{"index":%d,"delta":{"content":"ab "}}],"usage":{"prompt_tokens":7,'
            b'"completion_tokens":%d}}\n\n' % (choice, so_far)
        )

    ends = b"".join(
        b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n' % n
        for n in (0, 1)
    )
    record, _ = judged(
        pieces=[*((6_000 + at, event(at)) for at in range(12)), (9_000, ends + DONE)]
    )

    assert (record.source, record.output_tokens, record.error) == ("chunks", 12, "")


def test_a_last_event_with_the_whole_answer_once_more_is_no_part_of_it() -> None:
    words = [(6_000 + 10 * at, chunk(f"word{at} ")) for at in range(8)]
    again = chunk("".join(f"word{at} " for at in range(8)), '"stop"')
    record, _ = judged(pieces=[*words, (9_000, again + USAGE.replace(b"4", b"8") + DONE)])

    assert (record.output_tokens, len(record.gaps_ns), record.tokens) == (8, 8, ())
    assert record.oddities == ()


def test_a_web_page_speaks_by_its_title() -> None:
    page = b"<!DOCTYPE html>\n<html><head><title>x.org | 502: Bad gateway</title></head>"

    assert judged(status=502, pieces=[(6_000, page)])[0].detail == "x.org | 502: Bad gateway"


def test_hidden_tokens_are_part_of_an_answer_of_fixed_length() -> None:
    usage = USAGE.replace(b"4", b"40")

    record, _ = judged(fixed(40), pieces=[*WHOLE[:2], (9_000, usage + DONE)])

    assert (record.error, record.output_tokens, record.unstreamed) == ("", 2, 38)
    assert (record.source, record.texts) == ("chunks", ("aaa", "b"))


def test_a_protocol_without_finish_reasons_is_not_asked_for_one() -> None:
    event = b'data: {"text_output": "a"}\n\n'

    record, _ = judged(fixed(16), "triton-generate", pieces=[(6_000, event)])

    assert (record.outcome, record.error) == ("completed", "")


def test_what_was_odd_about_a_stream_stands_in_its_record() -> None:
    wholes = ["a", "ab", "abc", "abcd"]
    pieces = [(6_000 + place, chunk(text)) for place, text in enumerate(wholes)]

    record, answer = judged(
        Item(number=8, prompt="p", session=1),
        pieces=[*pieces, (9_000, STOP + USAGE.replace(b"4", b'"4"') + DONE)],
    )

    assert record.oddities == ("cumulative-text", "unusable-usage")
    assert (record.texts, answer) == (("a", "b", "c", "d"), "abcd")
    assert judged()[0].oddities == ()


def test_a_prompt_in_front_of_the_answer_is_no_part_of_it() -> None:
    prompt = "Name four letters of the alphabet."
    said = ["", "a", "ab", "abc", "abcd"]
    events = [json.dumps({"text_output": f"Be brief.\n\n{prompt}{text}"}) for text in said]
    pieces = [(6_000 + at, f"data: {event}\n\n".encode()) for at, event in enumerate(events)]

    record, answer = judged(
        Item(number=8, prompt=prompt, system_prompt="Be brief.", session=1),
        "triton-generate",
        pieces=pieces,
    )

    assert record.oddities == ("cumulative-text",)
    assert (record.texts, answer) == (("a", "b", "c", "d"), "abcd")
    assert record.gaps_ns == (1_001, 1, 1, 1)


@pytest.mark.parametrize("endpoint", ["openai-chat", "tgi", "triton-generate", "bentoml"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "out of memory"}}',
        b'{"detail": [{"loc": ["body"], "msg": "out of memory"}]}',
        b'\n{"object": "error", "message": "out of memory", "code": 500}\n',
    ],
)
def test_an_error_instead_of_a_stream_is_none_of_its_answers(endpoint: str, body: bytes) -> None:
    for media_type in ("application/json", "text/event-stream", "text/plain"):
        record, _ = judged(
            endpoint=endpoint, pieces=[(6_000, body)], headers={"content-type": media_type}
        )

        assert (record.outcome, record.error) == ("failed", "not-a-stream")
        assert record.detail == "out of memory"


def test_an_answer_that_is_json_is_an_answer() -> None:
    body = b'{"name": "Ada", "born": 1815}'

    record, _ = judged(endpoint="bentoml", pieces=[(6_000, body)])

    assert record.outcome == "completed"


def test_what_breaks_after_the_end_mark_costs_nothing() -> None:
    record, _ = judged(error="reset", detail="by peer")

    assert (record.outcome, record.error, record.detail) == ("completed", "", "by peer")


def test_a_cut_is_no_fault_and_keeps_its_tokens() -> None:
    record, _ = judged(error="cut", pieces=WHOLE[:2])

    assert (record.outcome, record.error, record.output_tokens) == ("cut", "", 2)


def test_long_words_are_cut_short() -> None:
    record, _ = judged(error="bad-http", detail="x" * 1_000, pieces=[])

    assert record.detail == "x" * 300


@pytest.mark.parametrize(("named", "kept"), [('"m"', "m"), ('"m-large"', "m-large"), ("7", "")])
def test_the_model_that_the_server_names_is_noted(named: str, kept: str) -> None:
    event = b'data: {"model":%s,"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    body = event % named.encode() + STOP + DONE

    record, _ = judged(pieces=[(6_000, body)])

    assert (record.outcome, record.answered_by) == ("completed", kept)
