"""Prompts as hashes: equal ids are equal beginnings, and a part's end is a block's end."""

from itertools import takewhile

import pytest

from llmdyno.records.prefixes import HitCounter, block_lengths, blocks_of


def alike(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))  # noqa: B905


def test_prompts_are_alike_up_to_the_first_difference() -> None:
    one = blocks_of(["x" * 100, "hello"], 10)
    two = blocks_of(["x" * 100, "help!"], 10)
    three = blocks_of(["x" * 55 + "y" * 45, "hello"], 10)

    assert one.characters == (100, 5)
    assert len(one.ids) == 11
    assert alike(one.ids, two.ids) == 10
    assert alike(one.ids, three.ids) == 5  # what follows a difference differs, equal or not
    assert len(set(one.ids)) == 11
    assert all(0 <= block < 2**53 for block in one.ids)


def test_a_longer_conversation_begins_with_all_of_the_shorter() -> None:
    turn = blocks_of(["system", "a question"], 4)
    later = blocks_of(["system", "a question", "an answer", "more"], 4)

    assert later.ids[: len(turn.ids)] == turn.ids


def test_with_a_key_nobody_finds_a_text_again() -> None:
    assert blocks_of(["secret"], 64, b"key") == blocks_of(["secret"], 64, b"key")
    assert blocks_of(["secret"], 64, b"key").ids != blocks_of(["secret"], 64, b"other").ids
    assert blocks_of(["secret"], 64).ids != blocks_of(["secret"], 64, b"key").ids


def test_lengths_are_those_of_the_blocks() -> None:
    blocks = blocks_of(["a" * 25, "", "b" * 20, "\ud800"], 10)

    assert block_lengths(blocks.characters, 10) == [10, 10, 5, 10, 10, 1]
    assert len(blocks.ids) == 6


def test_what_was_asked_before_is_a_hit() -> None:
    cache = HitCounter()

    assert cache.share([1, 2, 3], [10, 10, 5]) == 0
    assert cache.share([1, 2, 4], [10, 10, 20]) == pytest.approx(0.5)
    assert cache.share([1, 2, 3], [10, 10, 5]) == 1
    assert cache.share([9, 3], [1, 1]) == 0  # only a beginning is a hit
    assert cache.share([], []) == 0
