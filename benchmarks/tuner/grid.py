"""A grid of the embedded engine, measured once: what the searches find of it, at what cost.

python benchmarks/tuner/grid.py measure [benchmarks/tuner/grid.csv] [--seconds 4]
python benchmarks/tuner/grid.py replay [benchmarks/tuner/grid.csv] [--seeds 50] [--cost 0.05]

`measure` runs the engine as benchmarks/predictor/embedded.py does, without HTTP, on one thread and
by the clock of CPU time, each config in a process of its own, in a random order. The defaults run
again after every few configs, so that a drift of the machine is seen; the best forty run once more
at the end, and the best twelve of those. It goes on where a table ends.

`replay` lets each search choose among the configs of the table, as `dyno tune --search` with these
values would, until a share of the grid's cost is spent. A config costs what its start and its run
took, and the defaults, which are told first, cost too.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from llmdyno.engines import openvino
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.search.samplers import SAMPLERS
from llmdyno.search.samplers import sampler as made
from llmdyno.search.space import Space
from llmdyno.tune.search import space

TABLE = Path(__file__).with_suffix(".csv")
USERS, SHARED, OWN, ANSWER = 32, 192, 64, 48  # tokens that a prompt shares, and has alone
PREFIXES = 4
SEARCHED = (
    "max_num_batched_tokens=16/32/64/128/256/512/1024/4096",
    "dynamic_split_fuse",
    "max_num_seqs=8/16/32/64/256",
    "enable_prefix_caching",
    "num_kv_blocks=0/8/64/128/256/512",
)
BASELINE_EVERY = 12
HANG_S = 120.0
BEST = (40, 12)  # so many run once more, and so many of them once more after that
_FIELDS = ("why", "config", "token_rate", "start_s", "run_s", "failure")
WANTED = 0.97  # of the best
REFUSED_MAX = 200
REPEATS: dict[str, Value] = {"enable_prefix_caching": True}  # what is tried if prompts repeat


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One config that ran, or did not."""

    why: str  # baseline, grid or again
    config: dict[str, Value]
    token_rate: float  # 0.0: it did not start, or refused a request
    start_s: float  # seconds of wall time: to build the pipeline, and of the run
    run_s: float
    failure: str = ""


def knobs() -> list[Knob]:
    """Return the knobs of the grid with its values."""
    return space(openvino.KNOBS, only=SEARCHED, allow_altered_output=False, baseline={})


def refused(config: Mapping[str, Value]) -> str | None:
    """Return why the engine would refuse a config before it starts; None: it would not."""
    try:
        openvino.OpenVinoEngine().check("tiny", dict(config))
    except UsageError as error:
        return str(error)
    return None


def configs() -> list[dict[str, Value]]:
    """Return all configs of the grid that are not refused, in a random order."""
    whole = Space(knobs(), {})
    found = [whole.config(key) for key in whole.points()]
    found = [config for config in found if refused(config) is None]
    random.Random("grid").shuffle(found)
    return found


def _run(config: dict[str, Value], seconds: float) -> dict[str, Any]:
    """Start the engine in this process and load it; return its rate, or why there is none."""
    sys.path.append(str(Path(__file__).parents[1] / "predictor"))
    import embedded  # it sets how many threads compute, before numpy is loaded

    class Load(embedded.Run):  # type: ignore[misc]
        def prompt(self, user: int) -> list[int]:
            prefix = random.Random(user % PREFIXES)
            shared = [prefix.randrange(3, 4096) for _ in range(SHARED)]
            return shared + [self.rng.randrange(3, 4096) for _ in range(OWN)]

    began_s = started_s = time.monotonic()
    found: dict[str, Any] = {"token_rate": 0.0, "failure": ""}
    try:
        engine = embedded.started(config)
        started_s = time.monotonic()
        done = Load(engine, (USERS, SHARED + OWN, ANSWER), seconds).measure()
        found["token_rate"] = round(done["token_rate"], 1)
    except RuntimeError as error:
        found["failure"] = " ".join(str(error).split())[:200]
    ended_s = time.monotonic()
    started_s = max(started_s, began_s)
    found["start_s"] = round(started_s - began_s, 2)
    found["run_s"] = round(ended_s - started_s, 2)
    return found


def alone(config: dict[str, Value], seconds: float) -> dict[str, Any]:
    """Run a config in a process of its own, which may die of it or hang."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, config, seconds))
    began_s = time.monotonic()
    process.start()
    theirs.close()
    try:
        if ours.poll(HANG_S + 2 * seconds):
            found: dict[str, Any] = ours.recv()
            return found
        failure = "it hangs"
    except EOFError:
        failure = "it died"
    finally:
        process.kill()
        process.join()
    took_s = round(time.monotonic() - began_s, 2)
    return {"token_rate": 0.0, "failure": failure, "start_s": 0.0, "run_s": took_s}


def _send(pipe: Connection, config: dict[str, Value], seconds: float) -> None:
    pipe.send(_run(config, seconds))


def measure(path: Path, seconds: float) -> None:
    """Measure what the table does not hold yet, and append it."""
    rows = read(path) if path.exists() else []
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=_FIELDS, lineterminator="\n")
        if not rows:
            writer.writeheader()

        def one(why: str, config: dict[str, Value]) -> None:
            found = alone(config, seconds)
            writer.writerow({"why": why, "config": json.dumps(config), **found})
            file.flush()
            rows.append(Row(why=why, config=config, **found))
            print(len(rows), rows[-1], file=sys.stderr, flush=True)

        known = [row.config for row in rows if row.why == "grid"]
        for number, config in enumerate(configs()):
            if config in known:
                continue
            if number % BASELINE_EVERY == 0:
                one("baseline", {})
            one("grid", config)
        best = sorted((row for row in rows if row.why == "grid"), key=lambda row: -row.token_rate)
        for times, count in enumerate(BEST, 1):
            again = [row.config for row in best[:count]]
            random.Random(times).shuffle(again)
            for place, config in enumerate(again):
                if sum(row.config == config for row in rows if row.why == "again") >= times:
                    continue
                if place % BASELINE_EVERY == 0:
                    one("baseline", {})
                one("again", config)
            best = sorted(
                (row for row in rows if row.why == "again"), key=lambda row: -row.token_rate
            )


def read(path: Path) -> list[Row]:
    """Return the rows of a table, in the order in which they were measured."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                why=row["why"],
                config=json.loads(row["config"]),
                token_rate=float(row["token_rate"]),
                start_s=float(row["start_s"]),
                run_s=float(row["run_s"]),
                failure=row["failure"],
            )
            for row in csv.DictReader(file)
        ]


class Grid:
    """The table as what a search asks.

    A config's truth is the mean of its runs after the one that chose it as one of the best, for
    that one was lucky; else it is its only run.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        runs: dict[str, list[float]] = {}
        self.cost_s: dict[str, float] = {}
        for row in rows:
            runs.setdefault(name(row.config), []).append(row.token_rate)
            if row.why == "grid":
                self.cost_s[name(row.config)] = row.start_s + row.run_s
        self.truth = {config: float(np.mean(found[1:] or found)) for config, found in runs.items()}
        again = [np.log(found) for found in runs.values() if len(found) > 1]
        squares = sum(((found - found.mean()) ** 2).sum() for found in again)
        self.noise = float(np.sqrt(squares / sum(len(found) - 1 for found in again)))
        self.best = max(self.truth.values())
        self.whole_s = sum(self.cost_s.values())


def name(config: Mapping[str, Value]) -> str:
    """Return what names a config, whatever the order of its settings."""
    return json.dumps(dict(config), sort_keys=True)


def study(
    grid: Grid, sampler: str, seed: int, share: float, first: Sequence[dict[str, Value]] = ()
) -> dict[str, float]:
    """Search the grid once, for at most that share of its cost.

    As in a study of `dyno tune`, what the engine refuses before it starts costs nothing, and a
    search that has a model chooses by it, the others what they measured as best.

    Args:
        grid: to search.
        sampler: the search's name.
        seed: of the search, and of the noise of each run.
        share: of the grid's cost.
        first: configs that are tried first.

    Returns:
        `chosen`: the chosen config's truth, as a share of the best there is; `trials`: how many
        ran; `failed`: how many of them had no rate.
    """
    noise = np.random.default_rng([seed, 99])
    left_s = share * grid.whole_s
    trials = int(left_s / (grid.whole_s / len(grid.cost_s)))
    search = made(sampler)(knobs(), trials=trials, maximise=True, seed=seed, fixed={})
    known: list[dict[str, Value]] = []
    ran: list[tuple[dict[str, Value], float]] = []  # the value 0.0: it has none

    def measure(config: dict[str, Value]) -> float | None:
        value = grid.truth[name(config)] * float(np.exp(grid.noise * noise.standard_normal()))
        known.append(config)
        ran.append((config, value))
        return value or None

    left_s -= grid.cost_s[name({})]
    search.start({}, measure({}) or 0.0, {})
    waiting = [dict(config) for config in first]
    while len(known) < REFUSED_MAX:
        config = waiting.pop(0) if waiting else search.ask(known)
        if config is None:
            break
        if config in first:
            search.give(config)
        if refused(config) is not None:
            known.append(config)
            search.tell(None, {})
            continue
        left_s -= grid.cost_s[name(config)]
        if left_s < 0:
            break
        search.tell(measure(config), {})
    started = [config for config, value in ran if value > 0]
    ranks = [value for _, value in ran if value > 0]
    if hasattr(search, "expected"):
        ranks = search.expected(started) or ranks
    chosen = grid.truth[name(started[int(np.argmax(ranks))])]
    return {
        "chosen": chosen / grid.best,
        "trials": len(ran) - 1,
        "failed": len(ran) - len(started),
    }


def replay(path: Path, seeds: int, share: float) -> None:
    """Let every search choose; print what they chose, and how sure ours is ahead."""
    rows = read(path)
    grid = Grid(rows)
    rates = np.array([grid.truth[config] for config in grid.cost_s]) / grid.best
    middle = [row.token_rate for row in rows if row.why == "baseline"]
    print(
        f"{len(rates)} configs, {np.mean(rates == 0):.0%} without a rate,"
        f" {np.mean(rates >= WANTED):.0%} within {1 - WANTED:.0%} of the best, {grid.best:,.0f}"
        f" tok/s; the defaults make {grid.truth[name({})] / grid.best:.2f} of it. Equal runs are"
        f" {grid.noise:.1%} apart; the defaults, {len(middle)} times, {min(middle):,.0f} to"
        f" {max(middle):,.0f}. All take {grid.whole_s:.0f} s.\n"
    )
    print("| search | trials | median/p10 | worst | at 97 % or above | failed | ours is ahead: p |")
    print("|---|---|---|---|---|---|---|")
    ours: dict[int, NDArray[np.float64]] = {}
    for sampler, first in itertools.product(SAMPLERS, ((), (REPEATS,))):
        found = [study(grid, sampler, seed, share, first) for seed in range(seeds)]
        chosen = np.array([one["chosen"] for one in found])
        its = ours.setdefault(len(first), chosen)
        ahead = mannwhitneyu(its, chosen, alternative="greater").pvalue
        told = " after the prefix cache" if first else ""
        trials = np.mean([one["trials"] for one in found])
        failed = sum(one["failed"] for one in found) / sum(one["trials"] for one in found)
        print(
            f"| {sampler}{told} | {trials:.1f} |"
            f" {np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f} |"
            f" {chosen.min():.3f} | {np.mean(chosen >= WANTED):.0%} | {failed:.0%} |"
            f" {'' if chosen is its else f'{ahead:.1g}'} |",
            flush=True,
        )


def main(arguments: Sequence[str]) -> None:
    """Do what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("measure", "replay"))
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--cost", type=float, default=0.05)
    given = parser.parse_args(arguments)
    if given.command == "measure":
        measure(given.table, given.seconds)
    else:
        replay(given.table, given.seeds, given.cost)


if __name__ == "__main__":
    main(sys.argv[1:])
