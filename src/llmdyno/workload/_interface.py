"""The interface of a workload, and what it draws with. Plug-ins import it from the package."""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from llmdyno.spec import Workload as WorkloadSpec
from llmdyno.workload.sessions import Session


class Draws(msgspec.Struct, frozen=True, kw_only=True):
    """What the prompts of one level are drawn with.

    Every random choice is made with `rng`: the same seed then gives the same prompts.
    """

    rng: random.Random
    tokens_per_word: float = 1.0  # tokens that the server makes of a word of synthetic text
    tokens_fixed: float = 0.0  # tokens that the server adds to every prompt (its chat template)

    def words(self, tokens: int) -> int:
        """Return how many words make a prompt of so many tokens, at least one."""
        return max(1, round((tokens - self.tokens_fixed) / self.tokens_per_word))


class Workload(Protocol):
    """The interface of a workload: these members are required.

    Nine more are optional; `llmdyno.workload` reads them, with these defaults.

    `takes: frozenset[str]`
        Which of the spec's fields "isl", "dataset", "dataset_osl", "unique" and "prefix_share" mean
        something to it. The others are refused. The default is none.
    `implied_by: str`
        The field of the spec that chooses this workload when the user names none. The default is
        none.
    `in_turns: bool`
        Whether a turn follows the answer to the turn before, so that users are needed and arrivals
        at a rate are refused. The default is False: a session is one request.
    `due_s(spec: WorkloadSpec) -> list[float]`
        When each request is due, in seconds from the first, in the order of `sessions`. A workload
        that has it goes with `--arrival trace` and with no other.
    `calibrates: bool`
        Whether it makes prompts of a wanted number of tokens, so that the server is asked first
        how many tokens it makes of a word (`Draws.tokens_per_word`). The default is False.
    `repeats: bool | None`
        Whether a later level asks the same prompts again. The default is None: nobody can say how
        much of a prompt a prefix cache knows already.
    `shares_prefix: bool`
        Whether all prompts begin alike even without `--system-prompt`. The default is False.
    `notes(spec: WorkloadSpec) -> list[str]`
        What of its data set no request carries, a sentence a kind; said once before the run. The
        default is none.
    `alike_on_purpose: bool`
        Whether prompts begin alike because those of real users do, so that hits of a prefix cache
        are part of what is measured and no reason for doubt. The default is False.
    """

    name: str

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse a spec that this workload cannot be drawn from, a file that cannot be read, too.

        Raises:
            UsageError: names the field, its value and what would be right.
        """

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return the sessions of a level, one after the other; a lone prompt is one of one turn.

        It is called before the level begins, so what must be read is read in this call and not at
        the first draw. `--unique`, `--osl` and the numbers of sessions and turns are added after
        it.
        """


def drawn_from(pool: Sequence[Session], draws: Draws) -> Iterator[Session]:
    """Yield sessions of a pool at random, without end; each may come again at once."""
    while True:
        yield draws.rng.choice(pool)
