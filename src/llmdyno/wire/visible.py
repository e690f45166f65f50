"""Whether each chunk of a stream holds one token, told by the chunks' texts alone.

A usage above the number of chunks may count several tokens a chunk, or tokens that were never
streamed. Tokenizers do not join words: a token is a word with the blank before it, or a part of
one. So of chunks of several tokens each, most cross the border of a word, and chunks of one token
each do not. A server that streams whole words crosses no border either; it never divides a word,
and its words have room for the tokens.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

_CHUNKS_MIN = 8  # fewer say too little
_BEYOND_MIN = 8  # tokens beyond one a chunk; fewer do little harm
_BEYOND_SHARE = 0.125
_CROSSINGS_SHARE = 0.1  # of the tokens beyond; a chunk of two crosses a border half of the times
_CROSSING_CHUNKS_SHARE = 0.2  # of the chunks; of large ones each crosses borders
_GATHERED_SHARE = 0.5  # of the tokens beyond; a word may be several tokens
_DIVIDED_SHARE = 0.5  # of the chunks; with more of them the text does not consist of words
_OTHER_SCRIPT_SHARE = 0.05  # of the characters; words of other scripts have no blanks between
_WORD_TOKEN_CHARACTERS = 4  # a whole word has at most a token for each so many, begun ones too
_WORD_MEAN_MAX = 6  # characters; longer words are of languages that tokenizers divide finely
_PART = re.compile(r"[^\w\s]*\w+|[^\w\s]+")


def holds_single_tokens(texts: Sequence[str], total: int) -> bool:
    """Whether chunks of these texts hold one token each, although `total` tokens were counted.

    Args:
        texts: one a chunk, none empty.
        total: tokens that the server counts, more than there are chunks.
    """
    beyond = total - len(texts)
    if len(texts) < _CHUNKS_MIN or beyond < max(_BEYOND_MIN, _BEYOND_SHARE * len(texts)):
        return False
    crossings_max = min(_CROSSINGS_SHARE * beyond, _CROSSING_CHUNKS_SHARE * len(texts))
    crossings = borders = 0
    for text in texts:
        if len(text) > 1 and (crossed := _borders(text)):
            crossings += 1
            borders += crossed
            if crossings > crossings_max:
                return False
    # A server that falls behind sends what has gathered in one chunk: at least a token a border.
    if borders >= _GATHERED_SHARE * beyond:
        return False
    characters = sum(map(len, texts))
    if characters - _ascii(texts) > _OTHER_SCRIPT_SHARE * characters:
        return False
    divided = sum(_divides(before, after) for before, after in pairwise(texts))
    if divided > _DIVIDED_SHARE * len(texts):
        return False
    if divided:
        return True
    words = [len(text.strip()) for text in texts]
    return not crossings and sum(words) <= _WORD_MEAN_MAX * len(words) and total > _room(words)


def _borders(text: str) -> int:
    """Return how many borders of words a text goes over, not counting blanks around it."""
    return max(0, len(_PART.findall(text)) - 1)


def _divides(before: str, after: str) -> bool:
    return _is_of_word(before[-1]) and _is_of_word(after[0])


def _is_of_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def _room(words: Iterable[int]) -> int:
    return sum(max(1, -(-characters // _WORD_TOKEN_CHARACTERS)) for characters in words)


def _ascii(texts: Iterable[str]) -> int:
    return sum(len(text.encode("ascii", "ignore")) for text in texts)
