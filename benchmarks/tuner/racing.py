"""How often racing ends the run of the best config, and how much time it saves.

python benchmarks/tuner/racing.py [--runs 2000] [--noise 0.05]

A run is a sequence of half seconds whose rate is a process with memory: noise, slow noise, users in
lockstep, a warm-up, stalls, a rise. Equal runs differ by 5 % beside. The best config runs after
others that were measured; the hardest case is that all are equally good, so that the best of their
measured values has had luck. A race is to end its run in at most 2 % of cases.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llmdyno.results.pairs import PRIOR
from llmdyno.results.racing import Bound, Flow, Sample, looks_s, value_to_reach
from llmdyno.results.stats import Floats, bootstrap, mean_over_time

STEP_S, RAMP_S, END_S = 0.5, 7.5, 30.0
FINE = 10  # parts of a step over which a rate is averaged
NOISE = 0.05
RATE, USERS, TOKENS = 1000.0, 16, 50.0
POOL = 400
Draw = np.random.Generator
# Takes times [steps] and a number of runs, returns a factor of the rate [runs, steps].
Process = Callable[[Floats, int, Draw], Floats]


def _noise(spread: float, memory_s: float) -> Process:
    """Return noise that is forgotten over so many seconds."""

    def process(at_s: Floats, runs: int, draw: Draw) -> Floats:
        kept = np.exp(-(at_s[1] - at_s[0]) / memory_s) if memory_s else 0.0
        # White noise is one of a whole step.
        wide = 1.0 if memory_s else np.sqrt(FINE)
        found = np.empty((runs, len(at_s)))
        last = draw.standard_normal(runs)
        for number in range(len(at_s)):
            last = kept * last + np.sqrt(1 - kept**2) * draw.standard_normal(runs)
            found[:, number] = last
        return 1 + spread * wide * found

    return process


def _lockstep(period_s: float) -> Process:
    """Return a rate that is nought for the first third of each period."""

    def process(at_s: Floats, runs: int, draw: Draw) -> Floats:
        phase = (at_s[None, :] / period_s + draw.random((runs, 1))) % 1.0
        return np.where(phase < 1 / 3, 0.0, 1.5) * _noise(0.05, 0.0)(at_s, runs, draw)

    return process


def _warming(lost: float, over_s: float) -> Process:
    def process(at_s: Floats, runs: int, draw: Draw) -> Floats:
        return (1 - lost * np.exp(-at_s / over_s)) * _noise(0.1, 1.0)(at_s, runs, draw)

    return process


def _stalls(every_s: float, long_s: float) -> Process:
    def process(at_s: Floats, runs: int, draw: Draw) -> Floats:
        found = np.ones((runs, len(at_s)))
        for row in found:
            begin_s = draw.exponential(every_s)
            while begin_s < at_s[-1]:
                row[(at_s >= begin_s) & (at_s < begin_s + long_s)] = 0.0
                begin_s += long_s + draw.exponential(every_s)
        return found * _noise(0.05, 0.0)(at_s, runs, draw)

    return process


def _rising(at_s: Floats, runs: int, draw: Draw) -> Floats:
    return (0.6 + 0.4 * at_s / END_S) * _noise(0.1, 1.0)(at_s, runs, draw)


PROCESSES: Mapping[str, Process] = {
    "noise 10 %": _noise(0.1, 0.0),
    "noise 30 %": _noise(0.3, 0.0),
    "noise 20 %, kept 1 s": _noise(0.2, 1.0),
    "noise 20 %, kept 3 s": _noise(0.2, 3.0),
    "noise 20 %, kept 10 s": _noise(0.2, 10.0),
    "lockstep, 0.8 s": _lockstep(0.8),
    "lockstep, 2 s": _lockstep(2.0),
    "lockstep, 5 s": _lockstep(5.0),
    "warm-up of 5 s": _warming(0.7, 5.0),
    "stalls of 1 s": _stalls(6.0, 1.0),
    "stalls of 3 s": _stalls(10.0, 3.0),
    "rising": _rising,
}


class Runs:
    """Runs of one process at level 1: what came by each step, and what a run is worth."""

    def __init__(self, process: Process, runs: int, draw: Draw) -> None:
        fine_s = (np.arange(round(END_S / STEP_S) * FINE) + 0.5) * STEP_S / FINE
        rates = np.maximum(0.0, process(fine_s, runs, draw)).reshape(runs, -1, FINE).mean(axis=2)
        self.at_s = (np.arange(rates.shape[1]) + 1) * STEP_S
        self.rates = RATE * rates * np.minimum(1.0, self.at_s / RAMP_S)
        steady = self.rates[:, self.at_s > RAMP_S]
        self.values = steady.mean(axis=1)
        self.errors = np.array(
            [bootstrap(row, mean_over_time, resamples=100).std() / row.mean() for row in steady]
        )

    def samples(self, number: int, factor: float) -> list[Sample]:
        """Return the samples of a run whose rate is so many times as high."""
        came = np.cumsum(self.rates[number] * factor * STEP_S)
        users = np.ceil(USERS * np.minimum(1.0, self.at_s / RAMP_S))
        rows = zip(self.at_s, came, self.at_s, np.floor(came / TOKENS), users, strict=True)
        return [Sample(*map(float, row)) for row in rows]


def lost_at(samples: Sequence[Sample], to_reach: float) -> tuple[float, Bound] | None:
    """Return when a run cannot reach a value any more, and its bound; None: it always can."""
    flow, looks = Flow(RAMP_S, END_S), looks_s(RAMP_S, END_S)
    for sample in samples:
        flow.add(sample)
        if looks and sample.at_s >= looks[0]:
            looks.pop(0)
            bound = flow.bound()
            if bound is not None and bound.high < to_reach:
                return sample.at_s, bound
    return None


def lost(runs: Runs, level: float, others: int, count: int, noise: float, draw: Draw) -> Floats:
    """Return when each of so many runs at a level is lost; NaN: it is not.

    Args:
        runs: of one process.
        level: of the run; the others have 1.
        others: how many were measured before.
        count: how many runs.
        noise: between equal runs.
        draw: the source of chance.
    """
    found = np.full(count, np.nan)
    for number in range(count):
        chosen = draw.integers(len(runs.values), size=others)
        luck = np.exp(noise * draw.standard_normal(others))
        values = runs.values[chosen] * luck
        to_reach = value_to_reach(
            [float(value) for value in values],
            PRIOR,
            maximise=True,
            error=float(runs.errors[chosen][int(np.argmax(values))]),
        )
        factor = level * float(np.exp(noise * draw.standard_normal()))
        samples = runs.samples(int(draw.integers(len(runs.values))), factor)
        ended = lost_at(samples, to_reach)
        found[number] = np.nan if ended is None else ended[0]
    return found


def main(arguments: Sequence[str]) -> None:
    """Print, for each process, how often the best is ended, and what is saved on others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--noise", type=float, default=NOISE)
    given = parser.parse_args(arguments)
    levels = (0.9, 0.7, 0.5, 0.3)
    heads = " | ".join(f"at {level:g} of it" for level in levels)
    print(f"| process | best ended, 1 before | 5 before | 20 before | {heads} |")
    print("|---|" + "---|" * (3 + len(levels)))
    for seed, (name, process) in enumerate(PROCESSES.items()):
        draw = np.random.default_rng(seed)
        runs = Runs(process, POOL, draw)
        cells = []
        for others in (1, 5, 20):
            ended = lost(runs, 1.0, others, given.runs, given.noise, draw)
            cells.append(f"{np.isfinite(ended).mean():.2%}")
        for level in levels:
            ended = lost(runs, level, 5, max(50, given.runs // 10), given.noise, draw)
            saved = np.where(np.isfinite(ended), END_S - ended, 0.0).mean() / END_S
            cells.append(f"{np.isfinite(ended).mean():.0%}, {saved:.0%} saved")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
