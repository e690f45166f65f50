"""How often are equal runs called different? The check of the test behind the tuner's verdict.

    python benchmarks/statistics/equal_runs.py                    # simulated runs
    python benchmarks/statistics/equal_runs.py RUN_FOLDER         # real ones, see below

Simulated: runs that are autocorrelated inside, lie apart from one another, and may drift as a
random walk, in ABBA order. Beside `stats.ratio` stands the method that it replaced, a percentile
bootstrap of the pairs and of blocks of time within them.

Real: the levels of one run, all of the same number of users (`dyno bench -c 8,8,8,...`), are equal
runs. Each comparison draws some of them at random and takes them, in order of time, as ABBA: it is
resampled from the levels recorded; no run is made for it alone.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from llmdyno.results import stats
from llmdyno.results.facts import read_levels
from llmdyno.results.rates import token_rates
from llmdyno.results.window import steady_window
from llmdyno.store import JOURNAL

Runs = Sequence[stats.Floats]
Test = Callable[[Runs, Runs], bool]  # whether two sets of runs are called different

COMPARISONS = 1000
REAL_COMPARISONS = 100
# Name → (observations a run, their autocorrelation, their coefficient of variation, the spread
# between equal runs, the step of the random walk from run to run).
WORLDS = {
    "independent, no spread": (60, 0.0, 0.10, 0.0, 0.0),
    "rho 0.6, spread 0.3 %": (60, 0.6, 0.10, 0.003, 0.0),
    "rho 0.9, spread 1 %": (120, 0.9, 0.20, 0.01, 0.0),
    "rho 0.6, spread 3 %": (60, 0.6, 0.10, 0.03, 0.0),
    "rho 0.6, walk 3 % a run": (60, 0.6, 0.10, 0.01, 0.03),
}


def by_t(before: Runs, after: Runs) -> bool:
    """Test as the tuner does."""
    _, ci95 = stats.ratio(before, after, stats.mean_over_time)
    return ci95 is not None and not ci95[0] <= 1.0 <= ci95[1]


def by_bootstrap_of_pairs(before: Runs, after: Runs) -> bool:
    """Test as the tuner did at first."""
    resamples = 1000
    logs = np.stack(
        [
            np.log(stats.bootstrap(b, stats.mean_over_time, resamples=resamples, seed=2 * i + 1))
            - np.log(stats.bootstrap(a, stats.mean_over_time, resamples=resamples, seed=2 * i))
            for i, (a, b) in enumerate(zip(before, after, strict=True))
        ]
    )
    chosen = np.random.default_rng(0).integers(0, len(logs), size=(resamples, len(logs)))
    low, high = stats.interval95(logs[chosen, np.arange(resamples)[:, None]].mean(axis=1))
    return not low <= 0.0 <= high


def simulated(world: str, pairs: int, rng: np.random.Generator) -> list[stats.Floats]:
    """Return 2 x pairs equal runs in order of time."""
    n, rho, variation, spread, walk = WORLDS[world]
    noise = rng.normal(0, 1, (n, 2 * pairs))
    series = np.empty_like(noise)
    series[0] = noise[0]
    for i in range(1, n):
        series[i] = rho * series[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    levels = rng.normal(0, spread, 2 * pairs) + np.cumsum(rng.normal(0, walk, 2 * pairs))
    return list((100 * np.exp(levels) * (1 + variation * series)).T)


def in_abba_order(runs: Runs) -> tuple[Runs, Runs]:
    """Return the runs before and after."""
    before = [run for i, run in enumerate(runs) if i % 4 in {0, 3}]
    return before, [run for i, run in enumerate(runs) if i % 4 in {1, 2}]


def check_simulated() -> None:
    """Print the rate of false alarms in each world."""
    print(f"{'equal runs called different':<28}{'pairs':>6}{'bootstrap of pairs':>20}{'t':>8}")
    for world in WORLDS:
        for pairs in (2, 3, 5):
            rng = np.random.default_rng(pairs)
            sets = [in_abba_order(simulated(world, pairs, rng)) for _ in range(COMPARISONS)]
            rates = [
                np.mean([test(before, after) for before, after in sets])
                for test in (by_bootstrap_of_pairs, by_t)
            ]
            print(f"{world:<28}{pairs:>6}{rates[0]:>20.1%}{rates[1]:>8.1%}", flush=True)


def check_real(folder: Path) -> int:
    """Print how many of 100 comparisons of real equal runs are called different; return it."""
    _, levels = read_levels(folder / JOURNAL)
    runs = [token_rates(facts.columns, steady_window(facts)) for facts in levels]
    means = np.array([run.mean() for run in runs])
    print(f"{len(runs)} equal runs, spread {means.std(ddof=1) / means.mean():.2%}")
    worst = 0
    for pairs in (2, 3, 5):
        rng = np.random.default_rng(pairs)
        called = {by_bootstrap_of_pairs: 0, by_t: 0}
        for _ in range(REAL_COMPARISONS):
            # In order of time, so that the drift of the machine stays in.
            chosen = np.sort(rng.choice(len(runs), 2 * pairs, replace=False))
            before, after = in_abba_order([runs[i] for i in chosen])
            for test in called:
                called[test] += test(before, after)
        print(
            f"{pairs} pairs: {called[by_t]} of {REAL_COMPARISONS} called different"
            f" (bootstrap of pairs: {called[by_bootstrap_of_pairs]})"
        )
        worst = max(worst, called[by_t])
    return worst


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(check_real(Path(sys.argv[1])) > 5)
    check_simulated()
