"""How often are two equal runs called different, when each run is made for its comparison alone?

    python benchmarks/statistics/fresh_pairs.py --pairs 100 --folder FOLDER

makes 200 runs of `dyno bench` one after another, each a process of its own against one streamer,
and compares them as a study does: each pair as its ablation does (one run an arm, the spread
between equal runs known from the two pairs before it), and each two pairs as its confirmation does
(A B B A). Nothing is resampled, and no run is in two comparisons of a kind. A folder that holds
runs already is gone on with.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from llmdyno.results import stats
from llmdyno.results.facts import read_levels
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.rates import token_rates
from llmdyno.results.window import steady_window
from llmdyno.store import JOURNAL

_USERS = 8
_LOAD = ("--osl", "32", "--duration", "4s", "--ramp", "1s", "--grace", "2s", "--no-calibration")


def make_runs(folder: Path, count: int) -> list[Path]:
    """Make the runs that are not there yet."""
    folders = [folder / f"run-{number:03}" for number in range(count)]
    streamer = subprocess.Popen(
        [*(sys.executable, "-m", "llmdyno.streamer", "--ttft", "50ms", "--itl", "20ms")],
        stdout=subprocess.PIPE,
    )
    assert streamer.stdout is not None
    url = f"http://127.0.0.1:{json.loads(streamer.stdout.readline())['port']}"
    dyno = [sys.executable, "-m", "llmdyno", "bench", "--url", url, "-c", str(_USERS), *_LOAD]
    try:
        for run in folders:
            if not (run / "summary.json").exists():
                subprocess.run([*dyno, "--out", str(run)], check=True, capture_output=True)
    finally:
        streamer.terminate()
        streamer.wait()
    return folders


def series(run: Path) -> dict[str, stats.Floats]:
    """Return what a study compares: token rates over time, TTFT in order of time."""
    _, (facts,) = read_levels(run / JOURNAL)
    window = steady_window(facts)
    ttft = BY_NAME["ttft_ms"].observe
    assert ttft is not None
    return {
        "token rate": token_rates(facts.columns, window),
        "median TTFT": ttft(facts.columns, window).values,
    }


def is_different(found: stats.Ratio) -> bool:
    """Whether the interval of a ratio leaves out 1."""
    return found.ci95 is not None and not found.ci95[0] <= 1.0 <= found.ci95[1]


def check(
    name: str, runs: Sequence[stats.Floats], statistic: Callable[[stats.Floats], stats.Floats]
) -> int:
    """Print how many comparisons of equal runs are called different; return those of pairs."""
    values = np.array([statistic(run[None, :])[0] for run in runs])
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    single = 0
    for number, (before, after) in enumerate(pairs):
        others = [pairs[number - 1], pairs[number - 2]]  # the first ones have the last before them
        known = stats.spread([a for a, _ in others], [b for _, b in others], statistic)
        single += is_different(stats.ratio([before], [after], statistic, known=known))
    double = 0
    for (a, b), (c, d) in zip(pairs[::2], pairs[1::2], strict=False):
        double += is_different(stats.ratio([a, d], [b, c], statistic))
    print(
        f"{name}: spread of {len(runs)} equal runs {values.std(ddof=1) / values.mean():.2%};"
        f" called different: {single} of {len(pairs)} pairs,"
        f" {double} of {len(pairs) // 2} ABBA comparisons of two pairs"
    )
    return single


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Equal runs, compared in fresh pairs.")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    runs = [series(run) for run in make_runs(given.folder, 2 * given.pairs)]
    worst = max(
        check("token rate", [run["token rate"] for run in runs], stats.mean_over_time),
        check("median TTFT", [run["median TTFT"] for run in runs], stats.median_over_time),
    )
    return worst > 0.05 * given.pairs


if __name__ == "__main__":
    sys.exit(main())
