"""What it costs a search to be asked while trials are out: `--parallel`.

python benchmarks/tuner/at_once.py [--seeds 12] [--trials 15,30] [--at-once 1,2,4,8]
                                   [--family in-view] [--write FILE] [--against FILE]

Trials take a random time each and end in their own order. A row has equally many trials; the last
column says in how many rounds of a trial's time they were made. Families, `--write` and `--against`
are as in `run.py`.
"""

import argparse
import heapq
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from functions import make
from parts import NOISE
from run import GROUPS, Chosen, compare

from llmdyno.search.samplers import sampler as made
from llmdyno.tune.pending import Asking, Tried


def study(family: str, seed: int, trials: int, at_once: int) -> tuple[float, float]:
    """Return what the search chose, as a share of the best there is, and how many have failed."""
    function = make(family, seed)
    noise = np.random.default_rng([seed, 99, trials])

    def new(number: int) -> Any:
        return made("own")(function.knobs, trials=trials, maximise=True, seed=number, fixed={})

    def measured(config: dict[str, Any]) -> Tried:
        true = function.value(config)
        value = true * (1 + NOISE * noise.standard_normal()) if true > 0 else None
        return Tried(config=config, value=value, missed={})

    asking = Asking(new, seed)
    asking.start({}, measured({}).value or 0.0, {})
    tried: list[Tried] = []
    out: list[tuple[float, int, dict[str, Any]]] = []  # when each ends
    now = 0.0
    for number in range(trials):
        if len(out) == at_once:
            now, _, config = heapq.heappop(out)
            tried.append(measured(config))
        configs = [config for _, _, config in sorted(out)]
        known = [{}, *(one.config for one in tried), *configs]
        proposed, _ = asking.ask(tried, configs, known)
        if proposed is None:
            break
        heapq.heappush(out, (now + noise.uniform(0.7, 1.3), number, dict(proposed)))
    tried += [measured(config) for _, _, config in sorted(out)]
    starting = [{}, *(one.config for one in tried if one.value is not None)]
    ranks = asking.told(tried).expected(starting)  # type: ignore[attr-defined]
    chosen = function.value(starting[int(np.argmax(ranks))])
    return chosen / function.best, sum(one.value is None for one in tried) / trials


def _one(task: tuple[str, int, int, int]) -> tuple[float, float]:
    return study(*task)


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", default="15,30")
    parser.add_argument("--at-once", default="1,2,4,8")
    parser.add_argument("--family", default="in-view")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds)
    families = list(GROUPS.get(given.family, given.family.split(",")))
    kept: Chosen = {}
    print("| trials | at once | median / p10 of what was chosen | failed | rounds |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(given.processes) as pool:
        for trials in map(int, given.trials.split(",")):
            for at_once in map(int, given.at_once.split(",")):
                tasks = [(family, seed, trials, at_once) for family in families for seed in seeds]
                found = list(pool.map(_one, tasks, chunksize=2))
                chosen = np.array([one[0] for one in found])
                failures = np.array([one[1] for one in found])
                for what, of in (("chosen", chosen), ("failed", failures)):
                    rows = of.reshape(len(families), -1).tolist()
                    name = f"{what}, {trials} at {at_once}"
                    kept[name] = dict(zip(families, rows, strict=True))
                values = f"{np.median(chosen):.3f} / {np.quantile(chosen, 0.1):.3f}"
                rounds = math.ceil(trials / at_once)
                print(
                    f"| {trials} | {at_once} | {values} | {failures.mean():.1%} | {rounds} |",
                    flush=True,
                )
    if given.write:
        given.write.write_text(json.dumps(kept), "utf-8")
    if given.against:
        compare(json.loads(given.against.read_text("utf-8")), kept)


if __name__ == "__main__":
    main(sys.argv[1:])
