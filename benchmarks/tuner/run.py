"""Compare the searches on known functions, at equal numbers of trials; print tables.

python benchmarks/tuner/run.py [--seeds 50] [--sampler own,tpe] [--family flat,near] [--trials 8,15]
                                [--write FILE] [--against FILE]

`--family in-view`, the default, are the twelve that constants were chosen on; `held-out` the four
that none was, `queues` two more. `--write` keeps what each study chose; `--against` such a file of
another version prints the differences of the same studies, seed by seed, with 95 % intervals.
"""

import argparse
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
from parts import NOISE
from queues import QUEUES

from llmdyno.search.samplers import SAMPLERS
from llmdyno.search.samplers import sampler as made

TRIALS = (8, 15, 30)
GROUPS = {"in-view": FAMILIES, "memory": MEMORY, "held-out": HELD_OUT, "queues": QUEUES}
Chosen = dict[str, dict[str, list[float]]]  # by sampler and trials, then family: a value a seed


def study(sampler: str, family: str, seed: int, trials: int) -> dict[str, float]:
    """Search one function once; the baseline is told first, and is not among the trials.

    Returns:
        `chosen`: the best measured config's true value, as a share of the best there is;
        `failed`: the share of trials that did not start; `ask_ms`: CPU time a question, the most.
    """
    function = make(family, seed)
    noise = np.random.default_rng([seed, 99, trials])
    search = made(sampler)(function.knobs, trials=trials, maximise=True, seed=seed, fixed={})
    measured: list[tuple[float, float]] = []  # what was measured, what is true
    known: list[dict[str, Any]] = []
    failed, slowest_s = 0, 0.0

    def measure(config: dict[str, Any]) -> float | None:
        known.append(config)
        true = function.value(config)
        value = true * (1 + NOISE * noise.standard_normal()) if true > 0 else None
        if value is not None:
            measured.append((value, true))
        return value

    search.start({}, measure({}), {})
    for _ in range(trials):
        began_s = time.process_time()
        config = search.ask(known)
        slowest_s = max(slowest_s, time.process_time() - began_s)
        if config is None:
            break
        value = measure(config)
        failed += value is None
        search.tell(value, {})
    starting = [config for config in known if function.value(config) > 0]
    ranks = search.expected(starting) if hasattr(search, "expected") else None
    chosen = max(measured)[1]
    if ranks is not None:
        chosen = function.value(starting[int(np.argmax(ranks))])
    return {
        "chosen": chosen / function.best,
        "luckiest": max(measured)[1] / function.best,
        "seen": max(true for _, true in measured) / function.best,
        "failed": failed / trials,
        "ask_ms": 1000 * slowest_s,
    }


def _one(task: tuple[str, str, int, int]) -> dict[str, float]:
    return study(*task)


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
    with ProcessPoolExecutor(given.processes) as pool:
        for trials in counts:
            print(f"\n| {trials} trials | {' | '.join(families)} | all | failed | slowest ask |")
            print(f"|---|{'---|' * (len(families) + 3)}")
            for sampler in given.sampler.split(","):
                tasks = [
                    (sampler, family, seed, trials)
                    for family in families
                    for seed in range(given.first, given.first + given.seeds)
                ]
                found = list(pool.map(_one, tasks, chunksize=4))
                chosen = np.array([one["chosen"] for one in found]).reshape(len(families), -1)
                kept[f"{sampler}, {trials}"] = dict(zip(families, chosen.tolist(), strict=True))
                cells = [f"{np.median(row):.2f}/{np.quantile(row, 0.1):.2f}" for row in chosen]
                share = np.mean([one["failed"] for one in found])
                slowest = max(one["ask_ms"] for one in found)
                whole = f"{np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f}"
                print(
                    f"| {sampler} | {' | '.join(cells)} | {whole} | {share:.0%} |"
                    f" {slowest:.0f} ms |",
                    flush=True,
                )
    if given.write:
        given.write.write_text(json.dumps(kept), "utf-8")
    if given.against:
        compare(json.loads(given.against.read_text("utf-8")), kept)


if __name__ == "__main__":
    main(sys.argv[1:])
