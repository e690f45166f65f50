"""Lanes: servers that are measured at once, each by a process of its own on a part of the machine.

A lane's process (`lane.py`) runs on a leash: it ends with us, however we end, and with it its
server. Only we write to the ledger.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.knobs import Value
from llmdyno.machine.devices import Devices, Lease
from llmdyno.processes import launch
from llmdyno.processes.child import Child, end_of
from llmdyno.spec import Load
from llmdyno.tune.entries import Phase, Step, label
from llmdyno.tune.lane import CAME, ORDER, Came, Order
from llmdyno.tune.measure import STANDS_MAX, Measurement, counts_anyhow
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study

LOG = "lane.log"
_LOOK_S = 0.1  # between two looks at the lanes
# For the lane alone: numpy's BLAS would start threads that measure nothing and spin.
_FOR_US = {"OPENBLAS_NUM_THREADS": "1"}
_TELL_S = 1.0  # between two words on what they do


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one lane is to measure."""

    phase: Phase
    number: int
    config: dict[str, Value]
    load: Load
    gpus: int = 0  # that it takes
    races: bool = True  # it is ended once it cannot win any more
    alone: bool = False  # nothing is to run beside it
    why: str = ""  # it is measured, in words
    device: str = ""  # what part of the machine it must have; empty: any
    stands: int = 0  # so often its process was stopped, and it was begun again
    dropped_s: float = 0.0  # what that took of the study's time

    @property
    def name(self) -> str:
        """What a person calls it."""
        return label(self.phase, self.number)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that has ended; without a measurement it was killed."""

    job: Job
    measurement: Measurement | None
    lost_why: str
    run: str  # its folder within the study's
    beside: int  # how many others ran meanwhile, at most
    device: str
    wall_s: float  # of the study's time, that is charged to it
    recorded: Callable[[], None] = lambda: None  # is called once the ledger has it


class _Running:
    def __init__(self, job: Job, lease: Lease, run: Path, child: Child) -> None:
        self.job, self.lease, self.run, self.child = job, lease, run, child
        self.beside = 0
        self.began_s = time.monotonic()

    def told(self) -> str:
        """Say what it is, where, and for how long it has run."""
        return f"{self.job.name} on {self.lease}, {time.monotonic() - self.began_s:.0f} s"


class Lanes:
    """What runs at once; leaving the context stops it.

    Args:
        study: what is tuned.
        folder: of the study.
        devices: what the lanes share out.
    """

    def __init__(self, study: Study, folder: Path, devices: Devices) -> None:
        self._study, self._folder, self._devices = study, folder, devices
        self._running: list[_Running] = []
        self._charged_s = time.monotonic()  # until when the time is charged to those that ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in self._running:  # all at once, so that they stop their servers at once
            # 0: a leash that is slow has not told it yet; that would be this very process' group.
            if not one.child.ended() and one.child.pid:
                with suppress(OSError):
                    os.kill(one.child.pid, signal.SIGTERM)
        with ExitStack() as each:  # what one raises comes after all have been stopped
            for one in reversed(self._running):
                each.callback(tidy, one.run)
                each.callback(self._devices.give_back, one.lease)
                each.callback(one.child.stop)
            self._running = []

    @property
    def jobs(self) -> list[Job]:
        """The jobs that have a lane now, in the order in which they began."""
        return [one.job for one in self._running]

    def start(self, job: Job) -> str | None:
        """Start a lane; return what part of the machine it has, None if it must wait for one.

        Raises:
            StorageError: its folder cannot be written.
        """
        beside = [one.job for one in self._running]
        if len(beside) == self._devices.lanes or any(one.alone for one in beside):
            return None
        if job.alone and beside:
            return None
        lease = self._devices.take(job.gpus, job.device)
        if lease is None:
            return None
        if not beside:
            self._charged_s = time.monotonic()
        run = self._folder / "runs" / store.new_id(job.name)
        store.make_folder(run)
        order = Order(
            study=self._study,
            folder=str(self._folder),
            run=str(run.relative_to(self._folder)),
            config=job.config,
            load=job.load,
            cores=lease.cores,
            imports=tuple(sys.path),
            unset=tuple(ours()),
            races=job.races,
        )
        store.write_atomically(run / ORDER, msgspec.json.encode(order))
        self._running.append(_Running(job, lease, run, start_lane(run, lease.environment)))
        for one in self._running:
            one.beside = max(one.beside, len(self._running) - 1)
        return str(lease)

    def wait(self, tell: Callable[[str], None] = lambda _: None) -> list[Ended]:
        """Wait until a lane has ended; return those that have, none if nothing runs.

        Args:
            tell: is told once a second what runs.

        Raises:
            StorageError: a lane could not write its results.
        """
        told_s = 0.0
        while True:
            ended = [one for one in self._running if one.child.ended()]
            if ended or not self._running:
                return [self._take(one) for one in ended]
            if time.monotonic() - told_s >= _TELL_S:
                told_s = time.monotonic()
                tell("; ".join(one.told() for one in self._running))
            time.sleep(_LOOK_S)

    def _take(self, one: _Running) -> Ended:
        failure = None if one.child.succeeded() else one.child.failure()
        one.child.stop()
        self._running.remove(one)
        self._devices.give_back(one.lease)
        place = one.run / CAME
        measurement = None
        if place.exists():
            came = msgspec.json.decode(place.read_bytes(), type=Came)
            if came.measurement is None:
                raise StorageError(came.storage)
            run = str(one.run.relative_to(self._folder))
            measurement = msgspec.structs.replace(came.measurement, folder=run)
            tidy(one.run)
        return Ended(
            job=one.job,
            measurement=measurement,
            lost_why="" if measurement else str(failure or "it ended without a result"),
            run=str(one.run.relative_to(self._folder)),
            beside=one.beside,
            device=str(one.lease),
            wall_s=self._charged(),
        )

    def _charged(self) -> float:
        """Return how much time has gone by since a lane ended, or since the first was begun."""
        before_s, self._charged_s = self._charged_s, time.monotonic()
        return self._charged_s - before_s


def once_more(runner: Runner, ended: Ended) -> Job | None:
    """Return the job of a lane whose process was stopped, to be begun again; None: it counts.

    It counts where nothing was stopped, and if it was the third time. It is told why.
    """
    job, measurement = ended.job, ended.measurement
    if measurement is None or not measurement.stood_s:
        return None
    where = f"{job.name} on {ended.device}"
    if job.stands == STANDS_MAX:
        runner.say(f"  ! {counts_anyhow(where, measurement.stood_s)}")
        return None
    runner.say(f"  ! {where}: its process was stopped for {measurement.stood_s:.0f} s.")
    ended.recorded()  # what it measured is not wanted
    return msgspec.structs.replace(
        job, stands=job.stands + 1, dropped_s=job.dropped_s + ended.wall_s
    )


def record(runner: Runner, ended: Ended) -> Step:
    """Append to the ledger what came of a lane, and tell it; one that was killed has died."""
    job, measurement = ended.job, ended.measurement
    if measurement is None:
        why = f"the process that measured it was lost: {ended.lost_why}"
        measurement = Measurement(failure_class="died", failure_why=why, folder=ended.run)
    step = runner.record(
        measurement,
        job.phase,
        job.number,
        job.config,
        beside=ended.beside,
        device=ended.device,
        wall_s=round(ended.wall_s, 3),
        dropped_s=round(job.dropped_s, 3),
    )
    ended.recorded()
    return step


def tidy(run: Path) -> None:
    """Remove from a run's folder what a lane and we have told each other."""
    for name in (ORDER, CAME, LOG):
        (run / name).unlink(missing_ok=True)


def ours() -> dict[str, str]:
    """Return the variables for lanes alone, but for those that the user has set."""
    return {name: value for name, value in _FOR_US.items() if name not in os.environ}


def start_lane(run: Path, environment: Mapping[str, str]) -> Child:
    """Start the process that measures what the order in a run's folder says.

    Raises:
        StorageError: its log cannot be written.
    """
    command = launch.Step(
        what="measure a config",
        argv=(sys.executable, "-m", "llmdyno.tune.lane", str(run)),
        environment={**ours(), **environment},
    )
    log = run / LOG
    try:
        with log.open("wb") as output:
            return Child(command, output.fileno(), lambda: end_of(log))
    except OSError as error:
        raise StorageError(f"{log}: cannot write a lane's log: {error.strerror}.") from error
