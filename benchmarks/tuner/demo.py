"""How near the winner of `make demo` comes to the best there is: the demo replayed on the grid.

python benchmarks/tuner/demo.py [--seeds 60] [--first 0] [--noise 0.03] [--sampler own,grid]
    [--spread 0.015] [--trials 8]

The search has what `dyno tune --engine openvino --quick` gives it: its knobs with their ranges, its
trials, the prefix cache first, as its prompts repeat, and, row by row, what the guide says of a
bottleneck of the baseline. Between two values of the grid the rate is taken on a straight line
over logarithms. The grid ran on one thread, so the demo's threads are left out, or one of two
costs what the knob's row says. The best is the best config of the grid that the demo could choose.

Most configs with the prefix cache are about as fast, and no mean of two runs tells which is the
best (plateau.py). With --spread, how far they may truly lie apart, each seed draws what they may
be, from what both tables say. With --spread 0 the means of the grid are taken for the truth, and
their luck for speed.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from grid import REPEATS, TABLE, Grid, knobs, name, read, refused
from plateau import Plateau

from llmdyno.cli.flags import QUICK
from llmdyno.engines import openvino
from llmdyno.knobs import Knob, Value
from llmdyno.search.samplers import SAMPLERS
from llmdyno.search.samplers import sampler as made
from llmdyno.search.space import Space
from llmdyno.tune.search import space

TRIALS = int(QUICK["trials"])
THREADS = "INFERENCE_NUM_THREADS"
ONE_THREAD = 774 / 1210  # the rate of one of two threads: see the knob's `trades`
NEAR = 0.95  # of the best: what the winner is to reach
SPREAD = 0.0215  # of configs that are about as fast: at most, as plateau.py found
ASKED_MAX = 60
_NUMBERS = ("max_num_batched_tokens", "max_num_seqs")


class Between:
    """The grid where the demo can choose, and what lies between its values.

    Args:
        grid: with the means of its runs.
        noise: a deviation between equal runs; None: the grid's own.
        plateau: from which draw() takes rates; None: the grid's means are the truth.
        spread: of the plateau's configs, a deviation.
    """

    def __init__(
        self,
        grid: Grid,
        noise: float | None,
        plateau: Plateau | None = None,
        spread: float = SPREAD,
    ) -> None:
        self._truth = dict(grid.truth)
        self._plateau, self._spread = plateau, spread
        self.noise = grid.noise if noise is None else noise  # a deviation between equal runs
        self._space = Space(knobs(), {})
        self._values = {knob.name: sorted(map(float, knob.search)) for knob in knobs()}
        low = min(float(knob.search[0]) for knob in demo_knobs() if knob.name == _NUMBERS[0])
        there = [self._space.config(key) for key in self._space.points()]
        self._there = [
            name(one)
            for one in there
            if "num_kv_blocks" not in one
            and float(one.get(_NUMBERS[0], low)) >= low
            and name(one) in grid.truth
        ]

    @property
    def best(self) -> float:
        """The highest rate of a config of the grid that the demo could choose."""
        return max(self._truth[each] for each in self._there)

    def draw(self, seed: int) -> None:
        """Draw anew how fast the plateau's configs truly are."""
        if self._plateau is not None:
            draw = np.random.default_rng([seed, 96])
            self._truth |= self._plateau.drawn(self._spread, draw)

    def rate(self, config: Mapping[str, Value]) -> float | None:
        """Return a config's rate in tokens a second; None: the grid has none beside it."""
        sides = [self._sides(knob, config) for knob in _NUMBERS]
        total = 0.0
        for values in itertools.product(*sides):
            weight = math.prod(share for _, share in values)
            if not weight:
                continue
            numbers = {knob: int(value) for knob, (value, _) in zip(_NUMBERS, values, strict=True)}
            near = self._space.config(self._space.key({**config, **numbers}))
            found = self._truth.get(name(near))
            if not found:
                return None
            total += weight * math.log(found)
        return math.exp(total) * (ONE_THREAD if config.get(THREADS) == 1 else 1.0)

    def _sides(self, knob: str, config: Mapping[str, Value]) -> list[tuple[float, float]]:
        """Return the grid's values on both sides of a config's, and the share of each."""
        at = float(config.get(knob, 256))  # the default of both
        values = self._values[knob]
        above = min(max(1, int(np.searchsorted(values, at))), len(values) - 1)
        low, high = values[above - 1], values[above]
        share = min(1.0, max(0.0, math.log(at / low) / math.log(high / low)))
        return [(low, 1 - share), (high, share)]


def demo_knobs(*, threads: bool = False) -> list[Knob]:
    """Return the knobs that the demo searches, with or without the threads."""
    found = space(openvino.KNOBS, only=(), allow_altered_output=False, baseline={})
    return [knob for knob in found if threads or knob.name != THREADS]


def turned(bottleneck: str) -> dict[str, Value]:
    """Return which way the guide turns knobs for a bottleneck."""
    return {k.name: turn for k in openvino.KNOBS for when, turn in k.when if when == bottleneck}


def study(
    of: Between, sampler: str, seed: int, bottleneck: str, *, threads: bool, trials: int = TRIALS
) -> float:
    """Replay the demo once; return the rate of what would be confirmed, as a share of the best."""
    noise = np.random.default_rng([seed, 97])
    of.draw(seed)
    search = made(sampler)(
        demo_knobs(threads=threads), trials=trials, maximise=True, seed=seed, fixed={}
    )
    known: list[dict[str, Value]] = [{}]
    ran: list[tuple[dict[str, Value], float]] = []

    def measured(config: dict[str, Value]) -> float | None:
        true = of.rate(config)
        if true is None or refused(config) is not None:
            return None
        value = true * float(np.exp(of.noise * noise.standard_normal()))
        ran.append((config, value))
        return value

    search.start({}, measured({}) or 0.0, {})
    if bottleneck and hasattr(search, "hint"):
        search.hint(turned(bottleneck))
    config: dict[str, Value] | None = dict(REPEATS)
    search.give(REPEATS)
    while config is not None and len(ran) <= trials and len(known) < ASKED_MAX:
        known.append(config)
        search.tell(measured(config), {})
        config = search.ask(known)
    ranks = [value for _, value in ran]
    if hasattr(search, "expected"):
        ranks = search.expected([config for config, _ in ran]) or ranks
    return (of.rate(ran[int(np.argmax(ranks))][0]) or 0.0) / of.best


def main(arguments: Sequence[str]) -> None:
    """Print what the demo's winner would be worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--noise", type=float, help="between equal runs; the grid's own")
    parser.add_argument("--spread", type=float, default=SPREAD, help="of the best configs")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--sampler", default=",".join(SAMPLERS))
    given = parser.parse_args(arguments)
    rows = read(TABLE)
    plateau = Plateau(rows) if given.spread else None
    of = Between(Grid(rows), given.noise, plateau, given.spread)
    seeds = range(given.first, given.first + given.seeds)
    shares = []
    for seed in seeds:
        of.draw(seed)
        shares.append([(of.rate(config) or 0.0) / of.best for config in (REPEATS, {})])
    alone, plain = np.mean(shares, axis=0)
    print(
        f"the defaults make {plain:.2f} of the best, the prefix cache alone {alone:.2f}; equal runs"
    )
    print(f"are {of.noise:.1%} apart; {given.trials} trials\n")
    print("| search | threads | the guide says | median/p10 | worst | within 5 % of the best |")
    print("|---|---|---|---|---|---|")
    arms = [
        (sampler, threads, said)
        for sampler in given.sampler.split(",")
        for threads in ((True, False) if sampler == "own" else (True,))
        for said in (("", "prefill", "queue") if sampler == "own" else ("",))
    ]
    for sampler, threads, said in arms:
        found = np.array(
            [study(of, sampler, seed, said, threads=threads, trials=given.trials) for seed in seeds]
        )
        near = int((found >= NEAR).sum())
        print(
            f"| {sampler} | {'searched' if threads else 'left out'} | {said or 'nothing'} |"
            f" {np.median(found):.3f}/{np.quantile(found, 0.1):.3f} | {found.min():.3f} |"
            f" {near} of {len(found)} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
