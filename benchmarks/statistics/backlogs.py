"""How often is a steady level called a backlog, and how soon is a backlog seen?

    python benchmarks/statistics/backlogs.py

Times to first token are simulated: independent and autocorrelated ones, users in lockstep, and the
waits of a queue with one server (Lindley's recursion) at several loads; above a load of 1 the queue
grows without end. Each figure is the share of levels in which results/delivered.py and
results/load_checks.py find a backlog.
"""

from collections.abc import Callable

import numpy as np

from llmdyno.results.delivered import GROUPS
from llmdyno.results.load_checks import GROWTH_MIN, TAU_MIN
from llmdyno.results.series import rank_trend
from llmdyno.results.stats import Floats

LEVELS = 1000
REQUESTS = (50, 200, 1000, 5000)

World = Callable[[np.random.Generator, int], Floats]


def independent(rng: np.random.Generator, n: int) -> Floats:
    """Return log-normal times that do not depend on one another."""
    return np.asarray(rng.lognormal(0, 0.8, n), dtype=np.float64)


def autocorrelated(rho: float) -> World:
    """Return a world in which the logarithm of a time is an AR(1) process."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        noise = rng.normal(0, 0.5 * (1 - rho**2) ** 0.5, n)
        logs = np.zeros(n)
        logs[0] = rng.normal(0, 0.5)
        for i in range(1, n):
            logs[i] = rho * logs[i - 1] + noise[i]
        return np.asarray(np.exp(logs), dtype=np.float64)

    return draw


def lockstep(rng: np.random.Generator, n: int) -> Floats:
    """Return the times of twenty users that come together and are served one after the other."""
    return np.asarray((np.arange(n) % 20 + 1) * rng.normal(10, 0.3, n), dtype=np.float64)


def queue(load: float) -> World:
    """Return the times of a queue that has been running for a while, at that share of its rate."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        before = 2000 if load < 1 else 0
        between = rng.exponential(1 / load, n + before)
        service = rng.exponential(1.0, n + before)
        waits = np.zeros(n + before)
        for i in range(1, n + before):
            waits[i] = max(0.0, waits[i - 1] + service[i - 1] - between[i])
        return (waits + 0.2)[before:]

    return draw


WORLDS: dict[str, World] = {
    "independent": independent,
    "AR(1) rho 0.6": autocorrelated(0.6),
    "AR(1) rho 0.95": autocorrelated(0.95),
    "lockstep": lockstep,
    "queue at load 0.5": queue(0.5),
    "queue at load 0.8": queue(0.8),
    "queue at load 0.9": queue(0.9),
    "queue at load 1.1": queue(1.1),
    "queue at load 1.5": queue(1.5),
    "queue at load 2": queue(2.0),
}


def is_backlog(times: Floats) -> bool:
    """Tell what a level with these times would be called."""
    medians = np.array([np.median(group) for group in np.array_split(times, GROUPS)])
    grown = np.median(medians[-2:]) >= GROWTH_MIN * np.median(medians[:2])
    return bool(grown and rank_trend(medians) >= TAU_MIN)


def main() -> None:
    """Print a row a world: the share of levels that are called a backlog."""
    print("requests".ljust(20), *(f"{n:>8,}" for n in REQUESTS))
    for name, draw in WORLDS.items():
        shares = []
        for n in REQUESTS:
            rng = np.random.default_rng(n)
            levels = LEVELS if n < REQUESTS[-1] else LEVELS // 10
            shares.append(np.mean([is_backlog(draw(rng, n)) for _ in range(levels)]))
        print(name.ljust(20), *(f"{share:8.2%}" for share in shares))


if __name__ == "__main__":
    main()
