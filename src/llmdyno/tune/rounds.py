"""How trials are shared among combinations: successive halving.

In the first round every combination has its share. After each round the better half goes on, and
shares what the next round has; the last round is the best one's alone. Each round has about as many
trials as the one before, so that what is promising gets more and more of them.
"""

from collections.abc import Sequence
from math import ceil, log2


def rounds_of(combinations: int) -> int:
    """Return how many rounds there are until one combination is left, its own included."""
    return 1 + ceil(log2(combinations)) if combinations > 1 else 1


def survivors(alive: int) -> int:
    """Return how many combinations go on after a round."""
    return ceil(alive / 2)


def shares(trials: int, rounds: int, least: Sequence[int]) -> list[int]:
    """Return how many trials each combination has in the next round, the most promising first.

    Args:
        trials: that are left.
        rounds: that are left, the next one included.
        least: what each has at least, in the same order.
    """
    pool = trials if rounds == 1 else max(trials // rounds, min(trials, sum(least)))
    given = list(least)
    while sum(given) > trials:  # fewer are left than combinations: the most promising have them
        given[max(at for at, share in enumerate(given) if share)] -= 1
    while sum(given) < pool:
        given[given.index(min(given))] += 1
    return given


def waves(trials: int, least: Sequence[int], at_once: int) -> int:
    """Return how many trials' time the rounds take where one combination has its turn at a time.

    A round of a combination waits for its slowest trial, so the last of its hosts may stand idle.

    Args:
        trials: that all have together.
        least: what each combination has at least, the most promising first.
        at_once: how many of a combination's trials run at once.
    """
    rounds, alive, left, count = rounds_of(len(least)), list(least), trials, 0
    for number in range(rounds if least else 0):
        given = shares(left, rounds - number, alive)
        count += sum(ceil(share / at_once) for share in given)
        left -= sum(given)
        alive = [1] * survivors(len(alive))
    return count
