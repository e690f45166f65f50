"""Synthetic text: random common English words, about a token each."""

import random
from functools import lru_cache

# Common English words that byte-pair vocabularies of any size hold whole, so that a word is about a
# token. The server's usage says how many tokens it really takes.
_WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had
an they which one you were all her she there would their we him been has when who will no more
if out so up said what its about than into them can only other time new some could these two may
first then do any like my now over such our man me even most made after also did many off before
must well back through years much where your way down should because long each just state those
people too here world year good work how same day between life own take place last under house
right three water off number part great small line set end case point home hand
""".split()


def synthetic_text(words: int, rng: random.Random) -> str:
    """Return that many random common words, with a blank between."""
    return " ".join(random_words(words, rng))


def random_words(count: int, rng: random.Random) -> list[str]:
    """Return that many random common words."""
    return rng.choices(_WORDS, k=count)


@lru_cache(maxsize=10_000)
def block(seed: str, words: int) -> tuple[str, ...]:
    """Return the words of a block of a trace: the same for the same seed, whoever asks."""
    return tuple(random_words(words, random.Random(seed)))
