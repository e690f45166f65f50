"""Names that say whose they are, in a study over several engines or fronts.

vLLM and SGLang both have a knob `attention_backend`, with other values. "sglang:attention_backend"
is SGLang's alone; a name without an owner is that of all who have it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def parted(word: str, owners: Collection[str]) -> tuple[str, str]:
    """Return an owner, empty if none of them is named, and the word without it."""
    owner, colon, rest = word.partition(":")
    return (owner, rest) if colon and owner in owners else ("", word)


def own_words(words: Sequence[str], owners: Collection[str], mine: str) -> tuple[str, ...]:
    """Return the words that name one owner, without it."""
    parts = (parted(word, owners) for word in words)
    return tuple(rest for owner, rest in parts if owner == mine)


def own_knobs(
    config: Mapping[str, Any],
    owners: Collection[str],
    mine: Collection[str],
    names: Collection[str],
) -> dict[str, Any]:
    """Return what a config says of an engine behind a front, by the bare names.

    Args:
        config: value by name; the one that says whose it is comes before the one for all.
        owners: all engines and fronts of the study.
        mine: the engine and the front.
        names: of the knobs that they have.
    """
    parts = [(*parted(name, owners), value) for name, value in config.items()]
    for_all = {name: value for owner, name, value in parts if not owner and name in names}
    said = {name: value for owner, name, value in parts if owner in mine and name in names}
    return for_all | said


def is_for(
    word: str, owners: Collection[str], mine: Collection[str], names: Collection[str]
) -> bool:
    """Return whether a name is one of an engine's or front's knobs, and not said of another's."""
    owner, name = parted(word, owners)
    return (not owner or owner in mine) and name in names
