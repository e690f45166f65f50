"""Points that a search could ask about, what it makes of each, and a climb to better ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from llmdyno.search.space import Floats, Key

_STEPS = 4  # of a climb, at most
_TOPS = 2  # points that a step looks around


class Asked(NamedTuple):
    """Points and what each is worth as a question."""

    keys: list[Key]
    gains: Floats  # by how much the choice is expected to be better once a point is measured
    chances: Floats  # to start
    scores: Floats  # what both make of it: the largest is asked

    def joined(self, other: Self) -> "Asked":
        """Return these points and those of another one."""
        arrays = (np.concatenate(pair) for pair in zip(self[1:], other[1:], strict=True))
        return Asked([*self.keys, *other.keys], *arrays)

    def tops(self, count: int) -> list[Key]:
        """Return the points with the largest scores, the best first."""
        return [self.keys[int(place)] for place in np.argsort(-self.scores)[:count]]


def climbed(
    asked: Asked,
    near: Callable[[Key], Iterable[Key]],
    ask: Callable[[Sequence[Key]], Asked],
    taken: set[Key],
) -> Asked:
    """Return the points with those that a climb from the best of them looked at.

    It ends where nothing around the best is better.

    Args:
        asked: to begin with.
        near: what lies around a point.
        ask: tells of points what they are worth.
        taken: points that may not be asked.
    """
    for _ in range(_STEPS):
        seen = taken.union(asked.keys)
        around = dict.fromkeys(key for top in asked.tops(_TOPS) for key in near(top))
        new = [key for key in around if key not in seen]
        if not new:
            break
        before, asked = asked, asked.joined(ask(new))
        if asked.tops(1) == before.tops(1):
            break
    return asked
