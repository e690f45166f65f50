"""Workloads: what is asked. A spec becomes a seeded source of requests.

The same seed gives the same prompts in the same order, level by level, so that a run before a
change and a run after it ask the same questions.

    chat          short varied prompts of our own, each alone
    chat-system   the same behind a system prompt of about 500 tokens
    synthetic     random common words of the lengths asked for, no two prompts alike
    file          a file's prompts, drawn at random
    trace         prompts of the lengths that a trace has, in its order
"""

import random
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from llmdyno import dataset, spec, traces
from llmdyno.errors import UsageError
from llmdyno.traces import TracedRequest
from llmdyno.units import Lengths

# The prompt's column in a file, first match wins; Dolly's context goes before its instruction.
_PROMPT_KEYS = ("prompt", "question", "instruction", "text", "input")
_LENGTH_KEYS = ("max_tokens", "output_tokens", "output_length")

# Common English words that byte-pair vocabularies of any size hold whole, so that a word is about a
# token; how many tokens it really takes, the server's usage says.
_WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had
an they which one you were all her she there would their we him been has when who will no more
if out so up said what its about than into them can only other time new some could these two may
first then do any like my now over such our man me even most made after also did many off before
must well back through years much where your way down should because long each just state those
people too here world year good work how same day between life own take place last under house
right three water off number part great small line set end case point home hand
""".split()


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt with what belongs to it."""

    number: int
    prompt: str
    system_prompt: str = ""
    max_tokens: int | None = None
    exact_length: bool = False


class Prompts:
    """The requests of one level, drawn one after the other.

    Args:
        workload: the spec.
        stream: what distinguishes this sequence of draws, e.g. the level's number of users.
        tokens_per_word: how many tokens the server makes of a word of synthetic text.
        tokens_fixed: tokens that the server adds to every prompt (the chat template).
    """

    def __init__(
        self,
        workload: spec.Workload,
        stream: str = "",
        *,
        tokens_per_word: float = 1.0,
        tokens_fixed: float = 0.0,
    ) -> None:
        self._workload = workload
        self._rng = random.Random(f"{workload.seed}/{stream}")
        self._tokens_per_word = tokens_per_word
        self._tokens_fixed = tokens_fixed
        self._trace: list[TracedRequest] = []
        self._pool: list[Item] = []
        if workload.name == "trace":
            assert workload.dataset is not None, "checked by the spec"
            self._trace = traces.read(workload.dataset)
        elif workload.name != "synthetic":
            self._pool = pool(workload)
        self._drawn = 0

    @property
    def due_s(self) -> list[float]:
        """When the requests of a trace are due, in the order in which they are drawn."""
        return [request.due_s for request in self._trace]

    def draw(self) -> Item:
        """Return the next request."""
        self._drawn += 1
        if self._trace:
            return self._traced(self._trace[self._drawn - 1])
        if self._workload.isl is None:
            item = self._rng.choice(self._pool)
        else:
            item = self._synthetic(self._workload.isl)
        osl = self._workload.osl
        if osl is None:
            return item
        return msgspec.structs.replace(item, max_tokens=osl.draw(self._rng), exact_length=True)

    def _words(self, tokens: int) -> int:
        """Return how many words make a prompt of so many tokens."""
        return max(1, round((tokens - self._tokens_fixed) / self._tokens_per_word))

    def _traced(self, request: TracedRequest) -> Item:
        return Item(
            number=self._drawn - 1,
            prompt=request.prompt or self._prompt_of(request),
            system_prompt=self._workload.system_prompt,
            max_tokens=request.output_tokens or spec.CHAT_OUTPUT_TOKENS,
            exact_length=request.output_tokens is not None,
        )

    def _prompt_of(self, request: TracedRequest) -> str:
        words = self._words(request.input_tokens)
        if not request.blocks:
            return synthetic_text(words, self._rng)
        block_words = max(1, round(request.block_tokens / self._tokens_per_word))
        seed = self._workload.seed
        found: list[str] = []
        for name in request.blocks:
            found += _block(f"{seed}/{name}", block_words)
        # The last block is rarely full, and a trace may name too few of them.
        missing = max(0, words - len(found))
        return " ".join(found[:words] + self._rng.choices(_WORDS, k=missing))

    def _synthetic(self, isl: Lengths) -> Item:
        words = self._words(isl.draw(self._rng))
        return Item(
            number=self._drawn - 1,
            prompt=synthetic_text(words, self._rng),
            system_prompt=self._workload.system_prompt,
            max_tokens=spec.CHAT_OUTPUT_TOKENS,
        )


@lru_cache(maxsize=10_000)
def _block(seed: str, words: int) -> tuple[str, ...]:
    """Return the words of a trace's block: the same for the same seed, whoever asks."""
    return tuple(random.Random(seed).choices(_WORDS, k=words))


def synthetic_text(words: int, rng: random.Random) -> str:
    """Return that many random common words."""
    return " ".join(rng.choices(_WORDS, k=words))


def pool(workload: spec.Workload) -> list[Item]:
    """Return all prompts of a workload that has a fixed set of them.

    Raises:
        UsageError: the file cannot be read, or holds no prompts; says which line and why.
    """
    system_prompt = workload.system_prompt
    if workload.name == "file":
        assert workload.dataset is not None, "checked by the spec"
        rows = dataset.rows(workload.dataset)
        return list(_items_of_file(rows, workload.dataset, system_prompt))
    if workload.name == "chat-system" and not system_prompt:
        system_prompt = _builtin("system_prompt.txt").strip()
    rows = enumerate(map(msgspec.json.decode, _builtin("chat.jsonl").splitlines()), 1)
    return [
        Item(
            number=number - 1,
            prompt=row["prompt"],
            system_prompt=system_prompt,
            max_tokens=spec.CHAT_OUTPUT_TOKENS,
        )
        for number, row in rows
    ]


def _builtin(name: str) -> str:
    return resources.files("llmdyno").joinpath("data", name).read_text(encoding="utf-8")


def _items_of_file(
    rows: Iterator[tuple[int, dataset.Row]], name: str, system_prompt: str
) -> Iterator[Item]:
    count = 0
    for number, row in rows:
        key = next((key for key in _PROMPT_KEYS if isinstance(row.get(key), str)), None)
        if key is None or not row[key].strip():
            raise UsageError(
                f"--dataset {name}, line {number}: has no text under any of"
                f" {', '.join(_PROMPT_KEYS)}."
            )
        prompt = row[key]
        if isinstance(row.get("context"), str) and row["context"].strip():
            prompt = f"{row['context']}\n\n{prompt}"
        yield Item(
            number=count,
            prompt=prompt,
            system_prompt=str(row.get("system_prompt") or system_prompt),
            max_tokens=_length(row, f"--dataset {name}, line {number}"),
        )
        count += 1
    if not count:
        raise UsageError(f"--dataset {name}: holds no prompts.")


def _length(row: Mapping[str, Any], where: str) -> int:
    for key in _LENGTH_KEYS:
        if row.get(key) in {None, ""}:
            continue
        try:
            length = int(row[key])
        except (TypeError, ValueError):
            length = 0
        if length < 1:
            raise UsageError(
                f"{where}: {key} is {row[key]!r}; must be a whole number of at least 1."
            )
        return length
    return spec.CHAT_OUTPUT_TOKENS
