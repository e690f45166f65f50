"""Trials over several hosts: the lead's side, behind the interface of lanes on one machine.

A host is a lane with a machine of its own, on which a worker (`worker.py`) runs. Lead and workers
meet in a team's database (`team.py`). The lead alone asks the search and writes the ledger; its
file comes first, and its lines go to the database for the workers to race against. Hosts are called
"host 1", "host 2": the names of machines stay in the database, because results are passed on.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from llmdyno.errors import DynoError, StorageError, UsageError
from llmdyno.machine.devices import Devices
from llmdyno.tune.database import Database, Row
from llmdyno.tune.lane import Came
from llmdyno.tune.lanes import Ended, Job, Lanes
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from llmdyno.tune.team import LEASE_S, TRIES, Posted, Team
from llmdyno.units import counted

_LOOK_S = 0.5  # between two looks at the jobs
_FRESH_S = 2.0  # how old what is known of the hosts may be
_NAME = "host "


class Hosts:
    """The machines of a team on which workers of a study run; see Devices for what each answers.

    Args:
        database: where they are found.
        wanted: how many there are to be.
        lease_s: without a sign of life from a worker, after which another has its job.

    Raises:
        UsageError: one host alone is asked for.
    """

    each = 1

    def __init__(self, database: Database, wanted: int, *, lease_s: float = LEASE_S) -> None:
        if wanted < 2:
            raise UsageError(
                f"--store {database.shown}: trials run over several hosts; say over how many with"
                " --parallel 2 or more, or leave it out."
            )
        self._database, self._wanted, self._lease_s = database, wanted, lease_s
        self._team: Team | None = None
        self._say: Callable[[str], None] = lambda _: None
        self._ledger = Path()
        self._pushed = 0  # lines of the ledger
        self._open = False  # workers have not been let go
        self._rows: Sequence[Row] = ()
        self._seen_s = float("-inf")
        self._admitted: set[str] = set()  # empty: whoever joins
        self._ended = threading.Event()

    def check(self) -> None:
        """See whether the database can be used, before anything starts.

        Raises:
            StorageError: it cannot be reached, or its tables cannot be made.
        """
        self._database.make_tables()

    def open(self, folder: Path, ledger: Ledger, say: Callable[[str], None]) -> None:
        """Offer the study to workers; they may join from now on.

        Raises:
            StorageError: the database cannot be used.
            UsageError: the study has run on one machine alone.
        """
        self._say = say
        self._database.advise(
            f" What was measured is kept; go on with: dyno tune --resume {folder}"
            f" --store {self._database.shown}"
        )
        if ledger.lanes and not are_hosts(ledger):
            raise UsageError(
                f"--store {self._database.shown}: the study's trials run in lanes of one machine;"
                " leave it out, or begin another study."
            )
        self._ledger = ledger.path
        with ledger.path.open("rb") as file:  # how it began tells it from others of its name
            began = hashlib.sha256(file.readline()).hexdigest()[:16]
        self._team = Team(self._database, began)
        self._team.open(folder.resolve().name, self._lease_s)
        self._open = True
        self.push()
        threading.Thread(target=self._live_on, args=(self._team,), daemon=True).start()
        say(
            f"Workers join with: dyno worker --store {self._database.shown}"
            f" --study {folder.resolve().name}"
        )

    def _live_on(self, team: Team) -> None:
        """Tell workers that the lead lives while it measures by itself and asks for no trial."""
        while not self._ended.wait(self._lease_s / 3):
            with contextlib.suppress(DynoError):  # who asks for something next says it
                team.beat_lead()

    def gather(self, known: Sequence[str], wait: Callable[[str], None]) -> None:
        """Wait until the hosts are there; whoever comes later is refused.

        Args:
            known: the hosts that the study has; empty: it is the first to have joined.
            wait: is told what is waited for.
        """
        self._admitted = set(known)
        least = 1 if known else self._wanted
        while len(self.usual) < least:
            wanted = " or ".join(known) if known else counted(self._wanted, "host")
            wait(f"{len(self.usual)} of {wanted} joined" if not known else f"waiting for {wanted}")
            time.sleep(_LOOK_S)
            self.team.look([])
        self._admitted |= set(self.usual)
        names = ", ".join(f"{_NAME}{row['number']} is {row['name']}" for row in self._live())
        self._say(f"{counted(len(self.usual), 'host')}: {names}.")

    def await_one(self, wait: Callable[[str], None]) -> None:
        """Wait until one of the hosts is there, if all are gone."""
        while not self.usual:
            wait("no host is there; a worker that comes back goes on")
            time.sleep(_LOOK_S)
            self.team.look([])

    @property
    def team(self) -> Team:
        """The study's rows; only after open()."""
        assert self._team is not None, "open() comes first"
        return self._team

    def push(self) -> None:
        """Bring the lines of the ledger's file that are new to the database."""
        whole = self._ledger.read_bytes().rpartition(b"\n")[0].decode().splitlines()
        self.team.push(self._pushed, whole[self._pushed :])
        self._pushed = len(whole)

    def release(self, state: str = "over") -> None:
        """Let the workers go: no further trial will be."""
        self.push()
        self._ended.set()
        self.team.close(state)
        self._open = False

    def close(self) -> None:
        """Bring the end of the ledger to the database; of a study that was stopped, say so."""
        self._ended.set()
        if self._team is None:
            return
        try:
            if self._open:
                self.release("stopped")
            self.push()
        finally:
            self._database.close()

    def begin(self, folder: Path) -> "Offered":
        """Return what offers jobs to the hosts."""
        return Offered(self, folder)

    def _live(self) -> Sequence[Row]:
        now_s = time.monotonic()
        if now_s - self._seen_s > _FRESH_S or not self._rows:
            self._rows, self._seen_s = self.team.hosts(), now_s
            late = [row for row in self._rows if self._admitted and not self._has(row)]
            for row in late:
                self.team.refuse(
                    row["number"], "the study has its hosts; start the worker before the trials"
                )
        return [row for row in self._rows if self._has(row) or not self._admitted]

    def _has(self, row: Row) -> bool:
        return f"{_NAME}{row['number']}" in self._admitted

    @property
    def usual(self) -> list[str]:
        """The hosts that are there, by name."""
        return [f"{_NAME}{row['number']}" for row in self._live()][: self._wanted]

    @property
    def lanes(self) -> int:
        """How many jobs are offered at once: one while nobody is there, for who comes back."""
        return max(1, len(self.usual))

    def lanes_without(self, name: str) -> int:
        """Return how many hosts there would be without this one."""
        return len([one for one in self.usual if one != name])

    def checked_by(self, name: str) -> list[str]:
        """Return where the baseline shows whether a host works: there."""
        return [name]

    @property
    def by_gpu(self) -> bool:
        """Whether the hosts have GPUs."""
        return self.parts > 0

    @property
    def parts(self) -> int:
        """How many GPUs each host has, as far as it can tell."""
        return max(0, min((int(row["gpus"]) for row in self._live()), default=0))

    def fits(self, gpus: int) -> bool:
        """Tell whether something that takes so many GPUs can run on a host; if unknown, it can."""
        known = [int(row["gpus"]) for row in self._live()]
        return not known or min(known) < 0 or gpus <= min(known)

    def admit(self, names: Sequence[str]) -> None:
        """Let these hosts alone have jobs: they are those that measured the baseline."""
        self._admitted = set(names)
        self._seen_s = float("-inf")

    def leave_out(self, name: str) -> None:
        """Let a host have no further job."""
        self._admitted = (self._admitted or {*self.usual}) - {name}
        self.team.refuse(int(name.removeprefix(_NAME)), "it is not like the others")
        self._seen_s = float("-inf")

    def hide_left_out(self) -> None:
        """Do nothing: what the lead starts runs on its own machine."""

    def show_all(self) -> None:
        """Do nothing, as hide_left_out()."""

    def boot_of(self, number: int) -> str:
        """Return which machine a host is, to tell whether two are one."""
        return next((str(row["boot"]) for row in self._rows if row["number"] == number), "")

    def say(self, line: str) -> None:
        """Tell the lead's user what befell a host."""
        self._say(line)


class _Job:
    def __init__(self, job: Job, number: int) -> None:
        self.job, self.id = job, number
        self.tries = self.beside = 0


class Offered:
    """Jobs that the hosts have or may take; the interface is that of Lanes."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._hosts, self._folder = hosts, folder
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
        host = int(job.device.removeprefix(_NAME)) if job.device else None
        tries = 1 if host is not None or job.alone else TRIES
        number = self._hosts.team.post(posted, host=host, tries_max=tries)
        self._running.append(_Job(job, number))
        return job.device or "a host"

    def wait(self, tell: Callable[[str], None] = lambda _: None) -> list[Ended]:
        """Wait until a job has ended; return those that have, none if none was offered.

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
                one.beside = max(one.beside, boots.count(self._hosts.boot_of(row["host"])))

    def _told(self, one: _Job, row: Row) -> str:
        where = f"on {_NAME}{row['host']}" if row["state"] == "leased" else "waits for a host"
        return f"{one.job.name} {where}"

    def _take(self, one: _Job, row: Row) -> Ended:
        self._running.remove(one)
        run = str(row["run"] or "")
        host = row["host"] if row["host"] is not None else row["wanted"]
        measurement = None
        if row["state"] == "done":
            came = msgspec.json.decode(row["came"], type=Came)
            if came.measurement is None:
                raise StorageError(f"{_NAME}{host}: {came.storage}")
            measurement = msgspec.structs.replace(came.measurement, folder=run)
        self._hosts.team.take(one.id, run or None, self._folder / run if run else self._folder)
        before_s, self._charged_s = self._charged_s, time.monotonic()
        return Ended(
            job=one.job,
            measurement=measurement,
            lost_why="" if measurement else "no worker that had it was heard of again",
            run=run,
            beside=one.beside,
            device=f"{_NAME}{host}",
            wall_s=self._charged_s - before_s,
        )


def are_hosts(ledger: Ledger) -> bool:
    """Tell whether a study's trials have run over hosts."""
    return any(name.startswith(_NAME) for name in ledger.lanes)


def offered(study: Study, folder: Path, devices: Devices | Hosts) -> Lanes | Offered:
    """Return what runs a study's jobs at once: on this machine's parts, or on hosts."""
    return devices.begin(folder) if isinstance(devices, Hosts) else Lanes(study, folder, devices)
