"""Token ids → text, piece by piece, that never ends inside a character or inside a stop string.

The worker feeds the tokens of each step and sends the text that comes out. A token of a byte-level
tokenizer is a run of bytes, and a character may take several tokens, so an incomplete character
waits for the next step. Bytes that are not UTF-8 (a model may make them) are dropped, as the
library's own decoder drops them.

A token's bytes are looked up in a table, which takes a microsecond. A call of the library's decoder
takes over a hundred, a fifth of a step of a single stream on a small model. For tokenizers that
allow no table, one call decodes for all streams at once.
"""

import codecs
from collections.abc import Mapping, Sequence
from typing import Protocol

_Utf8 = codecs.getincrementaldecoder("utf-8")


class Tokenizer(Protocol):
    """The part of OpenVINO GenAI's tokenizer that we use."""

    def get_vocab(self) -> Mapping[bytes, int]:
        """Return each token's bytes and id."""

    def decode(self, tokens: Sequence[object], skip_special_tokens: bool = True) -> object:
        """Return the text of one sequence, or of several."""


class Detokenizer(Protocol):
    """Turns the tokens of all generations into text, a step at a time."""

    def feed(self, new: Mapping[int, Sequence[int]]) -> Mapping[int, str]:
        """Take each generation's new tokens, and return the text of each that is certain now."""

    def show_special(self, generation: int) -> None:
        """Let a new generation's text show its special tokens, which else have no text."""

    def forget(self, generation: int) -> None:
        """Drop what is kept for a generation that has ended."""


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return each token as the vocabulary has it, special tokens too."""
    vocabulary = tokenizer.get_vocab()
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        table[number] = token
    return table


def token_table(tokenizer: Tokenizer) -> list[bytes] | None:
    """Return each token's bytes; None if a text is not simply its tokens' bytes in a row."""
    table = token_bytes(tokenizer)
    alone = [[number] for number in range(len(table))]
    visible = tokenizer.decode(alone)
    everything = tokenizer.decode(alone, skip_special_tokens=False)
    assert isinstance(visible, list)
    assert isinstance(everything, list)
    for number, (text, with_special) in enumerate(zip(visible, everything, strict=True)):
        if not text and with_special:
            table[number] = b""
    plain = [token.decode("utf-8", "ignore") for token in table]
    together = b"".join(table).decode("utf-8", "ignore")
    if visible != plain or tokenizer.decode(list(range(len(table)))) != together:
        return None
    return table


class TableDetokenizer:
    """Looks each token's bytes up, and keeps back an incomplete character."""

    def __init__(self, table: Sequence[bytes], full: Sequence[bytes]) -> None:
        self._table = table
        self._full = full  # with the special tokens
        self._showing: set[int] = set()  # the generations that show them
        self._utf8: dict[int, codecs.IncrementalDecoder] = {}

    def feed(self, new: Mapping[int, Sequence[int]]) -> Mapping[int, str]:
        """Take each generation's new tokens, and return the text of each that is certain now."""
        texts: dict[int, str] = {}
        for generation, tokens in new.items():
            utf8 = self._utf8.get(generation)
            if utf8 is None:
                utf8 = self._utf8[generation] = _Utf8("ignore")
            table = self._full if generation in self._showing else self._table
            texts[generation] = utf8.decode(_bytes(table, tokens))
        return texts

    def show_special(self, generation: int) -> None:
        """Let a new generation's text show its special tokens."""
        self._showing.add(generation)

    def forget(self, generation: int) -> None:
        """Drop what is kept for a generation that has ended."""
        self._showing.discard(generation)
        self._utf8.pop(generation, None)


def _bytes(table: Sequence[bytes], tokens: Sequence[int]) -> bytes:
    try:
        return b"".join([table[token] for token in tokens])
    except IndexError:  # a model's output may be wider than its vocabulary
        return b"".join([table[token] for token in tokens if token < len(table)])


class WindowDetokenizer:
    """Decodes the last few tokens with and without the new ones; the difference is new text.

    For tokenizers whose text is more than bytes in a row (SentencePiece drops a leading space).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, list[int]] = {}  # the last tokens that have been seen as text
        self._held: dict[int, list[int]] = {}  # those after them, which have not
        self._showing: set[int] = set()  # the generations that show special tokens

    def feed(self, new: Mapping[int, Sequence[int]]) -> Mapping[int, str]:
        """Take each generation's new tokens, and return the text of each that is certain now."""
        if not self._showing:
            return self._feed(new, skip=True)
        shown = {number: tokens for number, tokens in new.items() if number in self._showing}
        others = {number: tokens for number, tokens in new.items() if number not in self._showing}
        return {**self._feed(others, skip=True), **self._feed(shown, skip=False)}

    def _feed(self, new: Mapping[int, Sequence[int]], *, skip: bool) -> dict[int, str]:
        windows: list[list[int]] = []
        helds: dict[int, list[int]] = {}
        for generation, tokens in new.items():
            known = self._known.get(generation, [])
            held = helds[generation] = [*self._held.get(generation, []), *tokens]
            windows += (known, known + held)
        # No window may be empty: that is not a text to the library. If it fails on one, nothing
        # has been kept yet, so that the others can be fed again.
        decoded = iter(self._decode([window for window in windows if window], skip=skip))
        texts: dict[int, str] = {}
        for generation, held in helds.items():
            known = self._known.get(generation, [])
            before = next(decoded) if known else ""
            after = next(decoded) if known or held else ""
            if len(after) > len(before) and not after.endswith("\ufffd"):
                texts[generation] = after[len(before) :]
                # They stay as the window: what comes next may be spaced differently after them.
                self._known[generation] = held
                self._held.pop(generation, None)
            else:
                texts[generation] = ""
                self._held[generation] = held
        return texts

    def show_special(self, generation: int) -> None:
        """Let a new generation's text show its special tokens."""
        self._showing.add(generation)

    def forget(self, generation: int) -> None:
        """Drop what is kept for a generation that has ended."""
        self._showing.discard(generation)
        self._known.pop(generation, None)
        self._held.pop(generation, None)

    def _decode(self, windows: list[list[int]], *, skip: bool) -> list[str]:
        texts = self._tokenizer.decode(windows, skip_special_tokens=skip) if windows else []
        assert isinstance(texts, list)
        return texts


class StopFilter:
    """Lets text through up to the first stop string, and keeps back what may be a part of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that may be shown, and whether a stop string has come."""
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        cut = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[cut:]
        return text[:cut], False

    def rest(self) -> str:
        """Return what was kept back, now that no more text comes."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the stop string."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
