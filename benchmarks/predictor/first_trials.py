"""How good is the best of the first three trials, where the predictor names them? As Markdown.

python benchmarks/predictor/first_trials.py [--trials 3] [--draws 400]

A replay of measured levels: of the configs that were measured under one load, four or more, a
study tries as many as it has trials, and takes the one that measures best; equal runs differ as
they do on these servers. The order of the trials is the predictor's, without a run or calibrated on
runs of other configs only; a roofline's; or chance.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from ranking import CONFIGS_MIN, alike, config_of, noise, predicted, roofline
from run import points

from llmdyno.predict.calibrate import calibrate, prior
from llmdyno.predict.points import Measured

AIM = 0.97  # of the best
Group = tuple[list[Measured], np.ndarray]  # a point a config, and its rate
Order = Callable[[list[Measured]], np.ndarray]  # the places of configs, those to try first first


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--draws", type=int, default=400)
    given = parser.parse_args()
    measured = [each for each in points() if each.ttft_ms_p50 and each.tpot_ms_p50]
    groups, draw = loads(measured), np.random.default_rng(0)
    apart = noise(measured, np.array([[each.token_rate] for each in measured]))

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
    counts = [len(configs) for configs, _ in groups]
    print(
        f"{len(groups)} loads with {min(counts)} to {max(counts)} configs; the worst of a load is"
    )
    worst = [float(rates.min() / rates.max()) for _, rates in groups]
    print(f"{min(worst):.2f} to {max(worst):.2f} of its best; equal runs are {apart:.1%} apart\n")
    print(f"| order | the first | best of {given.trials}: mean | worst load | loads at {AIM:.0%} |")
    print("|---|---|---|---|---|")
    for name, order in orders.items():
        first, few = [], []
        for group in groups:
            whole = range(len(group[0]))
            fixed = None if order is None else list(order(group[0]))
            tried = [fixed or list(draw.permutation(whole)) for _ in range(given.draws)]
            first.append(np.mean([group[1][one[0]] / group[1].max() for one in tried]))
            few.append(np.mean([share(group, one[: given.trials], apart, draw) for one in tried]))
        reached = sum(each >= AIM for each in few)
        print(
            f"| {name} | {np.mean(first):.3f} | {np.mean(few):.3f} | {min(few):.3f} |"
            f" {reached} of {len(few)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
