"""A workload's own prompts as the simulation takes them: lengths, and the blocks of a prefix cache.

What is drawn is what `dyno bench` would send. A word of synthetic text counts as a token, as that
is how the workload makes prompts of a wanted length; of other text four characters do. The model's
answers are not known: each is a text of its own, as long as was asked for, and comes back in the
prompts of the turns after it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import msgspec

from llmdyno import workload as workloads
from llmdyno.predict.blocks import BlockCache
from llmdyno.predict.rules import Ask
from llmdyno.spec import CHAT_OUTPUT_TOKENS, Workload
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.sessions import Item

_TOKEN_CHARACTERS = 4
_TYPICAL_SESSIONS = 200
_BLOCK = 16  # tokens, where no engine says it
_DRAWINGS = 8  # that are remembered

Session = tuple[Ask, ...]
_Token = str | tuple[int, int]


class Typical(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload's requests are like.

    Attributes:
        prompt, answer: mean tokens.
        longest: tokens of the longest prompt and its answer.
        cached: the share of the prompts' tokens that a cache without a limit would hold.
    """

    prompt: float
    answer: float
    longest: int
    cached: float


def typical(workload: Workload) -> Typical:
    """Return what a workload's requests are like, by its first sessions.

    Raises:
        UsageError: there is no such workload, or its file cannot be read.
    """
    return _typical(msgspec.json.encode(workload))


@lru_cache(maxsize=_DRAWINGS)
def _typical(encoded: bytes) -> Typical:
    workload = msgspec.json.decode(encoded, type=Workload)
    first = islice(sessions(workload, "", _BLOCK), _TYPICAL_SESSIONS)
    asks = [ask for turns in first for ask in turns]
    cache, cached = BlockCache(), 0
    for ask in asks:
        whole = ask.blocks[: ask.prompt // _BLOCK]
        cached += min(_BLOCK * cache.hits(whole), ask.prompt - 1)
        cache.hold(ask.blocks)
    prompts = sum(ask.prompt for ask in asks)
    return Typical(
        prompt=prompts / len(asks),
        answer=sum(ask.answer for ask in asks) / len(asks),
        longest=max(ask.prompt + ask.answer for ask in asks),
        cached=cached / prompts,
    )


def sessions(workload: Workload, stream: str, block: int) -> Iterator[Session]:
    """Yield the sessions of a level, one after the other; most have no end.

    Args:
        workload: what is asked.
        stream: what the level draws from, as bench has it: its number of users.
        block: tokens of a block of the prefix cache.

    Raises:
        UsageError: there is no such workload, or its file cannot be read.
    """
    return iter(_drawn(msgspec.json.encode(workload), stream, block))


class _Drawn:
    """Sessions that are drawn when they are first asked for, and remembered."""

    def __init__(self, source: Iterator[Session]) -> None:
        self._source = source
        self._seen: list[Session] = []

    def __iter__(self) -> Iterator[Session]:
        place = 0
        while True:
            if place == len(self._seen):
                try:
                    self._seen.append(next(self._source))
                except StopIteration:
                    return
            yield self._seen[place]
            place += 1


@lru_cache(maxsize=_DRAWINGS)
def _drawn(encoded: bytes, stream: str, block: int) -> _Drawn:
    return _Drawn(_draw(msgspec.json.decode(encoded, type=Workload), stream, block))


def _draw(workload: Workload, stream: str, block: int) -> Iterator[Session]:
    prompts = Prompts(workload, stream)
    in_words = workloads.calibrates(workloads.load(workload.name))
    number = 0
    while True:
        said: list[_Token] = []
        asks = []
        try:
            turns = prompts.draw_session()
        except StopIteration:
            return
        for item in turns:
            answer = item.max_tokens or CHAT_OUTPUT_TOKENS
            prompt = _prompt(item, said, in_words=in_words)
            whole: list[_Token] = [*prompt, *((number, place) for place in range(answer))]
            asks.append(Ask(len(prompt), 0, answer, blocks=_blocks(whole, block)))
            said = whole
            number += 1
        yield tuple(asks)


def _prompt(item: Item, said: Sequence[_Token], *, in_words: bool) -> list[_Token]:
    """Return a prompt's tokens: what was said before, or the beginning, and the question."""
    question = _tokens(item.prompt, in_words=in_words)
    if said and not item.history:
        return [*said, *question]
    parts = [item.system_prompt, *(text for pair in item.history for text in pair)]
    before = [token for part in parts for token in _tokens(part, in_words=in_words)]
    return [*before, *question]


def _tokens(text: str, *, in_words: bool) -> list[str]:
    if in_words:
        return text.split()
    starts = range(0, len(text), _TOKEN_CHARACTERS)
    return [text[start : start + _TOKEN_CHARACTERS] for start in starts]


def _blocks(tokens: Sequence[_Token], block: int) -> tuple[int, ...]:
    """Return the ids of the whole blocks: each the hash of all tokens up to its end."""
    found, before = [], 0
    for end in range(block, len(tokens) + 1, block):
        before = hash((before, tuple(tokens[end - block : end])))
        found.append(before)
    return tuple(found)
