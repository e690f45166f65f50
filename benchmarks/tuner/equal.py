"""Whole studies of configs that are equally fast, and of one that is 10 % faster.

    python benchmarks/tuner/equal.py [--studies 100] [--truths equal,faster] [--worlds ...]

Each study goes the whole road of `dyno tune`: baseline, search, best, pairs, document. Only what
starts a server is replaced: a run's journal is written as a server of that truth would have left
it, on a machine clock that jumps. The pairs are as many as the plan asks for.

equal     no knob does anything; "better" and "worse" are false alarms
faster    fast=true is 10 % faster; it is found if it is best, and called better
dies      so it is, and it dies in the confirmation; it must be neither
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "tests"))

from llmdyno import store  # noqa: E402 - the tests' folder holds the engine
from llmdyno.cli import flags  # noqa: E402
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record  # noqa: E402
from llmdyno.records.journal import Journal  # noqa: E402
from llmdyno.results import stats  # noqa: E402
from llmdyno.results.summary import summarise  # noqa: E402
from llmdyno.tune import runner  # noqa: E402
from llmdyno.tune.measure import Measurement  # noqa: E402
from llmdyno.tune.narrator import Narrator  # noqa: E402
from llmdyno.tune.tuner import Tuner  # noqa: E402

EFFECT = 0.10
_MS = 1_000_000
_USERS, _TOKENS, _TTFT_MS, _ITL_MS = 2, 10, 40.0, 40.0
_LEVEL_S, _START_S = 8, 22  # of machine time, a run and a start
_STALL_MS = 3000.0

Draw = np.random.Generator


class Moment(NamedTuple):
    """When a run begins."""

    at_s: float  # of machine time since the study began
    confirmed: int  # runs of the confirmation before it


# The logarithm of the machine's speed at a moment. A study draws one, so that it is random.
Drift = Callable[[Moment], float]


class World(NamedTuple):
    """How runs of equal configs differ, as shares of their speed."""

    start: float = 0.05  # what a start leaves behind
    inside: float = 0.05  # from second to second
    drift: Callable[[Draw], Drift] = lambda _: lambda _: 0.0
    stalls: float = 0.0  # share of runs that stand still for three seconds


def _walk(draw: Draw) -> Drift:
    """Walk 1 % a run, up or down."""
    steps = np.cumsum(draw.normal(0, 0.01, 1000))
    return lambda moment: float(steps[int(moment.at_s / (_START_S + _LEVEL_S))])


def _steady(draw: Draw) -> Drift:
    """Slow down, or speed up, by 10 % within the first 12 runs of the confirmation."""
    way = draw.choice((-1.0, 1.0))
    return lambda moment: way * math.log(1.1) * min(1.0, moment.confirmed / 12)


def _step(draw: Draw) -> Drift:
    """Slow down by 10 % before one of the first 12 runs of the confirmation."""
    at = draw.integers(1, 12)
    return lambda moment: math.log(0.9) * (moment.confirmed >= at)


def _wave(draw: Draw) -> Drift:
    """Rise and fall by 5 % every ten runs, as a room's temperature does."""
    begin = draw.uniform(0, 2 * math.pi)
    return lambda moment: 0.05 * math.sin(begin + 2 * math.pi * moment.at_s / 300)


WORLDS: Mapping[str, World] = {
    "noise 5 %": World(),
    "quiet": World(start=0.005, inside=0.01),
    "slow walk": World(drift=_walk),
    "10 % slower or faster in the confirmation": World(drift=_steady),
    "10 % slower at once": World(drift=_step),
    "a wave of 5 %": World(drift=_wave),
    "one run of 20 stalls": World(stalls=0.05),
    "quiet, 10 % slower at once": World(start=0.005, inside=0.01, drift=_step),
    "quiet, one run of 20 stalls": World(start=0.005, inside=0.01, stalls=0.05),
}


class Simulated:
    """Stands where servers are started and measured."""

    def __init__(self, truth: str, world: World, seed: int) -> None:
        self._truth, self._world = truth, world
        self._draw = np.random.default_rng(seed)
        self._drift = world.drift(self._draw)
        self._at_s = 0.0
        self._confirmed = 0

    def measure(self, _stack: Any, config: Mapping[str, Any], **named: Any) -> Measurement:
        """Return what a run came to, as tune.measure does."""
        folder: Path = named["folder"]
        confirms = folder.name.split("-")[2] == "confirm"
        self._at_s += _START_S
        if self._truth == "dies" and confirms and config.get("fast"):
            return Measurement(failure_class="died", failure_why="it died.", start_s=_START_S)
        moment = Moment(self._at_s, self._confirmed)
        log = self._drift(moment) + self._draw.normal(0, self._world.start)
        if self._truth != "equal" and config.get("fast"):
            log += math.log1p(EFFECT)
        self._write(folder, log)
        self._at_s += _LEVEL_S
        self._confirmed += confirms
        summary = store.read_json(folder / store.SUMMARY)
        return Measurement(summary=summary, start_s=_START_S, measure_s=_LEVEL_S)

    def _write(self, folder: Path, log: float) -> None:
        """Write the journal and the summary of a run of this speed."""
        draw = self._draw
        speed = np.exp(log + draw.normal(0, self._world.inside, _LEVEL_S))
        stall_s = draw.uniform(1, 4) if draw.random() < self._world.stalls else math.inf
        records = sorted(
            (record for user in range(_USERS) for record in self._of_user(user, speed, stall_s)),
            key=lambda record: record.sent_ns,
        )
        folder.mkdir(parents=True)
        journal = Journal(folder / store.JOURNAL)
        journal.append(
            Opened(
                run=folder.name,
                started="2026-11-29T07:00:00+00:00",
                spec={"load": {"interval_s": 1.0, "duration_s": _LEVEL_S}},
                environment={},
            )
        )
        journal.append(LevelStarted(level=0, users=_USERS, start_ns=0, ramp_ns=0))
        for record in records:
            journal.append(record)
        end_ns = _LEVEL_S * 1000 * _MS
        journal.append(LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns))
        journal.close()
        store.write_json(folder / store.SUMMARY, summarise(folder / store.JOURNAL))

    def _of_user(self, user: int, speed: np.ndarray, stall_s: float) -> list[Record]:
        made: list[Record] = []
        at_ms = self._draw.uniform(0, _ITL_MS)
        while at_ms < _LEVEL_S * 1000:
            own = self._draw.gamma(50.0, 0.02, _TOKENS)
            gaps = own * np.array([_TTFT_MS, *[_ITL_MS] * (_TOKENS - 1)]) / speed[int(at_ms / 1000)]
            if at_ms <= stall_s * 1000 < at_ms + gaps.sum():
                gaps[-1] += _STALL_MS
            sent_ns, at_ms = int(at_ms * _MS), at_ms + float(gaps.sum())
            if at_ms < _LEVEL_S * 1000:
                made.append(_record(user, len(made), sent_ns, gaps))
        return made


def _record(user: int, number: int, sent_ns: int, gaps_ms: np.ndarray) -> Record:
    return Record(
        level=0,
        request=_USERS * number + user,
        user=user,
        prompt=_USERS * number + user,
        due_ns=sent_ns,
        sent_ns=sent_ns,
        end_ns=int(gaps_ms.sum() * _MS),
        outcome="completed",
        status=200,
        finish="stop",
        source="usage",
        input_tokens=30,
        output_tokens=_TOKENS,
        reads=_TOKENS,
        gaps_ns=tuple(int(gap * _MS) for gap in gaps_ms),
    )


class Found(NamedTuple):
    """What a study said."""

    word: str
    best: Mapping[str, Any]
    pairs: int
    rejected: int
    ratio: tuple[float, float] | None  # its interval


def study(task: tuple[str, str, int, Mapping[str, Any]]) -> Found:
    """Run one study; return what it said."""
    truth, world, seed, asked = task
    simulated = Simulated(truth, WORLDS[world], seed)
    stats.RESAMPLES = 100  # of intervals in the runs' own summaries, which no study reads
    spec = flags.study_spec(
        {
            "engine": "faulty.engine",
            "model": "m",
            "users": str(_USERS),
            "quality": False,
            "duration": f"{_LEVEL_S}s",
            "trial_duration": f"{_LEVEL_S}s",
            "interval": "1s",
            "seed": seed,
            "race": False,
            **asked,
        }
    )
    shared_memory = Path("/dev/shm")  # noqa: S108 - a ledger syncs each line
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        vars(runner)["measure"] = simulated.measure
        narrator = Narrator(
            notify=lambda _: None,
            notify_waiting=lambda _: None,
            display=lambda *_: lambda *_: None,
        )
        document = Tuner(spec, Path(name, "s"), narrator).run()
    confirmation = document["confirmation"]
    interval = confirmation["ratio"].get("token_rate", {}).get("ci95")
    return Found(
        word=confirmation["verdict"],
        best=document["best"]["config"],
        pairs=confirmation["pairs"],
        rejected=len(document["rejected"]),
        ratio=interval and (interval[0], interval[1]),
    )


def wilson(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z = 1.96
    middle = (count + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(count * (of - count) / of + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def told(count: int, of: int) -> str:
    """Say a share with its interval: "3 % [1, 8]"."""
    low, high = wilson(count, of)
    return f"{count / of:.0%} [{100 * low:.0f}, {100 * high:.0f}]".replace("%", " %")


def row(truth: str, world: str, found: Sequence[Found]) -> str:
    """Return a line of the table."""
    words = [one.word for one in found]
    if truth == "equal":
        count, said = sum(word in {"better", "worse"} for word in words), "called different"
    elif truth == "faster":
        count = sum(one.word == "better" and bool(one.best.get("fast")) for one in found)
        said = "found"
    else:
        count = sum(one.word == "better" or bool(one.best.get("fast")) for one in found)
        said = "called better, or best"
    pairs = np.mean([one.pairs for one in found])
    others = ", ".join(f"{word} {words.count(word)}" for word in sorted(set(words)))
    return f"| {truth} | {world} | {said} {told(count, len(found))} | {pairs:.1f} | {others} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Studies of equal configs, and of one at +10 %.")
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--truths", default="equal,faster,dies")
    parser.add_argument("--worlds", help="numbers of WORLDS from 0 on, with commas; default: all")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--search", default="fast,idle,itl_ms")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    asked = {"trials": given.trials, "search": given.search}
    names = list(WORLDS)
    if given.worlds:
        names = [names[int(number)] for number in given.worlds.split(",")]
    print("| truth | world | what came out | pairs | verdicts |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(given.processes) as pool:
        for truth in given.truths.split(","):
            for world in names:
                seeds = range(given.first, given.first + given.studies)
                found = list(pool.map(study, [(truth, world, seed, asked) for seed in seeds]))
                print(row(truth, world, found), flush=True)


if __name__ == "__main__":
    main()
