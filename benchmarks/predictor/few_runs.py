"""Does a calibration on few runs help, and is it honest? Many random draws, as Markdown.

python benchmarks/predictor/few_runs.py [--draws 12] [--configs 3] [--loads 3]

A draw is some configs of evidence/h200/points at some of their loads, one level each. It predicts
all other points: those of the same visit, and those of the other visits and of the H100. Beside it
stands what is predicted of the same points without any. The priors' medians were chosen with all
these points in view, so a calibration has little to find; the second half of the table draws them
anew, each from its own prior, as another machine's would lie.

An error is the mean of |predicted / measured - 1| over the points of a draw, then over draws.
"As a factor" is the mean of |log(predicted / measured)|, to which twice as much and half as much
are equally wrong. "Worse in" counts the draws in which the calibration has the larger error.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from ranking import alike, config_of
from run import missed, points

from llmdyno.predict import calibrate as fit
from llmdyno.predict.calibrate import (
    DEVIATIONS,
    MEDIANS,
    calibrate,
    prior,
)
from llmdyno.predict.points import Measured

VISIT = "/h200/points/"
METRICS = ("token rate", "TTFT p50", "TPOT p50")


def drawn(measured: Sequence[Measured], configs: int, loads: int, seed: int) -> list[int]:
    """Return the places of one draw: of some configs one level at each of some loads."""
    choice = random.Random(seed)  # a draw that can be drawn again
    levels: dict[str, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, each in enumerate(measured):
        if VISIT in each.source:
            levels[config_of(each)][alike(each)].append(place)
    able = sorted(name for name, own in levels.items() if len(own) >= loads)
    found = []
    for name in choice.sample(able, configs):
        asked = choice.sample(sorted(levels[name], key=str), loads)
        found += [choice.choice(levels[name][load]) for load in asked]
    return found


def told(found: np.ndarray) -> np.ndarray:
    """Return by metric of some points: the error in %, as a factor in %, and the share held.

    `found` is (point, metric, what run.missed() says).
    """
    size = np.abs(found[:, :, 0])
    percent = 100 * np.abs(np.expm1(found[:, :, 0])).mean(axis=0)
    return np.stack([percent, 100 * size.mean(axis=0), found[:, :, 1].mean(axis=0)], axis=1)


def row(name: str, rows: np.ndarray) -> str:
    """Return a line; `rows` is (draw, calibrated or not, metric, what told() says)."""
    cells = []
    for metric in range(3):
        own, none = rows[:, 0, metric], rows[:, 1, metric]
        worse = [int((own[:, kind] > none[:, kind]).sum()) for kind in (0, 1)]
        cells.append(
            f"{own[:, 0].mean():.1f} for {none[:, 0].mean():.1f}, as a factor"
            f" {own[:, 1].mean():.1f} for {none[:, 1].mean():.1f}; worse in {worse[0]}, {worse[1]}"
            f" of {len(own)}; {own[:, 2].mean():.0%} ({own[:, 2].min():.0%} to"
            f" {own[:, 2].max():.0%})"
        )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--configs", type=int, default=3)
    parser.add_argument("--loads", type=int, default=3)
    given = parser.parse_args()
    measured = [each for each in points() if each.ttft_ms_p50 and each.tpot_ms_p50]
    own = np.array([VISIT in each.source for each in measured])
    measured = [
        msgspec.structs.replace(each, machine=frozenset({VISIT})) if mine else each
        for each, mine in zip(measured, own, strict=True)
    ]
    print(f"| priors, tried on | {' | '.join(METRICS)} |\n|---|---|---|---|", flush=True)
    for moved in (False, True):
        rows: dict[str, list[np.ndarray]] = {"the same visit": [], "other visits": []}
        for seed in range(given.draws):
            luck = np.random.default_rng(seed).normal(size=len(MEDIANS)) if moved else 0.0
            fit.MEDIANS = MEDIANS * np.exp(luck * DEVIATIONS)  # where calibrate() reads them
            seen = drawn(measured, given.configs, given.loads, seed)
            tried = (calibrate([measured[place] for place in seen]), prior())
            unseen = ~np.isin(np.arange(len(measured)), seen)
            for name, places in zip(rows, (unseen & own, unseen & ~own), strict=True):
                # The visit's runs are of its own machine, and not of the others.
                machine = frozenset({VISIT}) if name == "the same visit" else frozenset()
                asked = [measured[place] for place in np.flatnonzero(places)]
                found = [missed(one.on(machine), asked) for one in tried]
                rows[name].append(np.array([told(np.stack(one, axis=2)) for one in found]))
        which = "drawn anew" if moved else "as they are"
        for name, each in rows.items():
            print(row(f"{which}, {name}", np.array(each)), flush=True)


if __name__ == "__main__":
    main()
