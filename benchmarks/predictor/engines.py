"""The predictor's error on a table of several engines' points, engine by engine, as Markdown.

python benchmarks/predictor/engines.py POINTS.csv [MORE.csv ...] [--uncalibrated] [--rows]

A table is one of benchmarks/h200/points.py. Without `--uncalibrated` each engine's points are
predicted by parameters that were fitted to its rows in the tables under evidence/, or, where those
have none, to all of them; a file that is tried calibrates nothing.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ranking import CONFIGS_MIN, Figures, config_of, errors, judged_ttft, predicted
from run import EVIDENCE, whose
from scipy.stats import kendalltau

from llmdyno.predict.calibrate import Calibration, calibrate, prior
from llmdyno.predict.points import Measured, read_points


def calibrations(tried: Sequence[Path], engines: Sequence[str]) -> Mapping[str, Calibration]:
    """Return the parameters of each engine, fitted to what is not tried."""
    out = {path.resolve() for path in tried}
    paths = [each for each in sorted(EVIDENCE.glob("**/points*.csv")) if each.resolve() not in out]
    seen = [each for path in paths for each in read_points(str(path), whose("vllm"))]
    found = {}
    for engine in engines:
        own = [each for each in seen if each.engine == engine]
        found[engine] = calibrate(own or seen)
    return found


def loads(measured: Sequence[Measured]) -> Mapping[tuple[object, ...], list[int]]:
    """Return the places of the points of each load: who asks how many tokens, whoever serves it."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, each in enumerate(measured):
        lengths = (round(each.isl, -1), round(each.osl, -2))
        groups[(each.gpu.name, each.users, each.request_rate, *lengths)].append(place)
    return groups


def row(name: str, said: Figures, truth: np.ndarray) -> str:
    """Return a line of the table: errors, where they lie, and how often the interval holds."""
    shift = np.exp(np.log(said[:, :3] / truth).mean(axis=0)) - 1
    cells = [name, str(len(truth)), *errors(said, truth)]
    cells += [", ".join(f"{one:+.0%}" for one in shift), judged_ttft(said, truth)]
    return f"| {' | '.join(cells)} |"


def ranked(measured: Sequence[Measured], said: Figures, truth: np.ndarray) -> str:
    """Say how well servers of one load are ranked, all engines together."""
    taus, losses = [], []
    for places in loads(measured).values():
        servers: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place in places:
            servers[measured[place].engine, config_of(measured[place])].append(place)
        if len(servers) < CONFIGS_MIN:
            continue
        rate, guess = (
            np.array([np.exp(np.log(of[own, 0]).mean()) for own in servers.values()])
            for of in (truth, said)
        )
        taus.append(kendalltau(guess, rate).statistic)
        losses.append(100 * (1 - rate[int(np.argmax(guess))] / rate.max()))
    if not taus:
        return f"No load has {CONFIGS_MIN} servers to rank."
    return (
        f"Servers ranked under {len(taus)} loads: tau {np.mean(taus):.2f}"
        f" (median {np.median(taus):.2f}), regret of the first {np.mean(losses):.1f} %"
        f" (worst {max(losses):.1f})"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", type=Path, nargs="+")
    parser.add_argument("--uncalibrated", action="store_true")
    parser.add_argument("--rows", action="store_true", help="print every point, too")
    parser.add_argument("--gpu", default="h200", help="of rows that do not say theirs")
    parser.add_argument("--model", default="meta-llama/Meta-Llama-3-8B")
    given = parser.parse_args()
    theirs = whose("vllm", given.gpu, given.model)
    measured = [each for path in given.points for each in read_points(str(path), theirs)]
    measured = [each for each in measured if each.ttft_ms_p50 and each.tpot_ms_p50]
    truth = np.array([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    engines = sorted({each.engine for each in measured})
    fitted = (
        dict.fromkeys(engines, prior())
        if given.uncalibrated
        else calibrations(given.points, engines)
    )
    said = np.zeros((len(measured), 5))
    for engine in engines:
        places = [place for place, each in enumerate(measured) if each.engine == engine]
        said[places] = predicted([measured[place] for place in places], fitted[engine])
    print(
        "| engine | points | token rate | TTFT p50 | TPOT p50 | too high by | TTFT where it has one"
        " answer; two |\n|---|---|---|---|---|---|---|"
    )
    for engine in engines:
        own = np.array([each.engine == engine for each in measured])
        print(row(engine, said[own], truth[own]))
    if len(engines) > 1:
        print(row("all", said, truth))
    print("\n" + ranked(measured, said, truth))
    if given.rows:
        print(
            "\n| point | users or rate | token rate | TTFT p50 | TPOT p50 |\n|---|---|---|---|---|"
        )
        for each, guess, true in zip(measured, said, truth, strict=True):
            pairs = [f"{guess[k]:,.0f} for {true[k]:,.0f}" for k in (0, 1)]
            pairs.append(f"{guess[2]:.1f} for {true[2]:.1f}")
            asked = each.users or each.request_rate
            print(f"| {each.engine} {dict(each.config)} | {asked} | {' | '.join(pairs)} |")


if __name__ == "__main__":
    main()
