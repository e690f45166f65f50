"""Lanes: servers that are measured at once, each by a process of its own on a part of the machine.

A lane's process (`lane.py`) runs on a leash: it ends with us, however we end, and with it its
server. Only we write to the ledger.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
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
from llmdyno.tune.lane import CAME, ORDER, Came, Order
from llmdyno.tune.ledger import Phase
from llmdyno.tune.measure import Measurement
from llmdyno.tune.spec import Study

LOG = "lane.log"
_LOOK_S = 0.1  # between two looks at the lanes


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one lane is to measure."""

    phase: Phase
    number: int
    config: dict[str, Value]
    load: Load
    gpus: int = 0  # that it takes
    races: bool = True  # it is ended once it cannot win any more


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that has ended; without a measurement it was killed."""

    job: Job
    measurement: Measurement | None
    lost_why: str
    beside: int  # how many others ran meanwhile, at most
    device: str


class _Running:
    def __init__(self, job: Job, lease: Lease, run: Path, child: Child) -> None:
        self.job, self.lease, self.run, self.child = job, lease, run, child
        self.beside = 0


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in self._running:  # all at once, so that they stop their servers at once
            with suppress(OSError):
                os.kill(one.child.pid, signal.SIGTERM)
        for one in self._running:
            one.child.stop()
        self._running = []

    @property
    def jobs(self) -> list[Job]:
        """What runs now."""
        return [one.job for one in self._running]

    def start(self, job: Job) -> str | None:
        """Start a lane; return what part of the machine it has, None if that is not free now.

        Raises:
            StorageError: its folder cannot be written.
        """
        if len(self._running) == self._study.parallel:
            return None
        lease = self._devices.take(job.gpus)
        if lease is None:
            return None
        label = job.phase if job.phase == "reference" else f"{job.phase} {job.number + 1}"
        run = self._folder / "runs" / store.new_id(label)
        store.make_folder(run)
        order = Order(
            study=self._study,
            folder=str(self._folder),
            run=str(run.relative_to(self._folder)),
            config=job.config,
            load=job.load,
            cores=lease.cores,
            imports=tuple(sys.path),
            races=job.races,
        )
        store.write_atomically(run / ORDER, msgspec.json.encode(order))
        self._running.append(_Running(job, lease, run, _child(run, lease.environment)))
        for one in self._running:
            one.beside = max(one.beside, len(self._running) - 1)
        return str(lease)

    def wait(self) -> list[Ended]:
        """Wait until a lane has ended; return those that have.

        Raises:
            StorageError: a lane could not write its results.
        """
        while True:
            ended = [one for one in self._running if one.child.ended()]
            if ended or not self._running:
                return [self._take(one) for one in ended]
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
            measurement = msgspec.structs.replace(
                came.measurement, folder=str(one.run.relative_to(self._folder))
            )
            for file in (one.run / ORDER, place, one.run / LOG):
                file.unlink(missing_ok=True)
        return Ended(
            job=one.job,
            measurement=measurement,
            lost_why="" if measurement else str(failure or "it ended without a result"),
            beside=one.beside,
            device=str(one.lease),
        )


def _child(run: Path, environment: Mapping[str, str]) -> Child:
    command = launch.Step(
        what="measure a config",
        argv=(sys.executable, "-m", "llmdyno.tune.lane", str(run)),
        environment=environment,
    )
    log = run / LOG
    try:
        with log.open("wb") as output:
            return Child(command, output.fileno(), lambda: end_of(log))
    except OSError as error:
        raise StorageError(f"{log}: cannot write a lane's log: {error.strerror}.") from error
