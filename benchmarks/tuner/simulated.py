"""Servers of known speed on a machine clock that jumps: what whole studies are judged on.

Only what starts a server is replaced: a run's journal is written as a server of that truth would
have left it. Baseline, search, best, pairs, ablation and document are those of `dyno tune`.
"""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from llmdyno import store
from llmdyno.cli import flags
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results import stats
from llmdyno.results.summary import summarise
from llmdyno.spec import Load
from llmdyno.tune import budgeted, lanes, runner
from llmdyno.tune.lane import CAME, ORDER, Came, Order
from llmdyno.tune.measure import Measurement
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.spec import Study

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # holds faulty.engine

_MS = 1_000_000
USERS, TOKENS = 2, 10
LEVEL_S, START_S = 8, 22  # of machine time, a run and a start
_MEAN_GAP_MS = 40.0  # of a server of speed 1
_STALL_MS = 3000.0
_BESIDE = 0.9  # the speed of a server that has a neighbour

Draw = np.random.Generator


class Moment(NamedTuple):
    """When a run begins."""

    at_s: float  # of machine time since the study began
    confirmed: int  # runs of the confirmation before it
    tried: int  # trials before it that started


# The logarithm of the machine's speed at a moment. A study draws one, so that it is random.
Drift = Callable[[Moment], float]


class World(NamedTuple):
    """How runs of equal configs differ, as shares of their speed."""

    start: float = 0.05  # what a start leaves behind
    inside: float = 0.05  # from second to second
    drift: Callable[[Draw], Drift] = lambda _: lambda _: 0.0
    stalls: float = 0.0  # share of runs that stand still for three seconds


class Truth(NamedTuple):
    """What a config comes to, without noise."""

    speed: float = 1.0  # 1: a token every 40 ms, a user
    itl_ms: float | None = (
        None  # between two tokens; what is left of the time goes before the first
    )
    failure: str = ""  # the class, of one that does not start or dies


class Simulated:
    """Stands where servers are started and measured.

    Args:
        truth: takes a config and the phase of the study, returns what it comes to.
        world: how runs differ.
        seed: of all that is random.
    """

    def __init__(
        self, truth: Callable[[Mapping[str, Any], str], Truth], world: World, seed: int
    ) -> None:
        self._truth, self._world = truth, world
        self._draw = np.random.default_rng(seed)
        self._drift = world.drift(self._draw)
        self._confirmed = self._tried = 0
        self._lanes: list[_Lane] = []
        self.at_s = 0.0  # of machine time

    def measure(self, _stack: Any, config: Mapping[str, Any], **named: Any) -> Measurement:
        """Return what a run came to, as tune.measure does."""
        folder: Path = named["folder"]
        load: Load = named["load"]
        phase = folder.name.split("-")[2]
        at_once = max(1, len(self._lanes))
        self.at_s += START_S / at_once
        truth = self._truth(config, phase)
        if truth.failure:
            return Measurement(failure_class=truth.failure, failure_why="it died.", start_s=START_S)
        moment = Moment(self.at_s, self._confirmed, self._tried)
        log = self._drift(moment) + self._draw.normal(0, self._world.start)
        log += math.log(truth.speed * (_BESIDE if self._lanes else 1.0))
        itl_ms = truth.itl_ms and truth.itl_ms * math.exp(self._draw.normal(0, self._world.start))
        self._write(folder, log, itl_ms, load, named["slos"])
        self.at_s += load.duration_s / at_once
        self._confirmed += phase == "confirm"
        self._tried += phase == "trial"
        summary = store.read_json(folder / store.SUMMARY)
        return Measurement(summary=summary, start_s=START_S, measure_s=load.duration_s)

    def start_lane(self, run: Path, _environment: Mapping[str, str]) -> "_Lane":
        """Begin what an order says, as lanes.start_lane() does; the first that began ends first."""
        lane = _Lane(self._lanes)
        order = msgspec.json.decode((run / ORDER).read_bytes(), type=Order)
        came = self.measure(None, order.config, folder=run, load=order.load, slos=order.study.slos)
        store.write_atomically(run / CAME, msgspec.json.encode(Came(measurement=came)))
        return lane

    def _write(self, folder: Path, log: float, itl_ms: float | None, load: Load, slos: Any) -> None:
        """Write the journal and the summary of a run of this speed."""
        draw, seconds = self._draw, math.ceil(load.duration_s)
        speed = np.exp(log + draw.normal(0, self._world.inside, seconds))
        stall_s = draw.uniform(1, 4) if draw.random() < self._world.stalls else math.inf
        records = sorted(
            (
                record
                for user in range(USERS)
                for record in self._of_user(user, speed, stall_s, itl_ms)
            ),
            key=lambda record: record.sent_ns,
        )
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / store.JOURNAL)
        journal.append(
            Opened(
                run=folder.name,
                started="2026-11-29T07:00:00+00:00",
                spec={
                    "load": {"interval_s": 1.0, "duration_s": seconds},
                    "slos": msgspec.to_builtins(slos),
                },
                environment={},
            )
        )
        journal.append(LevelStarted(level=0, users=USERS, start_ns=0, ramp_ns=0))
        for record in records:
            journal.append(record)
        end_ns = seconds * 1000 * _MS
        journal.append(LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns))
        journal.close()
        store.write_json(folder / store.SUMMARY, summarise(folder / store.JOURNAL))

    def _of_user(
        self, user: int, speed: np.ndarray, stall_s: float, itl_ms: float | None
    ) -> list[Record]:
        made: list[Record] = []
        end_ms = len(speed) * 1000
        at_ms = self._draw.uniform(0, _MEAN_GAP_MS)
        while at_ms < end_ms:
            own = self._draw.gamma(50.0, 0.02, TOKENS)
            gaps = own * _gaps_ms(float(speed[int(at_ms / 1000)]), itl_ms)
            if at_ms <= stall_s * 1000 < at_ms + gaps.sum():
                gaps[-1] += _STALL_MS
            whole = at_ms + gaps.sum() < end_ms
            if not whole:  # the level's end cuts it; what it had by then counts
                gaps = gaps[: int(np.searchsorted(at_ms + gaps.cumsum(), end_ms))]
            made.append(_record(user, len(made), int(at_ms * _MS), gaps, whole=whole))
            at_ms = at_ms + float(gaps.sum()) if whole else math.inf
        return made


class _Lane:
    """Stands for the process of a lane whose server is simulated; the first that began ends."""

    pid = 0

    def __init__(self, running: "list[_Lane]") -> None:
        self._running = running
        running.append(self)

    def ended(self) -> bool:
        return self._running[0] is self

    def succeeded(self) -> bool:
        return True

    def stop(self) -> None:
        if self in self._running:
            self._running.remove(self)


def _gaps_ms(speed: float, itl_ms: float | None) -> np.ndarray:
    """Return the mean gaps before each token of a request."""
    whole_ms = TOKENS * _MEAN_GAP_MS / speed
    later_ms = whole_ms / TOKENS if itl_ms is None else itl_ms
    return np.array([whole_ms - (TOKENS - 1) * later_ms, *[later_ms] * (TOKENS - 1)])


def _record(user: int, number: int, sent_ns: int, gaps_ms: np.ndarray, *, whole: bool) -> Record:
    return Record(
        level=0,
        request=USERS * number + user,
        user=user,
        prompt=USERS * number + user,
        due_ns=sent_ns,
        sent_ns=sent_ns,
        end_ns=int(gaps_ms.sum() * _MS),
        outcome="completed" if whole else "cut",
        status=200,
        finish="stop" if whole else "",
        source="usage",
        input_tokens=30,
        output_tokens=len(gaps_ms),
        reads=len(gaps_ms),
        gaps_ns=tuple(int(gap * _MS) for gap in gaps_ms),
    )


def spec(asked: Mapping[str, Any]) -> Study:
    """Return the spec of a study of simulated servers, with what is asked for beside."""
    return flags.study_spec(
        {
            "engine": "faulty.engine",
            "model": "m",
            "users": str(USERS),
            "quality": False,
            "duration": f"{LEVEL_S}s",
            "trial_duration": f"{LEVEL_S}s",
            "interval": "1s",
            "race": False,
            **asked,
        }
    )


@contextmanager
def standing_in(simulated: Simulated) -> Iterator[tuple[Path, Narrator]]:
    """Let it measure, and its clock tell the time; yield a folder and a silent narrator."""
    stats.RESAMPLES = 10  # of intervals in the runs' own summaries, which no study reads
    shared_memory = Path("/dev/shm")  # noqa: S108 - a ledger syncs each line
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        vars(runner)["measure"] = simulated.measure
        vars(budgeted)["monotonic"] = lambda: simulated.at_s
        vars(lanes)["start_lane"] = simulated.start_lane
        vars(lanes)["time"] = SimpleNamespace(
            monotonic=lambda: simulated.at_s, sleep=lambda _: None
        )
        narrator = Narrator(
            notify=lambda _: None,
            notify_waiting=lambda _: None,
            display=lambda *_: lambda *_: None,
        )
        yield Path(name, "s"), narrator


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
