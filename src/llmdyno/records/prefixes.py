"""Prompts as the hashes of their blocks: which requests begin alike, without any of their texts.

A prompt is a sequence of parts (its tools, its messages). Each part is cut into blocks of so many
characters, its last one shorter, so that a block ends wherever a part ends: there a conversation
goes on, and there prompts cease to be alike. The id of a block is the hash of all text up to its
end. So equal ids mean equal beginnings, as in Mooncake's traces and in a server's prefix cache.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

JOURNAL_CHARACTERS = 64  # of a block in a journal: about 16 tokens, as most prefix caches have
ID_BYTES = 8
_ID_BITS = 53  # a whole number that every reader of JSON holds exactly
_SHIFT = 8 * ID_BYTES - _ID_BITS


class Blocks(msgspec.Struct, frozen=True):
    """The blocks of one prompt."""

    ids: tuple[int, ...]
    characters: tuple[int, ...]  # of each part


NO_BLOCKS = Blocks((), ())


def blocks_of(parts: Iterable[str], block_characters: int, key: bytes = b"") -> Blocks:
    """Return the blocks of a prompt.

    Args:
        parts: of the prompt, in the order in which a server puts them before its model; the empty
            ones are left out.
        block_characters: of a block.
        key: of the hash; without it nobody can find out whether a prompt began with a given text.
    """
    ids: list[int] = []
    lengths: list[int] = []
    before = b""
    for part in parts:
        if not part:
            continue
        lengths.append(len(part))
        for start in range(0, len(part), block_characters):
            text = part[start : start + block_characters].encode(errors="surrogatepass")
            before = hashlib.blake2b(before + text, digest_size=ID_BYTES, key=key).digest()
            ids.append(int.from_bytes(before) >> _SHIFT)
    return Blocks(tuple(ids), tuple(lengths))


def block_lengths(characters: Iterable[int], block_characters: int) -> list[int]:
    """Return the characters of each block, of the characters of each part."""
    lengths: list[int] = []
    for part in characters:
        full, rest = divmod(part, block_characters)
        lengths += [block_characters] * full
        if rest:
            lengths.append(rest)
    return lengths


class HitCounter:
    """A prefix cache without a limit: how much of each prompt it has seen at the time."""

    def __init__(self) -> None:
        self._seen: set[int | str] = set()

    def share(self, ids: Sequence[int | str], lengths: Sequence[float]) -> float:
        """Return which share of a prompt was asked before, from 0 to 1, and remember the prompt.

        Args:
            ids: of its blocks, each the hash of all up to its end.
            lengths: of each block, in any unit.
        """
        hit = 0.0
        for block, length in zip(ids, lengths, strict=True):
            if block not in self._seen:
                break
            hit += length
        self._seen.update(ids)
        return hit / whole if (whole := sum(lengths)) else 0.0
