"""What it costs to end early: a trial that cannot win (racing), and the trials (patience).

python benchmarks/tuner/endings.py [--seeds 12] [--trials 30] [--what race,patience,promotion]

Studies of our own search on the functions of functions.py. A run is one of racing.py's: the first
half of a study's time goes into starts, 30 s each, the other half into runs of 30 s.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import racing
from functions import FAMILIES, make
from parts import NOISE

from llmdyno.results.pairs import PRIOR
from llmdyno.results.racing import Bound, value_to_reach
from llmdyno.search.own import OwnSearch

START_S = 30.0
_ERRORS, _ERROR = 4.0, 0.15  # as tune/steps.py has them
_RUNS = racing.Runs(racing.PROCESSES["noise 10 %"], 200, np.random.default_rng(0))


class Came(NamedTuple):
    """What came of a trial."""

    value: float | None
    lasted_s: float
    bound: Bound | None  # of one that was ended early


class Study:
    """A study of one function by our own search.

    Args:
        family: of the function.
        seed: of the function, the search and the noise.
        race: what a pruned trial tells: "value", "bound", "failure"; or "off": none is pruned.
    """

    def __init__(self, family: str, seed: int, race: str) -> None:
        self.function = make(family, seed)
        self.draw = np.random.default_rng([seed, 98])
        self.race = race
        self.known: list[dict[str, Any]] = []
        self.values: list[float] = []
        self.starting: list[dict[str, Any]] = []  # those that may be chosen
        self.search = OwnSearch(self.function.knobs, trials=30, maximise=True, seed=seed, fixed={})
        first = self.measured({})
        self.search.start({}, first.value, {})

    def measured(self, config: dict[str, Any]) -> Came:
        """Measure a config, until its end or until it cannot win."""
        self.known.append(config)
        true = self.function.value(config)
        if true <= 0:
            return Came(None, 0.0, None)
        number = int(self.draw.integers(len(_RUNS.values)))
        factor = true * float(np.exp(NOISE * self.draw.standard_normal())) / racing.RATE
        if self.values and self.race != "off":
            to_reach = value_to_reach(self.values, PRIOR, maximise=True)
            ended = racing.lost_at(_RUNS.samples(number, factor), to_reach)
            if ended is not None:
                return Came(ended[1].mean, ended[0], ended[1])
        value = float(_RUNS.values[number]) * factor
        self.values.append(value)
        self.starting.append(config)
        return Came(value, racing.END_S, None)

    def ask(self) -> dict[str, Any] | None:
        """Return the next config."""
        return self.search.ask(self.known)

    def tell(self, came: Came) -> None:
        """Tell the search what came of it."""
        bound = came.bound
        if bound is None:
            self.search.tell(came.value, {})
        elif self.race == "value":
            error = float(np.log(bound.high / bound.mean)) / _ERRORS
            self.search.tell(bound.mean, {}, min(_ERROR, error))
        elif self.race == "bound":
            self.search.tell(bound.high, {})
        else:
            self.search.tell(None, {})

    def chosen(self) -> float:
        """Return the true value of the config that would be confirmed, as a share of the best."""
        ranks = self.search.expected(self.starting)
        assert ranks is not None
        return self.function.value(self.starting[int(np.argmax(ranks))]) / self.function.best


def one(task: tuple[str, int, int, str]) -> dict[str, Any]:
    """Run one study; return what it chose and expected after each trial, and its time."""
    family, seed, trials, race = task
    study = Study(family, seed, race)
    rows, lasted_s, best_pruned = [], 0.0, 0
    for _ in range(trials):
        config = study.ask()
        if config is None:
            break
        gain = study.search.expected_gain
        came = study.measured(config)
        lasted_s += START_S + came.lasted_s
        study.tell(came)
        rows.append((study.chosen(), gain, came.bound is not None))
        true = study.function.value(config)
        if came.bound is not None:
            best_pruned += true >= max(study.function.value(one) for one in study.known)
    return {"rows": rows, "lasted_s": lasted_s, "best_pruned": best_pruned}


def race(found: dict[str, list[dict[str, Any]]], trials: int) -> None:
    """Print what racing saves and costs."""
    print("| pruned trials tell | chosen ÷ best, median/p10 | pruned | best pruned | time |")
    print("|---|---|---|---|---|")
    whole_s = sum(study["lasted_s"] for study in found["off"])
    for mode, studies in found.items():
        chosen = np.array([study["rows"][-1][0] for study in studies])
        pruned = np.mean([row[2] for study in studies for row in study["rows"]])
        best = sum(study["best_pruned"] for study in studies) / len(studies)
        time = sum(study["lasted_s"] for study in studies) / whole_s
        print(
            f"| {mode}, {trials} trials | {np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f} |"
            f" {pruned:.0%} | {best:.1%} | {time:.0%} |"
        )


def patience(studies: Sequence[dict[str, Any]]) -> None:
    """Print after how many trials studies would end, and what they would lose by it."""
    print("\n| expected gain below | trials in a row | ended after | chosen ÷ best, median/p10 |")
    print("|---|---|---|---|")
    for limit in (0.0, 0.002, 0.005, 0.01, 0.02):
        for patient in (1, 2, 3, 5):
            chosen, counts = [], []
            for study in studies:
                rows = study["rows"]
                row, end = 0, len(rows)
                for number, (_, gain, _) in enumerate(rows):
                    row = row + 1 if gain is not None and gain < limit else 0
                    if row >= patient:
                        end = max(1, number)
                        break
                chosen.append(rows[end - 1][0])
                counts.append(end)
            print(
                f"| {limit:.1%} | {patient} | {np.mean(counts):.1f} |"
                f" {np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f} |"
            )


def again(task: tuple[str, int, int, int]) -> tuple[float, float]:
    """Measure the best few of a study once more; return what it chose with that, and without.

    Without, the same number of measurements goes into further trials.
    """
    family, seed, trials, few = task
    study = Study(family, seed, "off")
    for number in range(trials):
        if number == trials - few:
            with_it = _again(study, few)
        config = study.ask()
        if config is None:
            break
        study.tell(study.measured(config))
    return with_it, study.chosen()


def _again(study: Study, few: int) -> float:
    """Return what would be chosen if the best few were measured once more, and forget it."""
    told = dict(study.search.told)
    ranks = study.search.expected(study.starting)
    assert ranks is not None
    for place in np.argsort(ranks)[::-1][:few]:
        config = study.starting[int(place)]
        study.search.give(config)
        before = told[study.search.space.key(config)].value or 1.0
        value = study.function.value(config) * float(np.exp(NOISE * study.draw.standard_normal()))
        study.search.tell(float(np.sqrt(before * value)), {})
    chosen = study.chosen()
    study.search.told = told
    return chosen


def main(arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--what", default="race,patience")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    modes = ("off", "value", "bound", "failure") if "race" in given.what else ("off",)
    if given.what == "promotion":
        modes = ()
    with ProcessPoolExecutor(given.processes) as pool:
        found = {}
        for mode in modes:
            tasks = [
                (family, seed, given.trials, mode)
                for family in FAMILIES
                for seed in range(given.first, given.first + given.seeds)
            ]
            found[mode] = list(pool.map(one, tasks, chunksize=4))
        if "promotion" in given.what:
            tasks = [
                (family, seed, given.trials, 3)
                for family in FAMILIES
                for seed in range(given.first, given.first + given.seeds)
            ]
            print("| best 3 again | chosen ÷ best, median/p10 |")
            print("|---|---|")
            both = np.array(list(pool.map(again, tasks, chunksize=4))).T
            for name, chosen in zip(("yes", "no, 3 trials more"), both, strict=True):
                print(f"| {name} | {np.median(chosen):.3f}/{np.quantile(chosen, 0.1):.3f} |")
    if "race" in given.what:
        race(found, given.trials)
    if "patience" in given.what:
        patience(found["off"])


if __name__ == "__main__":
    main(sys.argv[1:])
