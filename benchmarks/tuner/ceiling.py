"""What holds our own search back: the same studies with one burden after the other taken away.

python benchmarks/tuner/ceiling.py [--seeds 24] [--first 10000] [--family in-view] [--less ,noise]
                                    [--write FILE]

Burdens, joined by "+": `noise` (measurements are exact, and the model knows it), `failures` (the
search knows what starts), `weights` (the model knows how much each knob matters and over what
distance, learnt beforehand from 100 points that it is not told; where it has a shape, its losses
and plateaus, too, which say much of the values). "seen" is the truly best of the configs that were
measured: what a choice without error would have taken. One study of 30 trials gives the choice
after 8, 15 and 30; a study's noise is the same with every burden. `--write` keeps a line a study,
and goes on where such a file ends.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from functions import make
from parts import NOISE, Floats, Function
from run import GROUPS, TRIALS

from llmdyno.search import model
from llmdyno.search.model import Model
from llmdyno.search.own import OwnSearch
from llmdyno.search.points import Points
from llmdyno.search.simple import random_point

LESS = (
    "",
    "noise",
    "failures",
    "noise+failures",
    "noise+failures+weights",
)
_NOISE, _STEPS, _STEPS_OF_SHAPE = model._NOISE, model._STEPS, model._STEPS_OF_SHAPE
_EXACT = 0.001  # what the model takes for noise where there is none
_LEARNT_FROM = 100  # points that the weights are learnt from
_LEARNT_STEPS = 80


class KnownFailures:
    """Takes the place of what is inferred of failures: it knows."""

    def __init__(self, search: OwnSearch, function: Function) -> None:
        self._starts: Callable[[Any], bool] = lambda key: (
            function.value(search.space.config(key)) > 0
        )

    def fit(self, started: Points, failed: Points) -> None:
        """Learn nothing."""

    def risk(self, points: Points) -> Floats:
        """Return 1 for each point that does not start, 0 for the others."""
        return np.array([0.0 if self._starts(key) else 1.0 for key in points.keys])

    def shared(self, points: Points, others: Sequence[Points]) -> list[Floats]:
        """Return, by other point, 1 for each point that does not start where it does not either."""
        return [self.risk(points) * self.risk(one) for one in others]


def _starting(search: OwnSearch, function: Function, count: int, seed: int) -> list[Any]:
    """Return random points that start."""
    draw = np.random.default_rng([seed, 97])
    found: dict[Any, None] = {}
    for _ in range(20 * count):
        key = random_point(search.space, draw, set(found))
        if key is not None and function.value(search.space.config(key)) > 0:
            found[key] = None
        if len(found) == count:
            break
    return list(found)


def _teach(search: OwnSearch, function: Function, seed: int, exact: float | None) -> None:
    """Let the search's model know its weights and lengths, and nothing of the values.

    Args:
        search: whose model is taught.
        function: that it searches.
        seed: of the points.
        exact: what the model is to take for noise; None: what it takes anyway.
    """
    teacher = OwnSearch(function.knobs, trials=1, maximise=True, seed=seed, fixed={})
    for key in _starting(teacher, function, _LEARNT_FROM, seed):
        teacher.give(teacher.space.config(key))
        teacher.tell(function.value(teacher.space.config(key)), {})
    before = model._STEPS_AT_FIRST, model._STEPS_OF_SHAPE
    model._STEPS_AT_FIRST, model._STEPS_OF_SHAPE = _LEARNT_STEPS, (_LEARNT_STEPS, 0)
    teacher.expected([{}])
    model._STEPS_AT_FIRST, model._STEPS_OF_SHAPE = before
    for taught, learner in zip(teacher._model.models, search._model.models, strict=True):
        assert isinstance(taught, Model)
        assert isinstance(learner, Model)
        guesses = taught._guesses
        assert guesses is not None
        guesses[:, -1] = np.log(NOISE if exact is None else exact)
        learner._guesses = guesses


def study(family: str, seed: int, less: str) -> dict[str, list[Any]]:
    """Search one function once.

    Returns:
        `chosen`: after 8, 15 and 30 trials, as shares of the best there is; `seen`: the best of
        what was measured, likewise; `failed`: the share of the trials that did not start;
        `tried`: each trial's config, measured value and true share of the best.
    """
    off = set(filter(None, less.split("+")))
    function = make(family, seed)
    noise = np.random.default_rng([seed, 96]).standard_normal(TRIALS[-1] + 1)
    model._NOISE = _EXACT if "noise" in off else _NOISE
    model._STEPS = 0 if "weights" in off else _STEPS
    model._STEPS_OF_SHAPE = (0, 0) if "weights" in off else _STEPS_OF_SHAPE
    search = OwnSearch(function.knobs, trials=TRIALS[-1], maximise=True, seed=seed, fixed={})
    if "failures" in off:
        search._feasibility = KnownFailures(search, function)  # type: ignore[assignment]
    if "weights" in off:
        _teach(search, function, seed, _EXACT if "noise" in off else None)

    def measure(config: dict[str, Any], number: int) -> float | None:
        true = function.value(config)
        size = 0.0 if "noise" in off else NOISE
        return true * (1 + size * noise[number]) if true > 0 else None

    first = measure({}, 0)
    assert first is not None
    search.start({}, first, {})
    known: list[dict[str, Any]] = [{}]
    failures = 0
    found: dict[str, list[Any]] = {"chosen": [], "seen": [], "failed": [], "tried": []}
    for number in range(1, TRIALS[-1] + 1):
        config = search.ask(known)
        if config is not None:  # else the space is used up
            known.append(config)
            value = measure(config, number)
            found["tried"].append([config, value, function.value(config) / function.best])
            failures += value is None
            search.tell(value, {})
        if number in TRIALS:
            starting = [one for one in known if function.value(one) > 0]
            values = np.array([function.value(one) for one in starting]) / function.best
            ranks = search.expected(starting)
            assert ranks is not None
            found["chosen"].append(values[int(np.argmax(ranks))])
            found["seen"].append(values.max())
            found["failed"].append(failures / number)
    return found


def _one(task: tuple[str, str, int]) -> dict[str, Any]:
    less, family, seed = task
    return {"less": less, "family": family, "seed": seed, **study(family, seed, less)}


def row(name: str, found: Floats, before: Floats | None) -> str:
    """Return a row of the table: after each number of trials median/p10, the mean's difference.

    Its 95 % interval is a bootstrap over the studies.

    Args:
        name: of the row.
        found: shares of the best, by seed, family and number of trials.
        before: the same of what it is compared with; None: nothing.
    """
    draw, cells = np.random.default_rng(0), [name]
    for place in range(len(TRIALS)):
        here = found[:, :, place]
        cell = f"{np.median(here):.3f}/{np.quantile(here, 0.1):.3f}"
        if before is not None:
            apart = (here - before[:, :, place]).ravel()
            again = draw.choice(apart, (4000, len(apart))).mean(1)
            low, high = np.quantile(again, [0.025, 0.975])
            cell += f" {apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        cells.append(cell)
    return " | ".join(cells)


def table(studies: Sequence[dict[str, Any]], families: Sequence[str], *, each: bool) -> None:
    """Print a row a set of burdens, from the seeds of which there are all studies.

    Args:
        studies: as a line of the file each.
        families: of the table.
        each: whether a row a family follows.
    """
    known = {(one["less"], one["family"], one["seed"]): one for one in studies}
    sets = list(dict.fromkeys(one["less"] for one in studies))
    seeds = sorted({one["seed"] for one in studies})
    whole = [s for s in seeds if all((x, f, s) in known for x in sets for f in families)]
    print(f"| without ({len(whole)} seeds) | 8 trials | 15 | 30 | failed |\n|---|---|---|---|---|")
    if not whole:
        return

    def values(less: str, what: str, some: Sequence[str] = families) -> Floats:
        return np.array([[known[less, f, seed][what] for f in some] for seed in whole])

    base = values(sets[0], "chosen")
    for less in sets:
        failed = " · ".join(f"{100 * one:.0f}" for one in values(less, "failed").mean((0, 1)))
        before = None if less == sets[0] else base
        print(f"| {row(less or 'nothing', values(less, 'chosen'), before)} | {failed} % |")
        print(f"| ... {row('seen', values(less, 'seen'), values(less, 'chosen'))} | |")
        for family in families if each else ():
            print(f"| {row(family, values(less, 'chosen', [family]), None)} | |", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--first", type=int, default=10000)
    parser.add_argument("--family", default="in-view")
    parser.add_argument("--less", default=",".join(LESS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    families = list(GROUPS.get(given.family, given.family.split(",")))
    found: list[dict[str, Any]] = []
    if given.write and given.write.exists():
        found = [json.loads(line) for line in given.write.read_text("utf-8").splitlines()]
    done = {(one["less"], one["family"], one["seed"]) for one in found}
    every = itertools.product(range(given.first, given.first + given.seeds), families)
    tasks = [(less, family, seed) for seed, family in every for less in given.less.split(",")]
    with ProcessPoolExecutor(given.processes) as pool:
        for one in pool.map(_one, [task for task in tasks if task not in done]):
            found.append(one)
            if given.write:
                with given.write.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
    table(found, families, each=given.each)


if __name__ == "__main__":
    main(sys.argv[1:])
