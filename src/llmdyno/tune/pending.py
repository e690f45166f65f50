"""A search that is asked while trials are still out.

Any search can be asked so. It is made anew for each question and told all that is known, in the
order in which it came. A trial that is still out is told as what it is believed to become, so that
the next proposal is another one, and looks elsewhere. What was believed is forgotten with the
search: the next one is told what came.
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
        if hasattr(make(seed), "hint"):  # what begins a search looks whether it takes hints
            self.hint = self._take_turns

    def start(self, config: Config, value: float, constraints: Mapping[str, float]) -> None:
        """Take the baseline and its result, for all searches to come."""
        self._start = (config, value, constraints)

    def _take_turns(self, turns: Mapping[str, Value]) -> None:
        self._turns = turns

    def told(self, tried: Sequence[Tried]) -> Searching:
        """Return a search that knows all that came, and nothing of what is out."""
        # With one seed for all, each would draw again what those before it drew.
        search: Any = self._make((self._seed + self._asked) % 2**32)
        if self._start is not None:
            search.start(*self._start)
        if self._turns is not None:
            search.hint(self._turns)
        for one in tried:
            _tell(search, one)
        found: Searching = search
        return found

    def ask(
        self, tried: Sequence[Tried], out: Sequence[Config], known: Sequence[Config]
    ) -> tuple[Config | None, Searching]:
        """Return the next config, None if the space is used up, and the search that proposes it.

        Args:
            tried: what came, in order.
            out: the configs whose trials have not ended.
            known: all configs that are not to be proposed again, those that are out among them.
        """
        search = self.told(tried)
        self._asked += 1
        for believed in [_believed(search, tried, config) for config in out]:
            if believed is not None:
                _assume(search, believed)
        return search.ask(known), search


def _tell(search: Searching, one: Tried) -> None:
    search.give(one.config)
    search.tell(one.value, one.missed, one.error)


def _assume(search: Searching, one: Tried) -> None:
    """Tell what is believed; where a search can tell it from what was measured, as such."""
    assume = getattr(search, "assume", None)
    if assume is None or one.value is None:
        _tell(search, one)
    else:
        assume(one.config, one.value, max(one.missed.values(), default=0.0))


def _believed(search: Searching, tried: Sequence[Tried], config: Config) -> Tried | None:
    """Return what a trial that is out is taken for; None: nothing was measured yet.

    The search ranks it among those that were measured: it is believed to become as the one next to
    it. Where the search has no such opinion, it is believed to be one in the middle.
    """
    measured = [one for one in tried if one.value is not None]
    if not measured:
        return None
    rank = getattr(search, "expected", None)
    ranks = rank([one.config for one in measured] + [config]) if rank is not None else None
    if ranks is None:
        middle = median(one.value or 0.0 for one in measured)
        like = min(measured, key=lambda one: abs((one.value or 0.0) - middle))
    else:
        *others, own = ranks
        near = min(range(len(others)), key=lambda number: abs(others[number] - own))
        like = measured[near]
    return msgspec.structs.replace(like, config=dict(config))
