"""How often the interval of a confirmation holds the truth, given how many pairs there were.

    python benchmarks/tuner/intervals.py [--draws 4000] [--rule once,each] [--noise 2,5,10]
                                         [--effects 0,5,10,90] [--louder 1]

Runs are drawn as logarithms: a level, the effect, the noise of a start. Before the pairs the winner
has run twice; it may be louder than the baseline, whose noise is told. The rules:

once   the first three pairs decide how many there will be (results/pairs.py), as in `dyno tune`
each   after each pair all of them decide again, as it did until 30 November 2026
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from simulated import told

from llmdyno.results import pairs
from llmdyno.results.pairs import Run
from llmdyno.results.stats import Spread
from llmdyno.tune.pairs import EFFECT

_ROW_MIN = 20  # intervals of a number of pairs, to be told apart

Rule = Callable[[Sequence[Run], Spread], tuple[int, pairs.Paired]]


class Drawn(NamedTuple):
    """What one confirmation came to."""

    pairs: int
    holds: bool
    found: bool  # whether it is called better


def once(runs: Sequence[Run], before: Spread) -> tuple[int, pairs.Paired]:
    """Return how many pairs there are, and what they show, where the first three decide."""
    noise = pairs.pooled_noise([before, pairs.deciding_spread(runs[: 2 * pairs.DECIDING_PAIRS])])
    count = pairs.pairs_for(EFFECT, noise, decided=True)
    return count, pairs.compared(runs[: 2 * count], decided=True)


def each(runs: Sequence[Run], before: Spread) -> tuple[int, pairs.Paired]:
    """Return the same where all pairs so far decide, after each."""
    for count in range(pairs.PAIRS_MIN, pairs.PAIRS_MAX + 1):
        some = runs[: 2 * count]
        noise = pairs.pooled_noise([before, pairs.residual_spread(some)])
        if count >= pairs.pairs_for(EFFECT, noise):
            break
    return count, pairs.compared(some)


RULES: dict[str, Rule] = {"once": once, "each": each}


def cell(task: tuple[str, float, float, int, float]) -> list[Drawn]:
    """Draw the confirmations of a rule, a noise, an effect and a winner's louder noise."""
    name, noise, effect, draws, louder = task
    draw = np.random.default_rng([int(1000 * noise), int(1000 * effect)])
    arms = [arm for pair in range(pairs.PAIRS_MAX) for arm in pairs.order(pair)]
    truth, made = math.log1p(effect), []
    for _ in range(draws):
        logs = draw.normal(0, np.where(arms, louder * noise, noise)) + truth * np.array(arms)
        before = Spread((louder * noise) ** 2 * draw.chisquare(1), 1.0)
        runs = [Run(at, arms[at], float(log), 0.0) for at, log in enumerate(logs)]
        count, found = RULES[name](runs, before)
        assert found.ci95 is not None
        low, high = found.ci95
        made.append(Drawn(count, low <= math.exp(truth) <= high, low > 1.0))
    return made


def row(found: Sequence[Drawn]) -> str:
    """Return the cells of a row."""
    by_count: dict[int, list[bool]] = defaultdict(list)
    for one in found:
        by_count[one.pairs].append(one.holds)
    each_count = ", ".join(
        f"{count}: {sum(held) / len(held):.1%} of {len(held)}"
        for count, held in sorted(by_count.items())
        if len(held) >= _ROW_MIN
    )
    return " | ".join(
        [
            f"{np.mean([one.pairs for one in found]):.1f}",
            told(sum(one.holds for one in found), len(found)),
            each_count,
            told(sum(one.found for one in found), len(found)),
        ]
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Intervals given how many pairs there were.")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--rule", default="once,each")
    parser.add_argument("--noise", default="2,5,10", help="in percent")
    parser.add_argument("--effects", default="0,5,10,90", help="in percent")
    parser.add_argument("--louder", type=float, default=1.0, help="times, of the winner")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    print("| rule | noise | truth | pairs | it holds the truth | given the pairs | called better |")
    print(f"|{'---|' * 7}")
    asked = [
        (rule, float(noise) / 100, float(effect) / 100, given.draws, given.louder)
        for rule in given.rule.split(",")
        for noise in given.noise.split(",")
        for effect in given.effects.split(",")
    ]
    with ProcessPoolExecutor(given.processes) as pool:
        for task, found in zip(asked, pool.map(cell, asked), strict=True):
            rule, noise, effect, *_ = task
            print(f"| {rule} | {noise:.0%} | +{effect:.0%} | {row(found)} |", flush=True)


if __name__ == "__main__":
    main()
