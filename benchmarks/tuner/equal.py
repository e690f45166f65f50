"""Whole studies of configs that are equally fast, and of one that is 10 % faster.

    python benchmarks/tuner/equal.py [--studies 100] [--truths equal,faster] [--worlds ...]

Each study goes the whole road of `dyno tune` over simulated servers (simulated.py). The pairs are
as many as the plan asks for.

equal     no knob does anything; "better" and "worse" are false alarms
faster    fast=true is 10 % faster; it is found if it is best, and called better
dies      so it is, and it dies in the confirmation; it must be neither
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from simulated import (
    LEVEL_S,
    START_S,
    Draw,
    Drift,
    Simulated,
    Truth,
    World,
    spec,
    standing_in,
    told,
)

from llmdyno.tune.tuner import Tuner

EFFECT = 0.10


def _walk(draw: Draw) -> Drift:
    """Walk 1 % a run, up or down."""
    steps = np.cumsum(draw.normal(0, 0.01, 1000))
    return lambda moment: float(steps[int(moment.at_s / (START_S + LEVEL_S))])


def _steady(draw: Draw) -> Drift:
    """Slow down, or speed up, by 10 % within the first 12 runs of the confirmation."""
    way = draw.choice((-1.0, 1.0))
    return lambda moment: way * math.log(1.1) * min(1.0, moment.confirmed / 12)


def _step(draw: Draw) -> Drift:
    """Slow down by 10 % before one of the first 12 runs of the confirmation."""
    at = draw.integers(1, 12)
    return lambda moment: math.log(0.9) * (moment.confirmed >= at)


def _wave(draw: Draw) -> Drift:
    """Rise and fall by 5 % every ten runs, as a room's temperature does."""
    begin = draw.uniform(0, 2 * math.pi)
    return lambda moment: 0.05 * math.sin(begin + 2 * math.pi * moment.at_s / 300)


WORLDS: Mapping[str, World] = {
    "noise 5 %": World(),
    "quiet": World(start=0.005, inside=0.01),
    "slow walk": World(drift=_walk),
    "10 % slower or faster in the confirmation": World(drift=_steady),
    "10 % slower at once": World(drift=_step),
    "a wave of 5 %": World(drift=_wave),
    "one run of 20 stalls": World(stalls=0.05),
    "quiet, 10 % slower at once": World(start=0.005, inside=0.01, drift=_step),
    "quiet, one run of 20 stalls": World(start=0.005, inside=0.01, stalls=0.05),
}


class Found(NamedTuple):
    """What a study said."""

    word: str
    best: Mapping[str, Any]
    pairs: int
    rejected: int
    ratio: tuple[float, float] | None  # its interval


def truth_of(truth: str, config: Mapping[str, Any], phase: str) -> Truth:
    """Return what a config comes to where that is the truth."""
    fast = bool(config.get("fast"))
    if truth == "dies" and phase == "confirm" and fast:
        return Truth(failure="died")
    return Truth(speed=1 + EFFECT if truth != "equal" and fast else 1.0)


def study(task: tuple[str, str, int, Mapping[str, Any]]) -> Found:
    """Run one study; return what it said."""
    truth, world, seed, asked = task
    simulated = Simulated(partial(truth_of, truth), WORLDS[world], seed)
    with standing_in(simulated) as (folder, narrator):
        document = Tuner(spec({"seed": seed, **asked}), folder, narrator).run()
    confirmation = document["confirmation"]
    interval = confirmation["ratio"].get("token_rate", {}).get("ci95")
    return Found(
        word=confirmation["verdict"],
        best=document["best"]["config"],
        pairs=confirmation["pairs"],
        rejected=len(document["rejected"]),
        ratio=interval and (interval[0], interval[1]),
    )


def row(truth: str, world: str, found: Sequence[Found]) -> str:
    """Return a line of the table."""
    words = [one.word for one in found]
    if truth == "equal":
        count, said = sum(word in {"better", "worse"} for word in words), "called different"
    elif truth == "faster":
        count = sum(one.word == "better" and bool(one.best.get("fast")) for one in found)
        said = "found"
    else:
        count = sum(one.word == "better" or bool(one.best.get("fast")) for one in found)
        said = "called better, or best"
    pairs = np.mean([one.pairs for one in found])
    others = ", ".join(f"{word} {words.count(word)}" for word in sorted(set(words)))
    return f"| {truth} | {world} | {said} {told(count, len(found))} | {pairs:.1f} | {others} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Studies of equal configs, and of one at +10 %.")
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--truths", default="equal,faster,dies")
    parser.add_argument("--worlds", help="numbers of WORLDS from 0 on, with commas; default: all")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--search", default="fast,idle,itl_ms")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    asked = {"trials": given.trials, "search": given.search}
    names = list(WORLDS)
    if given.worlds:
        names = [names[int(number)] for number in given.worlds.split(",")]
    print("| truth | world | what came out | pairs | verdicts |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(given.processes) as pool:
        for truth in given.truths.split(","):
            for world in names:
                seeds = range(given.first, given.first + given.studies)
                found = list(pool.map(study, [(truth, world, seed, asked) for seed in seeds]))
                print(row(truth, world, found), flush=True)


if __name__ == "__main__":
    main()
