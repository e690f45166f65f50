"""A search that is asked while trials are still out.

Any search can be asked so. One that can be told what is out without believing it (`assume`) is
kept: it learns each result once. Any other is made anew for each question and told all that is
known. To it a trial that is still out is told as one in the middle, so that the next proposal is
another one. What was believed is forgotten with the search: the next one is told what came.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from llmdyno.knobs import Value
from llmdyno.search.samplers import Searching

Config = Mapping[str, Value]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trial, as a search is told it."""

    config: dict[str, Value]
    value: float | None  # None: it cannot be served
    missed: dict[str, float]  # of each SLO, as Searching.tell() takes it
    error: float = 0.0


class Asking:
    """Asks a search for configs while others are out.

    Args:
        make: makes a search that knows nothing, of a seed.
        seed: of the first one.
        asked: how often one was asked before a stop.
    """

    def __init__(self, make: Callable[[int], Searching], seed: int, *, asked: int = 0) -> None:
        self._make = make
        self._seed = seed
        self._asked = asked
        self._start: tuple[Config, float, Mapping[str, float]] | None = None
        self._turns: Mapping[str, Value] | None = None
        self._kept: Any = None  # a search that can be told more, and what it was told
        self._told: list[Tried] = []
        if hasattr(make(seed), "hint"):  # what begins a search looks whether it takes hints
            self.hint = self._take_turns

    def start(self, config: Config, value: float, constraints: Mapping[str, float]) -> None:
        """Take the baseline and its result, for all searches to come."""
        self._start = (config, value, constraints)
        self._kept = None

    def _take_turns(self, turns: Mapping[str, Value]) -> None:
        self._turns = turns
        self._kept = None

    def told(self, tried: Sequence[Tried]) -> Searching:
        """Return a search that knows all that came, and nothing of what is out."""
        search, told = self._kept, self._told
        if search is None or list(tried[: len(told)]) != told:  # or something was taken back
            search, told = self._made(), []
        for one in tried[len(told) :]:
            search.give(one.config)
            search.tell(one.value, one.missed, one.error)
        if hasattr(search, "assume"):
            search.assume([])
            self._kept, self._told = search, list(tried)
        found: Searching = search
        return found

    def _made(self) -> Any:
        # With one seed for all, each would draw again what those before it drew.
        search: Any = self._make((self._seed + self._asked) % 2**32)
        if self._start is not None:
            search.start(*self._start)
        if self._turns is not None:
            search.hint(self._turns)
        return search

    def ask(
        self, tried: Sequence[Tried], out: Sequence[Config], known: Sequence[Config]
    ) -> tuple[Config | None, Searching]:
        """Return the next config, None if the space is used up, and the search that proposes it.

        Args:
            tried: what came, in order.
            out: the configs whose trials have not ended.
            known: all configs that are not to be proposed again, those that are out among them.
        """
        search: Any = self.told(tried)
        self._asked += 1
        if hasattr(search, "assume"):
            search.assume(out)
        elif middle := _in_the_middle(tried):
            for config in out:
                search.give(config)
                search.tell(middle.value, middle.missed, middle.error)
        return search.ask(known), search


def _in_the_middle(tried: Sequence[Tried]) -> Tried | None:
    """Return the measured trial of the middle value; None: nothing was measured yet."""
    values = {one.value: one for one in tried if one.value is not None}
    if not values:
        return None
    middle = median(values)
    return values[min(values, key=lambda value: abs(value - middle))]
