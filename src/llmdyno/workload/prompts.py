"""The requests of one level: a spec becomes a seeded source of them.

The same seed gives the same prompts in the same order, level by level, so that a run before a
change and a run after it ask the same questions. The workload (kinds/) draws the prompts; this
module deals them out to the workers and adds what any workload may have: `--unique`, `--osl` and
`--max-tokens`.
"""

import random

import msgspec

from llmdyno import workload
from llmdyno.spec import CHAT_OUTPUT_TOKENS, Workload
from llmdyno.workload._interface import Draws
from llmdyno.workload.sessions import Item, Session
from llmdyno.workload.share import Share


class Prompts:
    """The requests of one level, drawn one after the other.

    Args:
        spec: what is asked.
        stream: what distinguishes this sequence of draws, e.g. the level's number of users.
        tokens_per_word: how many tokens the server makes of a word of synthetic text.
        tokens_fixed: how many tokens the server adds to every prompt (its chat template).
        share: only these of the sequence; the others are drawn, too, but left out.

    Raises:
        UsageError: there is no such workload, or its file cannot be read.
    """

    def __init__(
        self,
        spec: Workload,
        stream: str = "",
        *,
        tokens_per_word: float = 1.0,
        tokens_fixed: float = 0.0,
        share: Share | None = None,
    ) -> None:
        self._spec = spec
        self._workload = workload.load(spec.name)
        self._in_turns = workload.in_turns(self._workload)
        self._rng = random.Random(f"{spec.seed}/{stream}")
        self._sessions = self._workload.sessions(
            spec, Draws(rng=self._rng, tokens_per_word=tokens_per_word, tokens_fixed=tokens_fixed)
        )
        self._share = share or Share()
        self._drawn = 0  # of the whole sequence
        self._given = 0  # of our share

    @property
    def hashed(self) -> bool:
        """Whether records say with hashes how each prompt begins: see records/prefixes.py."""
        return self._in_turns or workload.alike_on_purpose(self._workload)

    @property
    def due_s(self) -> list[float]:
        """When the requests of a workload with times of its own are due, in the order of draws."""
        return workload.due_s(self._workload, self._spec)

    def draw(self) -> Item:
        """Return the next request that stands alone; of a session its first turn."""
        return self.draw_session()[0]

    def draw_session(self) -> Session:
        """Return the turns of the next session; most workloads have sessions of one turn."""
        while self._drawn < self._share.number(self._given):
            self._draw()
        self._given += 1
        return self._draw()

    def _draw(self) -> Session:
        turns = next(self._sessions)
        number = self._drawn
        self._drawn += 1
        if self._spec.unique:
            turns = (self._unlike_others(turns[0], number), *turns[1:])
        turns = tuple(self._with_length(item) for item in turns)
        if not self._in_turns:
            return turns
        return tuple(
            msgspec.structs.replace(item, session=number, turn=turn)
            for turn, item in enumerate(turns)
        )

    def _unlike_others(self, item: Item, number: int) -> Item:
        """Begin a prompt with a random number, so that no prefix cache knows it."""
        prompt = f"{self._rng.getrandbits(32):08x}: {item.prompt}"
        return msgspec.structs.replace(item, prompt=prompt, number=number)

    def _with_length(self, item: Item) -> Item:
        osl, most = self._spec.osl, self._spec.max_tokens
        if most is not None:
            # A length of the data set's own stays, if it is shorter.
            own = item.max_tokens if item.max_tokens != CHAT_OUTPUT_TOKENS else None
            return msgspec.structs.replace(
                item, max_tokens=min(own or most, most), exact_length=False
            )
        if osl is None:
            return item
        return msgspec.structs.replace(item, max_tokens=osl.draw(self._rng), exact_length=True)


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
        if item.history or not self._said:  # one that the data set has recorded goes before
            return item
        return msgspec.structs.replace(item, history=tuple(self._said))

    def hear(self, answer: str) -> None:
        """Note the model's answer; an empty one ends the session, for no turn could follow it."""
        if answer:
            self._said.append((self._asked, answer))
        else:
            self._coming = []
