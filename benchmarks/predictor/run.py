"""The predictor's error on the points under evidence/, as a Markdown table.

python benchmarks/predictor/run.py
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmdyno.predict.calibrate import (
    Calibration,
    calibrate,
    deviations,
    point_of,
    prior,
    setup_of,
)
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.points import Measured, Whose, read_points
from llmdyno.predict.server import server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import simulated_at

EVIDENCE = Path(__file__).parents[2] / "evidence"
TEST = "engines-h200"  # measured later than the code that predicts it: see engines.py
CI80 = 1.2816


def whose(engine: str, gpu: str = "h200", model: str = "meta-llama/Meta-Llama-3-8B") -> Whose:
    """Return whose the rows are that do not say it."""
    return Whose(gpu=gpu_of(gpu), engine=engine, shape=shape_of(model))


def points() -> list[Measured]:
    """Return vLLM's points but those that are kept for a test.

    study-a.csv does not say what the prefix cache held and is left out.
    """
    paths = [path for path in sorted(EVIDENCE.glob("**/points*.csv")) if path.parent.name != TEST]
    found = [each for path in paths for each in read_points(str(path), whose("vllm"))]
    return [each for each in found if each.engine == "vllm"]


def three_configs(measured: Sequence[Measured]) -> list[Measured]:
    """Return 3 configs at 10, 50 and 100 users: the rounds of 8 s with short prompts."""
    first = "/h200/points/"
    return [m for m in measured if first in m.source and m.isl < 200 and m.duration_s == 8]


def row(name: str, *tried: tuple[Calibration, Sequence[Measured]]) -> str:
    """Return a line of the table: errors (mean, median), and what the 80 % intervals hold."""
    found = [tried_on(calibration, measured) for calibration, measured in tried]
    error = np.vstack([each for each, _ in found])
    held = np.vstack([each for _, each in found])
    cells = [
        f"{error[:, metric].mean():.1f} ({np.median(error[:, metric]):.1f});"
        f" {held[:, metric].mean():.0%}"
        for metric in range(3)
    ]
    return f"| {name} | {len(error)} | " + " | ".join(cells) + " |"


def tried_on(
    calibration: Calibration, measured: Sequence[Measured]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the error of each point in %, and whether its interval holds it."""
    usable = [each for each in measured if each.ttft_ms_p50 and each.tpot_ms_p50]
    found, held = missed(calibration, usable)
    return 100 * np.abs(np.expm1(found)), held


def missed(calibration: Calibration, measured: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray]:
    """Return log(predicted / measured) of each point, and whether its interval holds it.

    Both have a row a point, with token rate, TTFT p50 and TPOT p50.
    """
    servers = [server_of(setup_of(each)) for each in measured]
    loads = [point_of(each) for each in measured]
    seen = [
        simulated_at(server, load, calibration.theta, together=False, starts=1)
        for server, load in zip(servers, loads, strict=True)
    ]
    said = np.log([[each.token_rate, each.ttft_ms_p50, each.tpot_ms_p50] for each in seen])
    true = np.log([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    found = said - true
    return found, np.abs(found) < CI80 * deviations(calibration, servers, loads)


def main() -> None:
    """Print the table."""
    everything = points()
    few = three_configs(everything)
    held_out = [each for each in everything if each not in few]
    h100 = [each for each in everything if "H100" in each.gpu.name.upper()]
    h200 = [each for each in everything if each not in h100]
    odd, even = everything[1::2], everything[::2]
    print("| calibrated on | points | token rate | TTFT p50 | TPOT p50 |\n|---|---|---|---|---|")
    print(row("nothing", (prior(), everything)))
    print(row("all, the same points", (calibrate(everything), everything)))
    print(row("each half, the other", (calibrate(even), odd), (calibrate(odd), even)))
    print(row("3 configs at 3 loads, the others", (calibrate(few), held_out)))
    print(row("H200, on the H100", (calibrate(h200), h100)))


if __name__ == "__main__":
    main()
