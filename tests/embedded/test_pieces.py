"""Text out of tokens: every split of characters and stop strings, against the plain answer."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.embedded.pieces import (
    Detokenizer,
    StopFilter,
    TableDetokenizer,
    WindowDetokenizer,
    token_bytes,
    token_table,
)


class ByteTokenizer:
    """256 tokens, one a byte, and an end mark; decodes as OpenVINO's tokenizer does."""

    end = 256

    def get_vocab(self) -> dict[bytes, int]:
        return {**{bytes([value]): value for value in range(256)}, b"</s>": self.end}

    def decode(self, tokens: Sequence[object], skip_special_tokens: bool = True) -> object:
        if tokens and isinstance(tokens[0], list):
            return [self._text(row, skip_special_tokens) for row in tokens]
        return self._text(tokens, skip_special_tokens)

    def _text(self, row: object, skip_special_tokens: bool) -> str:
        assert isinstance(row, Sequence)
        end = b"" if skip_special_tokens else b"</s>"
        return b"".join(end if at == self.end else bytes([at]) for at in row).decode(
            "utf-8", "ignore"
        )


class SpacingTokenizer(ByteTokenizer):
    """As ByteTokenizer, but a text never begins with a space, as SentencePiece has it."""

    def _text(self, row: object, skip_special_tokens: bool) -> str:
        return super()._text(row, skip_special_tokens).removeprefix(" ")


def detokenizers() -> list[Detokenizer]:
    table = token_table(ByteTokenizer())
    assert table is not None
    every = token_bytes(ByteTokenizer())
    return [TableDetokenizer(table, every), WindowDetokenizer(ByteTokenizer())]


@given(st.text(max_size=40), st.integers(1, 5))
def test_text_is_whole_however_its_bytes_are_split(text: str, step: int) -> None:
    tokens = list(text.encode())
    for detokenizer in detokenizers():
        pieces = [
            detokenizer.feed({7: tokens[at : at + step]})[7] for at in range(0, len(tokens), step)
        ]
        assert "".join(pieces) == text
        for piece in pieces:
            assert piece.encode().decode() == piece  # no half of anything


@given(st.lists(st.integers(0, 255), max_size=60))
def test_bytes_that_are_no_text_vanish(tokens: list[int]) -> None:
    detokenizer = detokenizers()[0]
    text = "".join(detokenizer.feed({1: [token]})[1] for token in tokens)
    assert text == bytes(tokens).decode("utf-8", "ignore")


def test_generations_in_one_step_do_not_mix() -> None:
    for detokenizer in detokenizers():
        first = detokenizer.feed({1: [0xE2, 0x82], 2: [0xC3]})
        second = detokenizer.feed({1: [0xAC], 2: [0xA9]})
        assert (first[1], first[2], second[1], second[2]) == ("", "", "€", "é")


def test_a_forgotten_generation_leaves_nothing_behind() -> None:
    for detokenizer in detokenizers():
        detokenizer.feed({1: [0xE2, 0x82]})
        detokenizer.forget(1)
        assert detokenizer.feed({1: [ord("a")]})[1] == "a"


def test_special_tokens_have_no_text() -> None:
    table = token_table(ByteTokenizer())
    assert table is not None
    assert table[ByteTokenizer.end] == b""
    for detokenizer in detokenizers():
        assert detokenizer.feed({1: [ord("a"), ByteTokenizer.end]})[1] == "a"


def test_a_generation_shows_special_tokens_if_it_is_asked_to() -> None:
    made = {1: [ord("a"), ByteTokenizer.end], 2: [ord("b"), ByteTokenizer.end]}
    for detokenizer in detokenizers():
        detokenizer.show_special(2)
        assert detokenizer.feed(made) == {1: "a", 2: "b</s>"}
        detokenizer.forget(2)  # a later one of that number does not inherit it
        assert detokenizer.feed({2: made[2]}) == {2: "b"}


def test_a_tokenizer_that_is_not_just_bytes_gets_no_table_and_keeps_its_spaces() -> None:
    assert token_table(SpacingTokenizer()) is None
    detokenizer = WindowDetokenizer(SpacingTokenizer())
    text = "".join(detokenizer.feed({1: [byte]})[1] for byte in b"a b  c d")
    assert text == "a b  c d"


@given(
    st.text("abc", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_nothing_of_a_stop_string_is_shown(text: str, stops: list[str], step: int) -> None:
    whole, stopped = StopFilter(stops).feed(text)
    filter_ = StopFilter(stops)
    shown = ""
    for at in range(0, len(text), step):
        piece, stop = filter_.feed(text[at : at + step])
        shown += piece
        if stop:
            break
    else:
        shown += filter_.rest()
    assert not any(stop in shown for stop in stops)
    if step == 1 and stopped:
        # Letter by letter the stop string that ends first wins; it may begin inside another.
        assert text.startswith(shown)
    if not stopped:
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert any(whole + stop == text[: len(whole) + len(stop)] for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [(["one ST", "OP two"], "one "), (["ST", "ST", "OP"], "ST"), (["ST", "x"], "STx")],
)
def test_a_stop_string_over_several_pieces(pieces: list[str], shown: str) -> None:
    filter_ = StopFilter(["STOP"])
    text = "".join(filter_.feed(piece)[0] for piece in pieces)
    assert text == shown


def test_a_token_beyond_the_vocabulary_has_no_text() -> None:
    # A model's output may be wider than its tokenizer's vocabulary.
    table = token_table(ByteTokenizer())
    assert table is not None
    detokenizer = TableDetokenizer(table, table)
    assert detokenizer.feed({1: [ord("a"), len(table) + 7, ord("b")]})[1] == "ab"


def test_what_the_library_could_not_decode_can_be_fed_again_without_the_culprit() -> None:
    detokenizer = WindowDetokenizer(ByteTokenizer())
    detokenizer.feed({1: [0xE2, 0x82]})
    with pytest.raises(ValueError, match="byte"):
        detokenizer.feed({1: [0xAC], 2: [999]})
    assert detokenizer.feed({1: [0xAC]})[1] == "€"
