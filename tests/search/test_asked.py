"""A climb among the points that a search could ask about."""

from collections.abc import Iterator, Sequence

import numpy as np

from llmdyno.search.asked import Asked, climbed
from llmdyno.search.space import Key

BEST = (3, 3, 2)


def ask(keys: Sequence[Key]) -> Asked:
    scores = np.array(
        [-sum(abs(float(a or 0) - b) for a, b in zip(key, BEST, strict=True)) for key in keys]
    )
    return Asked(list(keys), scores * 2, np.ones(len(keys)), scores)


def beside(key: Key) -> Iterator[Key]:
    for axis in range(len(key)):
        for level in range(5):
            yield (*key[:axis], level, *key[axis + 1 :])


def test_a_climb_finds_what_was_not_drawn() -> None:
    found = climbed(ask([(0, 0, 0), (1, 0, 0)]), beside, ask, set())
    assert found.tops(1) == [BEST]
    assert len(set(found.keys)) == len(found.keys) == len(found.scores) == len(found.gains)


def test_a_climb_goes_round_what_is_taken() -> None:
    found = climbed(ask([(0, 0, 0)]), beside, ask, {BEST})
    assert BEST not in found.keys
    assert found.scores.max() == -1


def test_a_climb_ends_where_all_around_was_looked_at() -> None:
    asked: list[Key] = []

    def counted(keys: Sequence[Key]) -> Asked:
        asked.extend(keys)
        return ask(keys)

    every = [(a, b, c) for a in range(5) for b in range(5) for c in range(5)]
    assert climbed(ask(every), beside, counted, set()).keys == every
    assert asked == []


def test_a_climb_ends_where_nothing_around_is_better() -> None:
    calls: list[int] = []

    def counted(keys: Sequence[Key]) -> Asked:
        calls.append(len(keys))
        return ask(keys)

    assert climbed(ask([BEST, (0, 0, 0)]), beside, counted, set()).tops(1) == [BEST]
    assert len(calls) == 1
