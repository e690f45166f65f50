"""How far off are an engine's paces if they are chosen without a load, or without a config?

python benchmarks/predictor/paces.py POINTS.csv ENGINE NAME=0.5,1,2 [NAME=...]

Each NAME is a parameter of steptime.PRIORS, with multiples of what the engine's own paces say.
Of all combinations the one is taken that is nearest to the other points, TTFT counting for less.
"""

import argparse
import itertools
from collections.abc import Sequence

import numpy as np
from ranking import config_of, load_of
from run import whose

from llmdyno.predict.calibrate import point_of, setup_of
from llmdyno.predict.points import Measured, read_points
from llmdyno.predict.server import server_of
from llmdyno.predict.simulated import simulated_at
from llmdyno.predict.steptime import MEDIANS, NAMES

STARTS = 2
WEIGHTS = (1.0, 0.4, 1.0)  # of token rate, TTFT and TPOT in the choice
ERROR_MAX = 0.5  # an error counts for no more in it


def errors(measured: Sequence[Measured], theta: np.ndarray) -> np.ndarray:
    """Return the relative error of each point's token rate, TTFT p50 and TPOT p50."""
    rows = []
    for each in measured:
        seen = simulated_at(
            server_of(setup_of(each)), point_of(each), theta, together=False, starts=STARTS
        )
        true = np.array([each.token_rate, each.ttft_ms_p50, each.tpot_ms_p50])
        rows.append(np.array([seen.token_rate, seen.ttft_ms_p50, seen.tpot_ms_p50]) / true - 1)
    return np.abs(rows)


def chosen_without(found: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    """Return each point's errors at the combination that is best for all other groups."""
    score = np.minimum(found, ERROR_MAX) @ np.array(WEIGHTS)
    out = np.zeros(found.shape[1:])
    for group in set(groups):
        own = np.array([each == group for each in groups])
        out[own] = found[int(np.argmin(score[:, ~own].mean(axis=1)))][own]
    return out


def main() -> None:
    """Print mean (median) errors in %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points")
    parser.add_argument("engine")
    parser.add_argument("paces", nargs="+")
    given = parser.parse_args()
    measured = [m for m in read_points(given.points, whose("vllm")) if m.engine == given.engine]
    names = [each.partition("=")[0] for each in given.paces]
    values = [[float(one) for one in each.partition("=")[2].split(",")] for each in given.paces]
    found = []
    for combination in itertools.product(*values):
        theta = MEDIANS.copy()
        theta[[NAMES.index(name) for name in names]] *= combination
        found.append(errors(measured, theta))
    loads = [(load_of(each)[1], load_of(each)[2], round(each.isl, -2)) for each in measured]
    configs = [config_of(each) for each in measured]
    for name, groups in (("loads", loads), ("config", configs)):
        off = 100 * chosen_without(np.array(found), groups)
        cells = [f"{off[:, k].mean():.1f} ({np.median(off[:, k]):.1f})" for k in range(3)]
        print(f"| chosen by other {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
