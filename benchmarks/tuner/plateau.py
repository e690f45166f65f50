"""Which of the best configs of the grid is the best: measured once more, in rounds.

python benchmarks/tuner/plateau.py measure [--minutes 10]
python benchmarks/tuner/plateau.py show

With the prefix cache, enough tokens a step and enough sequences the embedded engine is about as
fast whatever the rest, and the grid has one or two runs of each such config. `measure` runs all of
them in a random order, and again in another one, and goes on where plateau.csv ends. `show` says
whether the two tables find the same ones fast: by how much the configs may truly lie apart.
"""

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from grid import TABLE, Row, alone, configs, name, read
from numpy.typing import NDArray

from llmdyno.knobs import Value

AGAIN = Path(__file__).with_suffix(".csv")
SECONDS = 5.0
TOKENS, SEQUENCES = 64, 32  # so many there are at least on the plateau
_BESIDE = 8  # sequences: so few are measured, too, as the demo may try them
_FIELDS = ("round", "at_s", "config", "token_rate")
_UNLIKELY = 0.05  # one-sided
_DRAWS = 200_000  # a probability of .05 is then known to .0005
_HALVINGS = 20
_SHOWN = (0.015, 0.02, 0.025)


def measured() -> list[dict[str, Value]]:
    """Return the configs that `measure` runs."""
    return [config for config in configs() if _is_fast(config, _BESIDE)]


def is_on(config: Mapping[str, Value]) -> bool:
    """Tell whether a config of the grid is one of those that are about as fast."""
    return _is_fast(config, SEQUENCES)


def _is_fast(config: Mapping[str, Value], sequences: int) -> bool:
    return (
        config.get("enable_prefix_caching") is True
        and "num_kv_blocks" not in config
        and float(config.get("max_num_batched_tokens", 256)) >= TOKENS
        and float(config.get("max_num_seqs", 256)) >= sequences
    )


def measure(path: Path, minutes: float) -> None:
    """Measure round after round, and append each run to the table."""
    ends_s = time.monotonic() + 60 * minutes
    done = len(path.read_text(encoding="utf-8").splitlines()) - 1 if path.exists() else 0
    every = measured()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=_FIELDS, lineterminator="\n")
        if not path.stat().st_size:
            writer.writeheader()
            done = 0
        while time.monotonic() < ends_s:
            number, place = divmod(done, len(every))
            order = list(every)
            random.Random(number).shuffle(order)
            rate = alone(order[place], SECONDS)["token_rate"]
            row = {"round": number, "at_s": round(time.time()), "token_rate": rate}
            writer.writerow({**row, "config": json.dumps(order[place])})
            file.flush()
            done += 1
            print(done, rate, order[place], file=sys.stderr, flush=True)


class Plateau:
    """What two tables say of the configs that are about as fast, in logarithms of the rate.

    Each table is taken about its own mean: the machine's pace differs from day to day. Of the
    grid's runs the first is left out, for it chose what ran again. From the rounds the pace of each
    is taken out, by least squares.
    """

    def __init__(self, grid: Sequence[Row], path: Path = AGAIN) -> None:
        runs: dict[str, list[float]] = {}
        for row in grid:
            if is_on(row.config):
                runs.setdefault(name(row.config), []).append(float(np.log(row.token_rate)))
        self.names = sorted(runs)
        later = [runs[each][1:] for each in self.names]
        effects, counts, second = _effects(path)
        self.runs = sum(counts[each] for each in self.names)
        # Between equal runs: of the grid, of the rounds.
        again = [np.array(each) for each in later if len(each) > 1]
        freedom = sum(len(each) - 1 for each in again)
        first = float(np.sqrt(sum(((e - e.mean()) ** 2).sum() for e in again) / freedom))
        self.noise = first, second
        self._said = np.array(
            [[np.mean(each) for each in later], [effects[each] for each in self.names]]
        )
        self.level = float(self._said[0].mean())
        self._said -= self._said.mean(1, keepdims=True)
        ran = np.array([[len(each) for each in later], [counts[each] for each in self.names]])
        self._weights = ran / np.array([[first**2], [second**2]])

    @property
    def likeness(self) -> float:
        """The correlation of what the two tables say."""
        return float(np.corrcoef(self._said)[0, 1])

    @property
    def ratios(self) -> NDArray[np.float64]:
        """By table, the variance between configs as a multiple of what the noise explains: F."""
        explained = (1 / self._weights).mean(1)
        found: NDArray[np.float64] = self._said.var(1, ddof=1) / explained
        return found

    @property
    def covariance(self) -> float:
        """The covariance of what the two tables say: as their noises are independent, the truth's.

        It is negative where they contradict each other, though no variance is.
        """
        return float((self._said[0] * self._said[1]).sum() / (len(self.names) - 1))

    @property
    def spread(self) -> tuple[float, float]:
        """How far configs truly lie apart, a deviation: as estimated, and at most (95 %).

        At most: at that spread a covariance as low as the tables' has a probability of 5 %.
        """
        chance = self.chances()
        low, high = 0.0, float(self._said.std(ddof=1))
        while chance(high) > _UNLIKELY:
            low, high = high, 2 * high
        for _ in range(_HALVINGS):
            half = (low + high) / 2
            low, high = (half, high) if chance(half) > _UNLIKELY else (low, half)
        return float(np.sqrt(max(0.0, self.covariance))), low

    def chances(self) -> Callable[[float], float]:
        """Return how probable a covariance as low as the tables' is, as a function of the spread.

        Simulated: normal values of the configs, and normal noise of each table by its runs. All
        spreads have the same draws, so that the probability falls smoothly.
        """
        draw = np.random.default_rng(95)
        count = len(self.names)
        truth = _centred(draw.standard_normal((_DRAWS, count)))
        first, second = (
            _centred(draw.standard_normal((_DRAWS, count)) / np.sqrt(weights))
            for weights in self._weights
        )
        # The sum behind it: (spread * truth + first) (spread * truth + second).
        square = (truth**2).sum(1)
        cross = (truth * (first + second)).sum(1)
        noise = (first * second).sum(1)
        found = self.covariance * (count - 1)
        return lambda spread: float((spread**2 * square + spread * cross + noise <= found).mean())

    def drawn(self, spread: float, draw: np.random.Generator) -> dict[str, float]:
        """Return rates, by name, that the configs may truly have: a draw from the posterior.

        Args:
            spread: how far they lie apart before any measurement, a deviation; above 0.
            draw: the random numbers.
        """
        variance = 1 / (1 / spread**2 + self._weights.sum(0))
        mean = variance * (self._weights * self._said).sum(0)
        values = self.level + mean + np.sqrt(variance) * draw.standard_normal(len(mean))
        return dict(zip(self.names, map(float, np.exp(values)), strict=True))


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - values.mean(-1, keepdims=True)


def _effects(path: Path) -> tuple[dict[str, float], dict[str, int], float]:
    """Return what the rounds say of each config, how often it ran, and what is left: the noise."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ran = [name(json.loads(row["config"])) for row in rows]
    every = sorted(set(ran))
    rounds = 1 + max(int(row["round"]) for row in rows)
    design = np.zeros((len(rows), len(every) + rounds - 1))  # the first round's pace is 0
    for place, (config, row) in enumerate(zip(ran, rows, strict=True)):
        design[place, every.index(config)] = 1.0
        if int(row["round"]):
            design[place, len(every) + int(row["round"]) - 1] = 1.0
    rates = np.log([float(row["token_rate"]) for row in rows])
    found, *_ = np.linalg.lstsq(design, rates, rcond=None)
    left = rates - design @ found
    noise = float(np.sqrt((left**2).sum() / (len(rows) - design.shape[1])))
    effects = dict(zip(every, map(float, found), strict=False))
    return effects, {config: ran.count(config) for config in every}, noise


def show() -> None:
    """Print what the two tables say."""
    found = Plateau(read(TABLE))
    (first, second), (likely, most) = found.noise, found.spread
    print(f"{len(found.names)} configs of {found.runs} runs in rounds. Equal runs are {first:.1%}")
    print(f"apart in the grid, {second:.1%} in the rounds. F is {found.ratios[0]:.2f} and", end=" ")
    print(f"{found.ratios[1]:.2f}, the tables' correlation {found.likeness:+.2f}.")
    chance = found.chances()
    said = ", ".join(f"{chance(spread):.3f} at {spread:.1%}" for spread in _SHOWN)
    print(f"The configs lie {likely:.1%} apart, at most {most:.2%}. The probability of so low a")
    print(f"covariance is {said}.")


def main(arguments: Sequence[str]) -> None:
    """Do what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("measure", "show"))
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args(arguments)
    if given.command == "measure":
        measure(AGAIN, given.minutes)
    else:
        show()


if __name__ == "__main__":
    main(sys.argv[1:])
