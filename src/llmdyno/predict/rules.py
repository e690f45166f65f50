"""What the simulation of a scheduler takes and gives: its rules, what is asked, what happened."""

from collections.abc import Iterable, Sequence

import msgspec

from llmdyno.engines._scheduling import Admission


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler's rules with their limits, see engines/_scheduling.py.

    Attributes:
        whole, interval, wake_s: see there.
        cache_tokens: tokens that the cache holds.
        servers: processes that speak HTTP.
    """

    mixes: bool
    admission: Admission
    plans_ahead: bool
    chunks: bool
    whole: bool = False
    interval: int = 0
    wake_s: float = 0.0
    sequences: int
    tokens: int
    cache_tokens: float
    block: int
    servers: int


class Ask(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        prompt, answer: tokens.
        cached: of the prompt's tokens, how many the prefix cache holds; where there are `blocks`,
            the simulated cache finds out itself.
        blocks: of the prompt and its answer, whole ones only, each an id of all text up to its end:
            equal ids mean equal beginnings. `Rules.block` is their size.
    """

    prompt: int
    cached: int
    answer: int
    blocks: tuple[int, ...] = ()


class Load(msgspec.Struct, frozen=True):
    """What is sent, and when.

    Attributes:
        asks: taken in turn, again from the first when they are used up.
        starts_s: closed loop: when each user sends its first request; open loop: every request.
        closed: each user sends again `think_s` after its answer's end.
        sessions: closed loop: in place of `asks`; users take them in turn, a turn after the answer
            to the one before. When they are used up, nobody asks any more.
    """

    asks: Sequence[Ask]
    starts_s: Sequence[float]
    closed: bool
    duration_s: float
    window_s: float
    think_s: float = 0.01
    sessions: Iterable[Sequence[Ask]] | None = None


class Happened(msgspec.Struct):
    """What the simulation has seen in the window [Load.window_s, Load.duration_s].

    `prompts` and `cached` are the tokens of prompts that were let in, and those of them that the
    prefix cache held.
    """

    tokens: float = 0.0
    ttft_s: list[float] = []
    tpot_s: list[float] = []
    e2e_s: list[float] = []
    busy_s: float = 0.0
    running_s: float = 0.0
    waiting_s: float = 0.0
    host_s: float = 0.0
    steps: float = 0.0
    decodes: float = 0.0
    contexts: float = 0.0
    chunk: float = 0.0
    prompts: float = 0.0
    cached: float = 0.0
    preempted: int = 0
    unfinished: int = 0

    def passed(self, seconds: float, running: int, waiting: int) -> None:
        """Count time of the window that passed with so many requests in and before the server."""
        self.busy_s += seconds
        self.running_s += seconds * running
        self.waiting_s += seconds * waiting

    def stepped(self, steps: float, decodes: int, context: float, chunk: int, new: int) -> None:
        """Count steps: their decodes, context and prompt tokens, and the first tokens they made."""
        self.steps += steps
        self.tokens += steps * (decodes + new)
        self.decodes += steps * decodes
        self.contexts += steps * context
        self.chunk += steps * chunk
