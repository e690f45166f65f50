"""Jobs that are offered to the hosts of a team, behind the interface of lanes on one machine."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.machine.devices import Devices
from llmdyno.tune.crew import NAME
from llmdyno.tune.database import Row
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.jobs import Posted
from llmdyno.tune.lane import Came
from llmdyno.tune.lanes import Ended, Job, Lanes
from llmdyno.tune.runner import Runner
from llmdyno.tune.team import TRIES

_LOOK_S = 0.5  # between two looks at the jobs


class _Job:
    def __init__(self, job: Job, number: int) -> None:
        self.job, self.id = job, number
        self.tries = self.beside = 0


class Offered:
    """Jobs that the hosts have or may take; the interface is that of Lanes."""

    def __init__(self, hosts: Hosts, folder: Path, over: Callable[[], bool]) -> None:
        self._hosts, self._folder, self._over = hosts, folder, over
        self._running: list[_Job] = []
        self._charged_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running = []  # who ends the study takes them back: Hosts.close()

    @property
    def jobs(self) -> list[Job]:
        """The jobs that were offered and have not ended."""
        return [one.job for one in self._running]

    def start(self, job: Job) -> str | None:
        """Offer a job; return for whom it is, None if it must wait until nothing else runs.

        Raises:
            StorageError: the database is away.
        """
        if any(one.alone for one in self.jobs) or (job.alone and self._running):
            return None
        if not self._running:
            self._charged_s = time.monotonic()
        self._hosts.push()
        posted = Posted(
            phase=job.phase,
            number=job.number,
            config=job.config,
            load=job.load,
            races=job.races,
        )
        host = int(job.device.removeprefix(NAME)) if job.device else None
        tries = 1 if host is not None or job.alone else TRIES
        number = self._hosts.team.post(posted, host=host, tries_max=tries)
        self._running.append(_Job(job, number))
        return job.device or "a host"

    def wait(self, tell: Callable[[str], None] = lambda _: None) -> list[Ended]:
        """Wait until a job has ended; return those that have.

        None has if none was offered, or if no host is there and it is waited for no longer.

        Args:
            tell: is told what runs where.

        Raises:
            StorageError: the database is away, or results cannot be written here.
        """
        while self._running:
            rows = self._hosts.team.look([one.id for one in self._running])
            self._see(rows)
            ended = [one for one in self._running if rows[one.id]["state"] in {"done", "lost"}]
            if ended:
                return [self._take(one, rows[one.id]) for one in ended]
            if self._hosts.deserted() and self._over():
                return []
            tell("; ".join(self._told(one, rows[one.id]) for one in self._running))
            time.sleep(_LOOK_S)
        return []

    def _see(self, rows: dict[int, Row]) -> None:
        """Notice who runs beside whom on one machine, and who was lost."""
        for one in self._running:
            row = rows[one.id]
            if row["tries"] > one.tries > 0:
                self._hosts.say(f"  {one.job.name}: its worker was lost; another one has it.")
            one.tries = row["tries"]
            boots = [
                self._hosts.boot_of(other["host"])
                for other in rows.values()
                if other["state"] == "leased" and other is not row
            ]
            if row["state"] == "leased":
                boot = self._hosts.boot_of(row["host"])
                one.beside = max(one.beside, boots.count(boot) if boot else 0)

    def _told(self, one: _Job, row: Row) -> str:
        where = f"on {NAME}{row['host']}" if row["state"] == "leased" else "waits for a host"
        return f"{one.job.name} {where}"

    def _take(self, one: _Job, row: Row) -> Ended:
        self._running.remove(one)
        run = str(row["run"] or "")
        host = row["host"] if row["host"] is not None else row["wanted"]
        team, measurement = self._hosts.team, None
        taken = partial(team.take, one.id, run or None)
        if row["state"] == "done":
            came = msgspec.json.decode(row["came"], type=Came).measurement
            assert came is not None, "a worker that cannot write delivers nothing"
            measurement = msgspec.structs.replace(came, folder=run)
            write_run(self._folder, run, team.files(run))
        else:
            taken()  # nothing was measured that could be lost
        before_s, self._charged_s = self._charged_s, time.monotonic()
        return Ended(
            job=one.job,
            measurement=measurement,
            lost_why="" if measurement else "no worker that had it was heard of again",
            run=run,
            beside=one.beside,
            device=f"{NAME}{host}",
            wall_s=self._charged_s - before_s,
            recorded=taken if measurement else lambda: None,
        )


def write_run(study: Path, run: str, files: Mapping[str, bytes]) -> None:
    """Write what a worker has delivered of a run into a study's folder.

    Raises:
        StorageError: a file cannot be written, or would lie outside of the study's runs.
    """
    runs, folder = (study / "runs").resolve(), study / run
    parts, place = Path(run).parts, folder.resolve()
    if parts[:1] != ("runs",) or ".." in parts or runs not in place.parents:
        raise StorageError(f"{run}: is no run of a study; nothing was written.")
    for name, content in files.items():
        path = folder / name
        if place not in path.resolve().parents:
            raise StorageError(f"{name}: is no file of a run; nothing was written.")
        store.make_folder(path.parent)
        store.write_atomically(path, content)


def offered(runner: Runner, devices: Devices | Hosts, over: Callable[[], bool]) -> Lanes | Offered:
    """Return what runs a study's jobs at once: on this machine's parts, or on hosts.

    Args:
        runner: of the study.
        devices: where they run.
        over: tells, while no host is there, whether none is waited for any longer.
    """
    if isinstance(devices, Hosts):
        return Offered(devices, runner.folder, over)
    return Lanes(runner.study, runner.folder, devices)
