from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.wire.reply import (
    Reply,
    by_read,
    count_tokens,
    oddities,
    spread,
    unstreamed,
    without_prompt,
    without_repeats,
)


def _reply(sizes: list[int], total: int, running: list[int] | None = None) -> Reply:
    return Reply(
        stamps_ns=list(range(len(sizes))),
        texts=["x" * size for size in sizes],
        output_tokens=total,
        usage_after=running or [],
    )


def test_without_usage_a_chunk_is_a_token_and_says_so() -> None:
    assert count_tokens(_reply([3, 4, 5], -1)) == ([1, 1, 1], "chunks")


def test_as_many_chunks_as_tokens_is_one_each() -> None:
    assert count_tokens(_reply([3, 9], 2)) == ([1, 1], "usage")


def test_running_usage_is_taken_as_it_is() -> None:
    assert count_tokens(_reply([1, 1, 90], 6, [2, 5, 6])) == ([2, 3, 1], "usage")


def test_final_usage_is_spread_in_proportion_to_the_text() -> None:
    assert count_tokens(_reply([16, 16, 16, 8], 14)) == ([4, 4, 4, 2], "usage")


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    total=st.integers(1, 200),
)
def test_no_token_is_lost_or_made_up(sizes: list[int], total: int) -> None:
    reply = _reply(sizes, total)
    tokens, _ = count_tokens(reply)

    assert total == sum(tokens) + unstreamed(reply, sum(tokens))
    assert tokens[0] >= 1
    assert min(tokens) >= 0


def test_chunks_of_one_read_are_one_read() -> None:
    gaps_ns, tokens = by_read([110, 130, 130, 160], [1, 1, 2, 1], sent_ns=100)

    assert gaps_ns == (10, 20, 30)
    assert tokens == (1, 3, 1)


def test_a_read_without_a_whole_token_joins_the_next_gap() -> None:
    assert by_read([110, 130, 160], [1, 0, 1], sent_ns=100) == ((10, 50), ())


def test_one_token_a_read_is_left_out() -> None:
    assert by_read([110, 130], [1, 1], sent_ns=100) == ((10, 20), ())


@pytest.mark.parametrize("total", [0, -1])
def test_a_usage_of_nothing_beside_text_is_not_believed(total: int) -> None:
    assert count_tokens(_reply([3, 3], total)) == ([1, 1], "chunks")


WORDS = [" the", " quick", " brown", " fox", " jumps", " over", " it", "."]


def _said(total: int, texts: list[str] | None = None, **fields: Any) -> Reply:
    texts = WORDS if texts is None else texts
    stamps_ns = list(range(10, 10 * len(texts) + 1, 10))
    return Reply(stamps_ns=stamps_ns, texts=texts, output_tokens=total, **fields)


# Usage above what was streamed: (reply, tokens that were streamed, source).
HIDDEN = {
    "told": (_said(28, reasoning_tokens=20), 8, "usage"),
    "told, beside an end of sequence": (_said(29, reasoning_tokens=20), 9, "usage"),
    "told to be more than there is": (_said(12, reasoning_tokens=20), 8, "usage"),
    "untold": (_said(108), 8, "chunks"),
    "untold, though a summary of it came": (_said(108, reasoned=True), 8, "chunks"),
    "before the first chunk, by running usage": (
        _said(108, usage_after=list(range(101, 109))),
        8,
        "usage",
    ),
    "in the middle, by running usage": (
        _said(58, usage_after=[1, 2, 3, 54, 55, 56, 57, 58]),
        8,
        "usage",
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_was_not_streamed_is_in_no_chunk(name: str) -> None:
    reply, streamed, source = HIDDEN[name]

    tokens, found = count_tokens(reply)

    assert (sum(tokens), found) == (streamed, source)
    assert min(tokens) == 1 or streamed > 8
    assert unstreamed(reply, sum(tokens)) == reply.output_tokens - streamed


# What a text can well hold is believed.
BELIEVED = {
    "the end of the sequence": _said(9),
    "reasoning that was streamed": _said(14, reasoned=True, reasoning_tokens=6),
    "several tokens a chunk": _said(9, ["several words at once", " and several more"]),
    "a digit a token": _said(16, ["12345678", "12345678"]),
    "a byte a token": _said(12, ["\N{CJK UNIFIED IDEOGRAPH-6F22}" * 2] * 2),
    "running usage of several tokens a chunk": _said(
        9, ["several words at once", " and several more"], usage_after=[4, 9]
    ),
}


@pytest.mark.parametrize("name", BELIEVED)
def test_a_usage_that_the_text_can_hold_is_believed(name: str) -> None:
    reply = BELIEVED[name]

    tokens, source = count_tokens(reply)

    assert (sum(tokens), source) == (reply.output_tokens, "usage")
    assert unstreamed(reply, sum(tokens)) == 0
    assert oddities(reply) == ()


@pytest.mark.parametrize(
    "why",
    [
        {"reasoned": True},
        {"choices": {0, 1}},
        {"chunks_at_usage": 5},
        {"texts": ["<think>", "hm", "</think>", *WORDS[3:]]},
    ],
)
def test_what_a_usage_leaves_out_counts_by_its_chunks(why: dict[str, Any]) -> None:
    reply = msgspec.structs.replace(_said(5), **why)

    assert count_tokens(reply) == ([1] * 8, "chunks")
    assert oddities(reply) == ("usage-below-stream",)
    assert unstreamed(reply, 8) == 0


@pytest.mark.parametrize("total", [1, 2, 3, 5, 7])
def test_an_answer_ends_at_its_last_text_whatever_the_usage(total: int) -> None:
    reply = _said(total)

    tokens, source = count_tokens(reply)
    gaps_ns, _ = by_read(reply.stamps_ns, tokens, sent_ns=0)

    assert (sum(tokens), source) == (total, "usage")
    assert (gaps_ns[0], sum(gaps_ns)) == (10, 80)
    assert oddities(reply) == ("usage-below-stream",)


@given(sizes=st.lists(st.integers(0, 40), min_size=2, max_size=30), total=st.integers(2, 29))
def test_fewer_tokens_than_chunks_begin_with_the_first_and_end_with_the_last(
    sizes: list[int], total: int
) -> None:
    sizes = [3, *sizes, 3]
    counts = spread(total, sizes)

    assert sum(counts) == total
    assert min(counts) >= 0
    assert counts[0] >= 1
    assert counts[-1] >= 1 or total >= len(sizes)


def test_a_last_read_without_a_token_keeps_its_time() -> None:
    assert by_read([110, 130, 160], [1, 0, 0], sent_ns=100) == ((10, 50), (1, 0))
    assert by_read([110, 130, 130], [1, 0, 1], sent_ns=100) == ((10, 20), ())


@pytest.mark.parametrize("usage_after", [[], [1, 2, 3, 4, 5, 6, 7, 8, 8]])
def test_text_that_repeats_all_before_it_is_taken_from_the_last(usage_after: list[int]) -> None:
    wholes = ["".join(WORDS[:count]) for count in range(1, 9)]
    repeating = _said(8, [*wholes, wholes[-1]], usage_after=usage_after)

    reply = without_repeats(repeating)

    assert reply.texts == WORDS
    assert reply.stamps_ns == repeating.stamps_ns[:8]  # the ninth brought nothing new
    assert count_tokens(reply) == ([1] * 8, "usage")


def test_a_character_that_was_not_whole_yet_hides_no_repetition() -> None:
    reply = without_repeats(_said(4, ["a", "ab\ufffd", "ab\u00e9", "ab\u00e9c", "ab\u00e9cd"]))

    assert reply.texts == ["a", "b", "\u00e9", "c", "d"]


@pytest.mark.parametrize(
    "texts", [WORDS, ["ha"] * 9, [" ", "  ", "   ", "    "], ["a", "ab", "abc"], []]
)
def test_text_that_is_new_is_left_as_it_is(texts: list[str]) -> None:
    reply = _said(8, texts)

    assert without_repeats(reply) is reply


PROMPT = "What is the capital?"


@pytest.mark.parametrize(
    ("texts", "new"),
    [
        ([f"{PROMPT} It", " is"], [" It", " is"]),
        ([PROMPT, " It", " is"], [" It", " is"]),
        ([PROMPT], []),
    ],
)
def test_a_prompt_in_front_is_taken_off(texts: list[str], new: list[str]) -> None:
    running = list(range(1, 1 + len(texts)))
    echoed = _said(-1, texts, usage_after=running)

    reply = without_prompt(echoed, PROMPT)

    assert reply.texts == new
    dropped = len(texts) - len(new)
    assert reply.stamps_ns == echoed.stamps_ns[dropped:]
    assert reply.usage_after == running[dropped:]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (PROMPT, []),
        (PROMPT, ["What", " is the capital?"]),  # a model that says it again, token by token
        (PROMPT, [f"You ask: {PROMPT}"]),
        ("Count.", ["Count. One", " two"]),  # so short that an answer may begin so
    ],
)
def test_an_answer_that_is_not_led_by_the_prompt_is_left(prompt: str, texts: list[str]) -> None:
    reply = _said(-1, texts)

    assert without_prompt(reply, prompt) is reply


@pytest.mark.parametrize("fields", [{"output_tokens": 0}, {"usage_is_odd": True}])
def test_a_usage_that_counts_nothing_is_named(fields: dict[str, Any]) -> None:
    reply = msgspec.structs.replace(_said(-1), **fields)

    assert count_tokens(reply) == ([1] * 8, "chunks")
    assert oddities(reply) == ("unusable-usage",)
    assert oddities(_said(-1)) == ()
