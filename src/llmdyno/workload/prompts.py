"""Workloads: what is asked. A spec becomes a seeded source of requests.

The same seed gives the same prompts in the same order, level by level, so that a run before a
change and a run after it ask the same questions.

    chat          short varied prompts of our own, each alone
    chat-system   the same behind a system prompt of about 500 tokens
    synthetic     random common words of the lengths asked for, no two prompts alike
    file          a file's prompts, drawn at random
    sessions      conversations of several turns, each with all that was said before: a file's, or
                  made of our chat prompts behind one system prompt
    trace         prompts of the lengths that a trace has, in its order
"""

import random
from functools import lru_cache
from importlib import resources

import msgspec

from llmdyno import spec
from llmdyno.units import Lengths
from llmdyno.workload import traces
from llmdyno.workload.sessions import Item, Session, sessions_of
from llmdyno.workload.share import Share
from llmdyno.workload.traces import TracedRequest

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


class Prompts:
    """The requests of one level, drawn one after the other.

    Args:
        workload: the spec.
        stream: what distinguishes this sequence of draws, e.g. the level's number of users.
        tokens_per_word: how many tokens the server makes of a word of synthetic text.
        tokens_fixed: tokens that the server adds to every prompt (the chat template).
        share: only these of the sequence; the others are drawn, too, but left out.
    """

    def __init__(
        self,
        workload: spec.Workload,
        stream: str = "",
        *,
        tokens_per_word: float = 1.0,
        tokens_fixed: float = 0.0,
        share: Share | None = None,
    ) -> None:
        self._workload = workload
        self._rng = random.Random(f"{workload.seed}/{stream}")
        self._tokens_per_word = tokens_per_word
        self._tokens_fixed = tokens_fixed
        self._share = share or Share()
        self._given = 0
        self._trace: list[TracedRequest] = []
        self._pool: list[Session] = []
        self._sessions = 0
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
        while self._drawn < self._share.number(self._given):
            self._draw()
        self._given += 1
        return self._draw()

    def _draw(self) -> Item:
        self._drawn += 1
        if self._trace:
            return self._traced(self._trace[self._drawn - 1])
        if self._workload.isl is None:
            item = self._alone(self._rng.choice(self._pool)[0], self._drawn - 1)
        else:
            item = self._synthetic(self._workload.isl)
        return self._with_length(item)

    def draw_session(self) -> Session:
        """Return the turns of the next session; of other workloads, the next request alone."""
        if self._workload.name != "sessions":
            return (self.draw(),)
        while self._sessions < self._share.number(self._given):
            self._draw_session()
        self._given += 1
        return self._draw_session()

    def _draw_session(self) -> Session:
        turns = self._rng.choice(self._pool)
        if self._workload.dataset is None:
            wanted = self._workload.turns.draw(self._rng)
            turns = tuple(
                session[0] for session in self._rng.sample(self._pool, min(wanted, len(self._pool)))
            )
        self._sessions += 1
        turns = (self._alone(turns[0], self._sessions - 1), *turns[1:])
        return tuple(
            msgspec.structs.replace(self._with_length(item), session=self._sessions - 1, turn=turn)
            for turn, item in enumerate(turns)
        )

    def _alone(self, item: Item, number: int) -> Item:
        """Make a prompt unlike all others from its first word on, if that is wanted."""
        if not self._workload.unique:
            return item
        prompt = f"{self._rng.getrandbits(32):08x}: {item.prompt}"
        return msgspec.structs.replace(item, prompt=prompt, number=number)

    def _with_length(self, item: Item) -> Item:
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


class Conversation:
    """One user's way through sessions, turn by turn."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._coming: list[Item] = []
        self._said: list[tuple[str, str]] = []
        self._asked = ""

    def ask(self) -> Item:
        """Return the next turn with all that was said before, or the first of a new session."""
        if not self._coming:
            self._coming = list(self._prompts.draw_session())
            self._said = []
        item = self._coming.pop(0)
        self._asked = item.prompt
        return msgspec.structs.replace(item, history=tuple(self._said)) if self._said else item

    def hear(self, answer: str) -> None:
        """Take in the answer; without one there is nothing to go on from: the session is over."""
        if answer:
            self._said.append((self._asked, answer))
        else:
            self._coming = []


@lru_cache(maxsize=10_000)
def _block(seed: str, words: int) -> tuple[str, ...]:
    """Return the words of a trace's block: the same for the same seed, whoever asks."""
    return tuple(random.Random(seed).choices(_WORDS, k=words))


def synthetic_text(words: int, rng: random.Random) -> str:
    """Return that many random common words."""
    return " ".join(rng.choices(_WORDS, k=words))


def pool(workload: spec.Workload) -> list[Session]:
    """Return all sessions of a workload that has a fixed set of them; most are of one prompt.

    Raises:
        UsageError: the file cannot be read, or holds no prompts; says which line and why.
    """
    system_prompt = workload.system_prompt
    if workload.dataset is not None:
        return sessions_of(workload.dataset, system_prompt, own_lengths=workload.dataset_osl)
    if workload.name in {"chat-system", "sessions"} and not system_prompt:
        system_prompt = _builtin("system_prompt.txt").strip()
    rows = enumerate(map(msgspec.json.decode, _builtin("chat.jsonl").splitlines()), 1)
    return [
        (
            Item(
                number=number - 1,
                prompt=row["prompt"],
                system_prompt=system_prompt,
                max_tokens=spec.CHAT_OUTPUT_TOKENS,
            ),
        )
        for number, row in rows
    ]


def _builtin(name: str) -> str:
    return resources.files("llmdyno.workload").joinpath("data", name).read_text(encoding="utf-8")
