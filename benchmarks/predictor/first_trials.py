"""How good is the best of the first three trials, where the predictor names them? As Markdown.

python benchmarks/predictor/first_trials.py [--trials 3] [--draws 400] [--uncalibrated]

A replay of measured levels: of the configs that were measured under one load, four or more, a
study tries as many as it has trials, and takes the one that measures best; equal runs differ as
they do on these servers. The order of the trials is the predictor's, without a run or calibrated on
runs of other configs only; a roofline's; or chance.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from out_of_fold import NEW
from ranking import CONFIGS_MIN, alike, config_of, noise, predicted, roofline
from run import points

from llmdyno.predict.calibrate import calibrate, prior
from llmdyno.predict.points import Measured

AIM = 0.97  # of the best
Group = tuple[list[Measured], np.ndarray]  # a point a config, and its rate
Order = Callable[[list[Measured]], np.ndarray]  # the places of configs, those to try first first
Places = Sequence[Sequence[int]]  # such orders, one a draw


class Told(NamedTuple):
    """How a study measures: its trials, the noise of a run, and the luck that is drawn."""

    trials: int
    apart: float
    draw: np.random.Generator


def loads(measured: Sequence[Measured]) -> list[Group]:
    """Return, by load, a point of each config and the geometric mean of its token rates."""
    groups: dict[tuple[object, ...], dict[str, list[Measured]]] = {}
    for each in measured:
        groups.setdefault(alike(each), {}).setdefault(config_of(each), []).append(each)
    return [
        (
            [runs[0] for runs in configs.values()],
            np.exp(
                [np.mean([np.log(run.token_rate) for run in runs]) for runs in configs.values()]
            ),
        )
        for configs in groups.values()
        if len(configs) >= CONFIGS_MIN
    ]


def share(group: Group, order: Sequence[int], apart: float, draw: np.random.Generator) -> float:
    """Return the rate of what measures best of the configs in an order, as a share of the best."""
    rates = group[1][list(order)]
    luck = np.exp(apart * draw.standard_normal(len(rates)))
    return float(rates[np.argmax(rates * luck)] / group[1].max())


def row(name: str, groups: Sequence[Group], places: Sequence[Places], told: Told) -> str:
    """Return a line: the first choice, and the best of a few, over some loads."""
    first, few = [], []
    for group, tried in zip(groups, places, strict=True):
        first.append(np.mean([group[1][one[0]] / group[1].max() for one in tried]))
        few.append(
            np.mean([share(group, one[: told.trials], told.apart, told.draw) for one in tried])
        )
    reached = sum(each >= AIM for each in few)
    return (
        f"| {name} | {np.mean(first):.3f} | {np.mean(few):.3f} | {min(few):.3f} |"
        f" {reached} of {len(few)} |"
    )


def spread(groups: Sequence[Group]) -> str:
    """Say how many configs some loads have, and how far these lie apart."""
    counts = [len(configs) for configs, _ in groups]
    worst = [float(rates.min() / rates.max()) for _, rates in groups]
    return (
        f"{len(groups)} loads with {min(counts)} to {max(counts)} configs; the worst of a load is"
        f" {min(worst):.2f} to {max(worst):.2f} of its best"
    )


def main() -> None:
    """Print a table of the points before h200-drawn-2, one of these, and one of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--uncalibrated", action="store_true", help="without runs of other configs")
    given = parser.parse_args()
    measured = [each for each in points() if each.ttft_ms_p50 and each.tpot_ms_p50]
    groups, draw = loads(measured), np.random.default_rng(0)
    apart = noise(measured, np.array([[each.token_rate] for each in measured]))
    told = Told(given.trials, apart, draw)

    def by(said: Callable[[list[Measured]], np.ndarray]) -> Order:
        return lambda configs: np.argsort(-said(configs)[:, 0], kind="stable")

    def by_others(configs: list[Measured]) -> np.ndarray:
        names = {config_of(each) for each in configs}
        seen = [each for each in measured if config_of(each) not in names]
        return predicted(configs, calibrate(seen))

    orders: dict[str, Order | None] = {
        "the predictor, no run": by(lambda configs: predicted(configs, prior())),
        "the predictor, other configs' runs": by(by_others),
        "a roofline": by(lambda configs: predicted(configs, roofline())),
        "chance": None,
    }
    if given.uncalibrated:
        del orders["the predictor, other configs' runs"]
    places: dict[str, list[Places]] = {}
    for name, order in orders.items():
        places[name] = [
            [list(draw.permutation(len(group[0]))) for _ in range(given.draws)]
            if order is None
            else [list(order(group[0]))] * given.draws
            for group in groups
        ]
    # A load is of the new points if one of its configs is.
    new = [any(NEW in each.source for each in configs) for configs, _ in groups]
    print(f"equal runs are {apart:.1%} apart", flush=True)
    for title, which in (("before", [not each for each in new]), (NEW, new), ("all", None)):
        own = [place for place in range(len(groups)) if which is None or which[place]]
        print(f"\n{title}: {spread([groups[place] for place in own])}\n")
        print(f"| order | the first | best of {given.trials}: mean | worst load | at {AIM:.0%} |")
        print("|---|---|---|---|---|")
        for name in orders:
            tried = [places[name][place] for place in own]
            print(row(name, [groups[place] for place in own], tried, told), flush=True)


if __name__ == "__main__":
    main()
