"""Does the interval of one run hold the truth as often as it says, and how wide is it?

    python benchmarks/statistics/lockstep.py

The token rate of simulated runs: independent stretches, an AR(1) process, and users in lockstep
(all send at once, TTFT 200 ms, then 16 tokens 5 ms apart, then think 10 ms) with a jitter from
cycle to cycle. Coverage is the share of runs whose 95 % interval holds the true rate; the width is
beside that of an interval that knows the true spread between runs (1.00 is right). The last two
columns are the same with blocks of n^(1/3) stretches of 0.25 s, whatever the period.
"""

from collections.abc import Callable

import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.results import stats
from llmdyno.results.rates import token_rates, tokens_in_bins
from llmdyno.results.stats import Floats

RUNS = 300
_RESAMPLES = 300

Series = tuple[Floats, Floats]  # as the program cuts and blocks it, and at even stretches


def columns_of_tokens(read_ns: Floats, users: int) -> Columns:
    """Return columns with these reads, each of one token a user; all else is empty."""
    none = np.zeros(0, dtype=np.int64)
    reads = np.asarray(read_ns, dtype=np.int64)
    names = [name for name in Columns.__struct_fields__ if not name.startswith("read_")]
    return Columns(
        **dict.fromkeys(names, none),
        read_ns=reads,
        read_gap_ns=np.ones_like(reads),
        read_tokens=np.full(len(reads), users, dtype=np.int64),
        read_later=np.ones(len(reads), dtype=bool),
        read_timed=np.ones(len(reads), dtype=bool),
        read_request=np.zeros_like(reads),
    )


def lockstep(rng: np.random.Generator, seconds: float, jitter_s: float) -> Columns:
    """Return the tokens of ten users in lockstep, seen from a random moment on."""
    cycles = int(seconds / 0.285) + 4
    lengths_s = 0.285 + rng.normal(0, jitter_s, cycles)
    starts_s = np.cumsum(lengths_s) - rng.uniform(0.285, 0.57)
    read_s = (starts_s[:, None] + 0.2 + 0.005 * np.arange(16)).ravel()
    return columns_of_tokens(read_s * 1e9, users=10)


def rates_in_lockstep(seconds: float, jitter_s: float) -> Callable[[np.random.Generator], Series]:
    """Return what draws a run of so many seconds."""

    def draw(rng: np.random.Generator) -> Series:
        columns = lockstep(rng, seconds, jitter_s)
        window = Window(start_ns=0, end_ns=round(seconds * 1e9), method="-")
        bins = min(600, max(20, int(seconds / 0.25)))
        even = tokens_in_bins(columns, 0, window.end_ns, bins) * bins / seconds
        return token_rates(columns, window), even

    return draw


def autocorrelated(n: int, rho: float) -> Callable[[np.random.Generator], Series]:
    """Return what draws a run of n stretches, an AR(1) process around 500."""

    def draw(rng: np.random.Generator) -> Series:
        noise = rng.normal(0, 50 * (1 - rho**2) ** 0.5, n)
        series = np.zeros(n)
        series[0] = rng.normal(0, 50)
        for i in range(1, n):
            series[i] = rho * series[i - 1] + noise[i]
        return series + 500, series + 500

    return draw


IN_LOCKSTEP = 160 / 0.285
WORLDS: dict[str, tuple[Callable[[np.random.Generator], Series], float]] = {
    "independent, n 240": (autocorrelated(240, 0.0), 500.0),
    "AR(1) rho 0.5, n 240": (autocorrelated(240, 0.5), 500.0),
    "AR(1) rho 0.8, n 240": (autocorrelated(240, 0.8), 500.0),
    "lockstep 4 s, 5 ms": (rates_in_lockstep(4, 0.005), IN_LOCKSTEP),
    "lockstep 8 s, 5 ms": (rates_in_lockstep(8, 0.005), IN_LOCKSTEP),
    "lockstep 20 s, jitter 0": (rates_in_lockstep(20, 0.0), IN_LOCKSTEP),
    "lockstep 60 s, jitter 0": (rates_in_lockstep(60, 0.0), IN_LOCKSTEP),
    "lockstep 60 s, 1 ms": (rates_in_lockstep(60, 0.001), IN_LOCKSTEP),
    "lockstep 60 s, 5 ms": (rates_in_lockstep(60, 0.005), IN_LOCKSTEP),
    "lockstep 60 s, 20 ms": (rates_in_lockstep(60, 0.020), IN_LOCKSTEP),
    "lockstep 300 s, 5 ms": (rates_in_lockstep(300, 0.005), IN_LOCKSTEP),
}


def interval(series: Floats, blocks: stats.Blocks | None) -> tuple[float, float]:
    """Return the 95 % interval of the mean, with such blocks; None: the program's own."""
    drawn = stats.block_resamples(series, _RESAMPLES, np.random.default_rng(0), blocks)
    return stats.interval95(stats.mean_over_time(drawn))


def judged(worlds: str, runs: int = RUNS) -> tuple[float, float, float, float]:
    """Return coverage and relative width of a world, then the same without regard to a period."""
    draw, truth = WORLDS[worlds]
    rng = np.random.default_rng(1)
    means, held, widths = [], [], []
    for _ in range(runs):
        series, even = draw(rng)
        means.append(series.mean())
        found = [
            interval(series, None),
            interval(even, stats.Blocks(stats.block_length(len(even)), wraps=True)),
        ]
        held.append([low <= truth <= high for low, high in found])
        widths.append([high - low for low, high in found])
    right = 2 * 1.96 * float(np.std(means))
    (covers, before), (width, width_before) = np.mean(held, axis=0), np.mean(widths, axis=0) / right
    return float(covers), float(width), float(before), float(width_before)


def main() -> None:
    """Print a row a world."""
    print("world".ljust(26), "coverage  width   | blocks of n^(1/3): coverage  width")
    for world in WORLDS:
        covers, width, before, width_before = judged(world)
        print(world.ljust(26), f"{covers:8.1%} {width:6.2f}   | {before:27.1%} {width_before:6.2f}")


if __name__ == "__main__":
    main()
