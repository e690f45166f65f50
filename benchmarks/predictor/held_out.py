"""How near is an engine predicted once its own runs have calibrated it? By engine, as Markdown.

python benchmarks/predictor/held_out.py POINTS.csv [MORE.csv ...] [--engine NAME ...]

Each level is predicted by a calibration on the same engine's other configs, on its other starts of
a server (of the same config, too), and on each other config alone. Beside it stand what is
predicted without any point, and what other starts of the same config gave under the same load: no
forecast can be nearer than that, on average.
"""

import argparse
import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ranking import again, config_of, errors
from run import whose

from llmdyno.predict.calibrate import Calibration, calibrate, point_of, prior, setup_of
from llmdyno.predict.forecast import forecast
from llmdyno.predict.points import Measured, read_points

_LOAD = re.compile(r"-(chat|long|rate)$")  # the end of a run's name: one server was asked all three
Rows = tuple[np.ndarray, np.ndarray]  # predicted, and whether the interval holds what was measured


def starts(paths: Sequence[Path]) -> dict[str, str]:
    """Return which start of a server each row of the tables is of, by the row's source."""
    found = {}
    for path in paths:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                found[f"{path}:{number}"] = f"{path.stem} {_LOAD.sub('', row['run'])}"
    return found


def predicted(measured: Sequence[Measured], calibration: Calibration) -> Rows:
    """Return token rate, TTFT p50 and TPOT p50 of each point, and whether 80 % intervals hold."""
    said, held = [], []
    for each in measured:
        one = forecast(setup_of(each), point_of(each), calibration)
        ranges = (one.token_rate, one.ttft_ms_p50, one.tpot_ms_p50)
        said.append([found.mean for found in ranges])
        held.append([low <= true <= high for (low, high), true in _beside(ranges, each)])
    return np.array(said), np.array(held)


def _beside(ranges: Sequence[object], each: Measured) -> list[tuple[tuple[float, float], float]]:
    true = (each.token_rate, each.ttft_ms_p50 or np.nan, each.tpot_ms_p50 or np.nan)
    return [(found.ci80, value) for found, value in zip(ranges, true, strict=True)]  # type: ignore[attr-defined]


def without(measured: Sequence[Measured], group: Callable[[Measured], str]) -> Rows:
    """Predict each group of points by a calibration on all others."""
    said, held = np.full((len(measured), 3), np.nan), np.zeros((len(measured), 3), bool)
    for name in sorted({group(each) for each in measured}):
        out = [place for place, each in enumerate(measured) if group(each) == name]
        others = [each for each in measured if group(each) != name]
        said[out], held[out] = predicted([measured[place] for place in out], calibrate(others))
    return said, held


def by_one(measured: Sequence[Measured]) -> tuple[np.ndarray, Rows]:
    """Predict each point by each other config alone: their places, what is said, what is held."""
    places, said, held = [], [], []
    for name in sorted({config_of(each) for each in measured}):
        calibration = calibrate([each for each in measured if config_of(each) == name])
        out = [place for place, each in enumerate(measured) if config_of(each) != name]
        found = predicted([measured[place] for place in out], calibration)
        places += out
        said.append(found[0])
        held.append(found[1])
    return np.array(places), (np.vstack(said), np.vstack(held))


def row(engine: str, name: str, found: Rows, truth: np.ndarray) -> str:
    """Return a line of the table."""
    said, held = found
    cells = [
        f"{error}; {share:.0%}"
        for error, share in zip(errors(said, truth), held.mean(axis=0), strict=True)
    ]
    return f"| {engine} | {name} | {len(truth)} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", type=Path, nargs="+")
    parser.add_argument("--engine", nargs="+", default=["vllm", "sglang", "lmdeploy"])
    given = parser.parse_args()
    start_of = starts(given.points)
    every = [each for path in given.points for each in read_points(str(path), whose("vllm"))]
    print("| engine | calibrated on | levels | token rate | TTFT p50 | TPOT p50 |")
    print("|---|---|---|---|---|---|")
    for engine in given.engine:
        own = [m for m in every if m.engine == engine and m.ttft_ms_p50 and m.tpot_ms_p50]
        truth = np.array([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in own])
        print(row(engine, "nothing", predicted(own, prior()), truth), flush=True)
        places, found = by_one(own)
        print(row(engine, "one other config", found, truth[places]), flush=True)
        print(row(engine, "all other configs", without(own, config_of), truth), flush=True)
        found = without(own, lambda each: start_of[each.source])
        print(row(engine, "all other starts", found, truth), flush=True)
        floor = again(own, truth)
        cells = f"{int(np.isfinite(floor[:, 0]).sum())} | {' | '.join(errors(floor, truth))}"
        print(f"| {engine} | **the same config, other starts** | {cells} |", flush=True)


if __name__ == "__main__":
    main()
