"""How trials are shared among combinations."""

import pytest

from llmdyno.tune.rounds import rounds_of, shares, survivors, waves


@pytest.mark.parametrize(
    ("combinations", "rounds"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5)]
)
def test_the_last_round_is_one_combinations_alone(combinations: int, rounds: int) -> None:
    assert rounds_of(combinations) == rounds
    alive = combinations
    for _ in range(rounds - 1):
        assert alive > 1
        alive = survivors(alive)
    assert alive == 1


@pytest.mark.parametrize("combinations", [1, 2, 3, 4, 6, 9, 12])
@pytest.mark.parametrize("trials", [1, 5, 12, 20, 33, 60])
def test_every_trial_is_given_and_the_best_has_most(combinations: int, trials: int) -> None:
    total = [0] * combinations
    left, alive = trials, combinations
    rounds = rounds_of(combinations)
    for number in range(rounds):
        given = shares(left, rounds - number, [1] * alive)
        left -= sum(given)
        assert given == sorted(given, reverse=True)
        for place, more in enumerate(given):
            total[place] += more
        alive = survivors(alive)

    assert left == 0
    assert sum(total) == trials
    assert total == sorted(total, reverse=True)
    assert min(total) >= min(1, trials // combinations)


def test_a_combination_has_all_its_candidates() -> None:
    assert shares(12, 3, [1, 5, 1]) == [1, 5, 1]
    assert shares(12, 1, [1, 5, 1]) == [4, 5, 3]


@pytest.mark.parametrize(
    ("trials", "least", "at_once", "time"),
    [
        (10, [1, 1], 1, 10),  # one at a time: each takes its own
        (10, [1, 1], 4, 4),  # 3 and 2, then 5
        (8, [1, 1], 100, 3),  # each turn takes a trial's time, however many hosts there are
        (6, [1, 1, 1], 2, 6),  # one each, one for two of them, the last for one
        (4, [], 4, 0),
    ],
)
def test_a_turn_takes_as_long_as_its_slowest_trial(
    trials: int, least: list[int], at_once: int, time: int
) -> None:
    assert waves(trials, least, at_once) == time
