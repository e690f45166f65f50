"""What `dyno tune` hands over in the end, against what its search chose: whole studies.

    python benchmarks/tuner/handed_over.py [--seeds 4] [--first 0] [--rows plain,slo]
                                           [--trials 8,15] [--write FILE] [--show 5]

Each study searches a known function and goes the whole road of `dyno tune` over simulated servers
(simulated.py): baseline, search, best, pairs as many as the plan asks for, ablation, document. A
start leaves 5 % of noise behind. The rows:

plain     nothing else
tuned     the baseline is a config of 85 to 93 % of the best, as of one who has tuned before
slo       a limit on tpot:p50 that 40 % of the configs meet; it has 5 % of noise of its own
parallel  two trials at once, each beside a neighbour, who takes 10 % of the speed
budget    10 minutes, which is about half of what the study would take
falling   the machine is 1 % slower, or quicker, with every run
step      it is 20 % slower at once, before one of the trials 3 to 7
"tuned-falling" and "tuned-step" are both.
"""

import argparse
import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from functions import FAMILIES, make
from held_out import HELD_OUT
from parts import Floats, Function
from queues import QUEUES
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

from llmdyno.cli.flags import with_baseline
from llmdyno.search.space import Space
from llmdyno.tune.dry_run import dry_run
from llmdyno.tune.entries import Step
from llmdyno.tune.tuner import Tuner

from faulty.engine import ENGINE  # isort: skip - simulated.py has made its folder known

ALL = (*FAMILIES, *HELD_OUT, *QUEUES)
_QUICKEST = 4.0  # the speed of a function's best config
_MEETING = 0.4  # the share of the configs that start which meet the SLO
_DRAWN = 20_000  # configs, of which the best that meets it is taken
_WORTH = 0.05  # what a trial is truly better than the baseline by, that should not be lost


def _falling(draw: Draw) -> Drift:
    """Get slower, or quicker, by 1 % with each run."""
    way = draw.choice((-1.0, 1.0))
    return lambda moment: way * math.log(1.01) * int(moment.at_s / (START_S + LEVEL_S))


def _step(draw: Draw) -> Drift:
    """Get slower by 20 % before one of the trials 3 to 7."""
    at = draw.integers(2, 7)
    return lambda moment: math.log(0.8) * (moment.tried >= at)


class Row(NamedTuple):
    """How studies of a row differ from the plain ones."""

    world: World = World(inside=0.02)
    limited: bool = False
    tuned: bool = False
    asked: Mapping[str, Any] = {}


ROWS: Mapping[str, Row] = {
    "plain": Row(),
    "tuned": Row(tuned=True),
    "slo": Row(limited=True),
    "parallel": Row(asked={"parallel": 2}),
    "budget": Row(asked={"budget": "10m"}),
    "falling": Row(World(inside=0.02, drift=_falling)),
    "step": Row(World(inside=0.02, drift=_step)),
    "tuned-falling": Row(World(inside=0.02, drift=_falling), tuned=True),
    "tuned-step": Row(World(inside=0.02, drift=_step), tuned=True),
}


class Limited(NamedTuple):
    """A second thing that configs differ in, which an SLO limits."""

    itl_ms: Callable[[Floats], Floats]  # takes rows of positions, as Function.true does
    limit_ms: float
    best: float  # of the value, of those that meet it


def limited(function: Function, seed: int) -> Limited:
    """Draw how long a token takes in each config, and a limit; what gains speed mostly costs."""
    draw = np.random.default_rng([seed, 95])
    counts = [len(knob.choices) for knob in function.knobs]
    weights = [
        draw.normal(0, 0.2, count) if count else np.array([draw.uniform(-0.2, 0.9)])
        for count in counts
    ]

    def itl_ms(x: Floats) -> Floats:
        found = np.zeros(len(x))
        for i, (count, weight) in enumerate(zip(counts, weights, strict=True)):
            found += weight[x[:, i].astype(int)] if count else weight[0] * (x[:, i] - 0.5)
        return 2.5 * np.exp(np.clip(found, -0.9, 0.9))

    rows = draw.random((_DRAWN, len(counts)))
    for i, count in enumerate(counts):
        rows[:, i] = np.floor(rows[:, i] * count) if count else rows[:, i]
    values, waits = function.true(rows), itl_ms(rows)
    limit = round(float(np.quantile(waits[values > 0], _MEETING)), 3)
    return Limited(itl_ms, limit, float(values[waits < limit].max()))


class Known:
    """A function as a machine's truth.

    Args:
        family: of the function.
        seed: of it.
        row: what else is true.
    """

    def __init__(self, family: str, seed: int, row: Row) -> None:
        self.function = make(family, seed)
        self.limit = limited(self.function, seed) if row.limited else None
        self.best = self.limit.best if self.limit else self.function.best
        self.baseline = self._tuned(seed) if row.tuned else {}

    def _tuned(self, seed: int) -> Mapping[str, Any]:
        """Return a config that is nearly as good as the best."""
        space, draw = Space(self.function.knobs, {}), np.random.default_rng([seed, 94])
        configs = (space.config(space.random(draw)) for _ in range(2000))
        return min(configs, key=lambda config: max(0.0, abs(self.worth(config) - 0.89) - 0.04))

    def truth(self, config: Mapping[str, Any], _phase: str) -> Truth:
        """Return what a config comes to, as Simulated takes it."""
        value = self.function.value(config)
        if value <= 0:
            return Truth(failure="out-of-memory")
        return Truth(_QUICKEST * value / self.function.best, self._itl_ms(config))

    def _itl_ms(self, config: Mapping[str, Any]) -> float | None:
        if self.limit is None:
            return None
        return float(self.limit.itl_ms(self.function.positions(config)[None, :])[0])

    def meets(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a config truly meets the SLO; all do where there is none."""
        itl_ms = self._itl_ms(config)
        return itl_ms is None or self.limit is None or itl_ms < self.limit.limit_ms

    def worth(self, config: Mapping[str, Any]) -> float:
        """Return a config's value as a share of the best; what misses the SLO is worth nothing."""
        return self.function.value(config) / self.best if self.meets(config) else 0.0


class Watched(Tuner):
    """A study that tells what its search chose when it ended."""

    chosen: Mapping[str, Any] = {}

    def search(self) -> None:
        """Try configs; keep what run.py calls the choice: the best of all by the model."""
        super().search()
        ledger = self.runner.ledger
        seen = [s for s in (self._told, *ledger.of("trial")) if s and s.state == "measured"]
        # Of a copy: what it is asked here moves its chance on.
        ranks = copy.deepcopy(self._trials._search).expected([step.config for step in seen])

        def rank(found: tuple[Step, float]) -> tuple[bool, float]:
            return found[0].slo_met is not False, found[1]

        self.chosen = max(zip(seen, ranks, strict=True), key=rank)[0].config


def study(task: tuple[str, int, str, int]) -> dict[str, Any]:
    """Run one study; return what it chose, handed over and said, and what is true."""
    family, seed, row, trials = task
    known = Known(family, seed, ROWS[row])
    vars(ENGINE).update(knobs=known.function.knobs, start_s=lambda _: float(START_S))
    simulated = Simulated(known.truth, ROWS[row].world, seed)
    asked = {"seed": seed, "trials": trials, "trial_duration": "6s", **ROWS[row].asked}
    if known.limit:
        asked["slo"] = f"tpot:p50<{known.limit.limit_ms}ms"
    with standing_in(simulated) as (folder, narrator):
        tuner = Watched(with_baseline(spec(asked), known.baseline), folder, narrator)
        plan = dry_run(tuner.runner.study, tuner)
        document = tuner.run()
        lines = [
            f"{s.phase} {s.contender}.{s.number} {s.state} {s.value or 0:.1f} {s.slo_met}"
            f" true {known.worth(s.config):.3f} {s.config}"
            for s in tuner.runner.ledger.steps
        ]
        lines += [f"{event.kind}: {event.why}" for event in tuner.runner.ledger.events]
    return {
        "family": family,
        "seed": seed,
        "row": row,
        "trials": trials,
        **_true_of(known, document, tuner.chosen),
        "minutes": simulated.at_s / 60,
        "planned": {name: plan["confirmation"][name] for name in ("pairs", "detects")}
        | {"minutes": plan["minutes"]},
        "said": document["outcome"]["said"],
        "lines": lines,
    }


def _true_of(
    known: Known, document: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a study ended with, each config with its true worth."""
    confirmation = document["confirmation"]
    told_of = confirmation["config"]
    tried = [one["config"] for one in document["trials"] if one["state"] == "measured"]
    value, best, before = known.function.value, document["best"]["config"], known.baseline
    return {
        "handed": known.worth(best),
        "chosen": known.worth(chosen),
        "baseline": known.worth(before),
        "compared": known.worth(told_of or before),
        "seen": max([known.worth(before), *map(known.worth, tried)]),
        "stays": best == before,
        "misses": not known.meets(best),
        "verdict": confirmation["verdict"],
        "pairs": confirmation["pairs"],
        "contenders": len(document["rejected"]) + (told_of is not None),
        "ratio": told_of and value(told_of) / value(before),
        "meets": [known.meets(before), told_of is not None and known.meets(told_of)],
        "interval": confirmation["ratio"].get("token_rate", {}).get("ci95"),
    }


def is_false(one: Mapping[str, Any]) -> bool:
    """Tell whether a verdict contradicts the truth, or leaves open what is more than 10 % apart."""
    if one["ratio"] is None:
        return one["verdict"] in {"better", "worse"}
    before, after = one["meets"]
    better = after if before != after else one["ratio"] > 1
    if one["verdict"] in {"no difference", "not confirmed"}:
        return abs(math.log(one["ratio"])) > math.log(1.1) or before != after
    return one["verdict"] == ("worse" if better else "better")


def cells(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a row's cells."""

    def middle(name: str) -> str:
        values = [one[name] for one in found]
        return f"{np.median(values):.3f}/{np.quantile(values, 0.1):.3f} ({np.mean(values):.3f})"

    words = ("better", "no difference", "worse", "not confirmed")
    verdicts = [
        f"{word} {sum(is_false(one) for one in found if one['verdict'] == word)}"
        f" of {sum(one['verdict'] == word for one in found)}"
        for word in words
    ]
    intervals = [one for one in found if one["interval"] and one["ratio"]]
    held = sum(one["interval"][0] <= one["ratio"] <= one["interval"][1] for one in intervals)
    worth = [one for one in found if one["seen"] > (1 + _WORTH) * one["baseline"]]
    lost = sum(one["stays"] for one in worth)
    took = np.mean([one["minutes"] / one["planned"]["minutes"] for one in found])
    pairs = f"{np.mean([o['planned']['pairs'] for o in found]):.1f}"
    return " | ".join(
        [
            *map(middle, ("handed", "chosen", "seen", "baseline")),
            f"{sum(one['stays'] for one in found)}, {lost} of {len(worth)} lost",
            str(sum(one["misses"] for one in found)),
            ", ".join(verdicts),
            told(held, len(intervals)) if intervals else "-",
            f"{pairs} → {np.mean([o['pairs'] for o in found]):.1f}, {took:.0%} of the time",
        ]
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="What whole studies hand over.")
    parser.add_argument("--seeds", type=int, default=4, help="of each family")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--families", default=",".join(ALL))
    parser.add_argument("--trials", default="8,15")
    parser.add_argument("--write", type=Path, help="a line a study is appended; its studies stay")
    parser.add_argument("--show", type=int, default=0, help="so many of the worst, step by step")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    print(
        "| row, trials | handed over ÷ best: median/p10 (mean) | the search's choice | best seen"
        " | baseline | it stays | misses the SLO | false verdicts | interval holds the truth"
        " | pairs planned → made, time |"
    )
    print(f"|{'---|' * 10}")
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    names = ("family", "seed", "row", "trials")
    if given.write and given.write.exists():
        for line in given.write.read_text("utf-8").splitlines():
            one = json.loads(line)
            known[tuple(one[name] for name in names)] = one
    with ProcessPoolExecutor(given.processes) as pool:
        for row in given.rows.split(","):
            for trials in map(int, given.trials.split(",")):
                tasks = [
                    (family, seed, row, trials)
                    for seed in range(given.first, given.first + given.seeds)
                    for family in given.families.split(",")
                ]
                for one in pool.map(study, [task for task in tasks if task not in known]):
                    known[tuple(one[name] for name in names)] = one
                    if given.write:
                        with given.write.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(one) + "\n")
                found = [known[task] for task in tasks]
                print(f"| {row}, {trials} | {cells(found)} |", flush=True)
                for one in sorted(found, key=lambda o: o["handed"] - o["seen"])[: given.show]:
                    print(json.dumps({k: v for k, v in one.items() if k != "lines"}))
                    print("\n".join(one["lines"]), flush=True)


if __name__ == "__main__":
    main()
