"""Compare the searches on known functions, at equal numbers of trials; print tables.

python benchmarks/tuner/run.py [--seeds 50] [--sampler own,tpe] [--family flat,near] [--trials 8,15]
                                [--write FILE] [--against FILE]

`--family in-view`, the default, are the twelve that constants were chosen on; `held-out` the four
that none was, `queues` two more; `wide` four of seven to nine knobs. `--write` keeps what each
study chose; `--against` such a file of another version prints the differences of the same studies,
seed by seed, with 95 % intervals.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from functions import FAMILIES, make
from held_out import HELD_OUT
from memory import MEMORY
from parts import NOISE, Floats
from queues import QUEUES
from wide import WIDE

from llmdyno.search.samplers import SAMPLERS
from llmdyno.search.samplers import sampler as made

TRIALS = (8, 15, 30)
GROUPS = {
    "in-view": FAMILIES,
    "memory": MEMORY,
    "held-out": HELD_OUT,
    "queues": QUEUES,
    "wide": WIDE,
}
Chosen = dict[str, dict[str, list[float]]]  # by sampler and trials, then family: a value a seed


def study(sampler: str, family: str, seed: int, counts: Sequence[int]) -> list[dict[str, float]]:
    """Search one function once; the baseline is told first, and is not among the trials.

    Returns:
        After each of so many trials `chosen`: the chosen config's true value, as a share of the
        best there is; `failed`: the share of trials that did not start; `ask_ms`: CPU time a
        question, the most.
    """
    function = make(family, seed)
    noise = np.random.default_rng([seed, 99])
    search = made(sampler)(function.knobs, trials=max(counts), maximise=True, seed=seed, fixed={})
    measured: list[tuple[float, dict[str, Any]]] = []
    known: list[dict[str, Any]] = []
    found = []
    slowest_s = 0.0

    def measure(config: dict[str, Any]) -> float | None:
        known.append(config)
        value = function.value(config) * (1 + NOISE * noise.standard_normal())
        if value > 0:
            measured.append((value, config))
        return value if value > 0 else None

    search.start({}, measure({}), {})
    for number in range(1, max(counts) + 1):
        began_s = time.process_time()
        config = search.ask(known)
        slowest_s = max(slowest_s, time.process_time() - began_s)
        if config is not None:
            search.tell(measure(config), {})
        if number in counts:
            chosen = function.value(choice(search, measured)) / function.best
            failed = (len(known) - len(measured)) / number
            found.append({"chosen": chosen, "failed": failed, "ask_ms": 1000 * slowest_s})
    return found


def choice(search: Any, measured: Sequence[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Return the config that would be confirmed: of a search with a model, the best by it."""
    configs = [config for _, config in measured]
    ranks = [value for value, _ in measured]
    if hasattr(search, "expected"):  # of a copy: what it is asked here moves its chance on
        ranks = copy.deepcopy(search).expected(configs) or ranks
    return configs[int(np.argmax(ranks))]


def _one(task: tuple[str, str, int, Sequence[int]]) -> list[dict[str, float]]:
    return study(*task)


def _studies(sampler: str, counts: Sequence[int]) -> list[list[int]]:
    """Return the numbers of trials that one study of a search can show.

    TPE begins as its number of trials says; the others do not look at it.
    """
    return [[count] for count in counts] if sampler == "tpe" else [list(counts)]


def compare(before: Chosen, after: Chosen) -> None:
    """Print what the studies of `after` chose beside the same ones of `before`."""
    draw = np.random.default_rng(0)
    print("\n| sampler, trials | mean | median | 10th percentile |")
    print("|---|---|---|---|")
    for name in [name for name in after if name in before]:
        pairs = np.array([[before[name][family], after[name][family]] for family in after[name]])
        seeds = pairs.shape[2]
        again = draw.integers(0, seeds, (2000, seeds))
        cells = []
        for of in (np.mean, np.median, lambda a: np.quantile(a, 0.1)):
            found = [of(pairs[:, 1, some]) - of(pairs[:, 0, some]) for some in again]
            low, high = np.quantile(found, [0.025, 0.975])
            cells.append(f"{of(pairs[:, 1]) - of(pairs[:, 0]):+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"| {name} | {' | '.join(cells)} |")


def _cells(chosen: Floats, rows: Sequence[dict[str, float]]) -> str:
    """Return a row's cells: median and 10th percentile of each family, of all, what failed."""
    cells = [f"{np.median(row):.2f}/{np.quantile(row, 0.1):.2f}" for row in chosen]
    cells.append(f"{np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f}")
    cells.append(f"{np.mean([one['failed'] for one in rows]):.1%}")
    return " | ".join([*cells, f"{max(one['ask_ms'] for one in rows):.0f} ms"])


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sampler", default=",".join(SAMPLERS))
    parser.add_argument("--family", default="in-view")
    parser.add_argument("--trials", default=",".join(map(str, TRIALS)))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    counts = [int(trials) for trials in given.trials.split(",")]
    families = list(GROUPS.get(given.family, given.family.split(",")))
    kept: Chosen = {}
    heads = " | ".join(families)
    print(f"| trials, search | {heads} | all | failed | slowest question |")
    print(f"|---|{'---|' * (len(families) + 3)}")
    with ProcessPoolExecutor(given.processes) as pool:
        for sampler in given.sampler.split(","):
            for some in _studies(sampler, counts):
                tasks = [
                    (sampler, family, seed, some)
                    for family in families
                    for seed in range(given.first, given.first + given.seeds)
                ]
                found = list(pool.map(_one, tasks, chunksize=4))
                for place, trials in enumerate(some):
                    rows = [one[place] for one in found]
                    chosen = np.array([one["chosen"] for one in rows]).reshape(len(families), -1)
                    kept[f"{sampler}, {trials}"] = dict(zip(families, chosen.tolist(), strict=True))
                    print(f"| {trials}, {sampler} | {_cells(chosen, rows)} |", flush=True)
    if given.write:
        given.write.write_text(json.dumps(kept), "utf-8")
    if given.against:
        compare(json.loads(given.against.read_text("utf-8")), kept)


if __name__ == "__main__":
    main(sys.argv[1:])
