"""What a search remembers, and how it is asked and told: the part that most searches share."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from llmdyno.knobs import Knob, Value
from llmdyno.search.space import Key, Space

_REFUSED_MAX = 300  # points that are refused in a row before a search gives up
_POINTS_MAX = 20_000  # looked through for one that is left


class Told(msgspec.Struct, frozen=True):
    """What came of a point: its value (None: it cannot be served), the worst miss of an SLO."""

    value: float | None
    missed: float = 0.0  # as a share of the limit; met if ≤ 0
    error: float = 0.0  # of the value's logarithm, beside what equal runs are apart


class Memory:
    """What every search keeps: the space, and what it was told.

    Args:
        knobs: those searched.
        trials: how many trials there will be in all.
        maximise: whether larger values are better.
        seed: of the search.
        fixed: values that every config has.
        refuse: says why a config cannot be served, without starting it; None: it may be.
    """

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        trials: int,
        maximise: bool,
        seed: int,
        fixed: Mapping[str, Value],
        refuse: Callable[[Mapping[str, Value]], str | None] | None = None,
    ) -> None:
        self.space = Space(knobs, fixed)
        self.trials = trials
        self.sign = 1.0 if maximise else -1.0
        self.draw = np.random.default_rng(seed)
        self._refuse = refuse
        self._asked: Key | None = None
        self.refused: list[Key] = []
        self.told: dict[Key, Told] = {}  # in the order of telling
        self.reason = ""  # why the last point was proposed, in words for a person

    def start(
        self, config: Mapping[str, Value], value: float, constraints: Mapping[str, float]
    ) -> None:
        """Take the baseline and its result, before the first question."""
        self.told[self.space.key(config)] = Told(value, max(constraints.values(), default=0.0))

    def give(self, config: Mapping[str, Value]) -> None:
        """Take a config that the search did not propose; the next tell() is about it."""
        self._asked = self.space.key(config)

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """Propose a config that has another effect than all `known`; None: the space is used up."""
        taken = {*(self.space.key(config) for config in known), *self.refused}
        for _ in range(_REFUSED_MAX):
            key = self.propose(taken)
            if key is None:
                key = self._any_left(taken)
                self.reason = "one of those that are left"
            if key is None:
                return None
            config = self.space.config(key)
            if self._refuse is None or self._refuse(config) is None:
                self._asked = key
                return config
            self.refused.append(key)
            taken.add(key)
        return None

    def _any_left(self, taken: set[Key]) -> Key | None:
        """Return a point that is left: of a small space the next, of a large one one at random."""
        if self.space.is_small(_POINTS_MAX):
            return next((key for key in self.space.points() if key not in taken), None)
        drawn = (self.space.random(self.draw) for _ in range(_REFUSED_MAX))
        return next((key for key in drawn if key not in taken), None)

    def propose(self, taken: set[Key]) -> Key | None:
        """Return a point that is not taken; None: any that is left."""
        raise NotImplementedError

    def tell(
        self, value: float | None, constraints: Mapping[str, float], error: float = 0.0
    ) -> None:
        """Take the result of the config that was proposed, or given, last.

        Args:
            value: of the objective; None: the config cannot be served.
            constraints: by SLO, how far it was missed as a share of its limit; met if ≤ 0.
            error: of the value's logarithm, of a run that was ended early.
        """
        assert self._asked is not None, "ask first"
        missed = max(constraints.values(), default=0.0)
        self.told[self._asked] = Told(value, missed, error)
        self._asked = None

    def best(self) -> Key:
        """Return the best point that was told; where nothing is set if none was."""

        def rank(key: Key) -> tuple[float, float]:
            told = self.told[key]
            return -max(0.0, told.missed), self.sign * (told.value or 0.0)

        measured = [key for key, told in self.told.items() if told.value is not None]
        return max(measured, key=rank, default=self.space.origin())
