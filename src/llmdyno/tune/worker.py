"""A worker: measures trials of somebody's study on this machine, one at a time.

It takes jobs from a team's database (`team.py`) and measures each as a lane does, in a process of
its own on a leash (`lane.py`), with a server on loopback. What came goes to the database with the
run's files. It renews its lease meanwhile; if somebody else has the job by then, what it measured
is dropped. It asks no search and writes no ledger.
"""

import secrets
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import DynoError, StorageError, UsageError
from llmdyno.machine import environment, hardware
from llmdyno.processes import presence
from llmdyno.processes.child import Child
from llmdyno.processes.secrets import redact
from llmdyno.tune import going_on
from llmdyno.tune.database import VERSION, Database, Row
from llmdyno.tune.entries import label
from llmdyno.tune.folder import stack_of
from llmdyno.tune.jobs import Leased
from llmdyno.tune.lane import CAME, ORDER, Came, Order
from llmdyno.tune.lanes import ours, start_lane, tidy
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import SERVER_FILES, Measurement
from llmdyno.tune.team import Team

_LOOK_S = 0.2  # between two looks at the process that measures
_IDLE_S = 1.0  # between two questions for a job
_BEATS = 5  # signs of life within a lease
_AWAY_S = 600.0  # without a sign of the lead, after which nobody waits for it


def work(
    database: Database, folder: Path, *, study: str, name: str, say: Callable[[str], None]
) -> int:
    """Measure jobs of a study until there are no more; return how many were delivered.

    Args:
        database: of the team.
        folder: for runs while they are measured.
        study: its name or its id; empty: the only one that is at work.
        name: what this machine is called among the hosts.
        say: is told what goes on.

    Raises:
        UsageError: there is no such study, or this machine is unlike the lead's.
        DynoError: the lead refuses this host, was stopped, or not heard of for ten minutes; the
            engine was replaced by another version meanwhile.
        StorageError: the database stays away, or nothing can be written here.
    """
    return _Worker(_found(database, study, say), folder, say).run(name)


def studies_at_work(database: Database) -> list[Row]:
    """Return the studies whose trials run now: `study`, `name`, `version`; the tables are there."""
    return database.ask(
        "SELECT study, name, version FROM dyno_studies WHERE state = 'trials'"
        " AND seen > now() - make_interval(secs => 2 * lease_s) ORDER BY seen DESC"
    )


def _found(database: Database, study: str, say: Callable[[str], None]) -> Team:
    """Return the study to work for; wait until there is one."""
    told = False
    database.make_tables()
    while True:
        rows = [
            row for row in studies_at_work(database) if study in {"", row["name"], row["study"]}
        ]
        if len(rows) > 1:
            names = ", ".join(f"{row['name']} ({row['study']})" for row in rows)
            raise UsageError(
                f"--study: several are at work, {names}; give the name or, in brackets, the id of"
                " one."
            )
        if rows:
            break
        if not told:
            say(f"No study{' ' + study if study else ''} is at work; waiting for it.")
            told = True
        time.sleep(_IDLE_S)
    if rows[0]["version"] != VERSION:
        raise UsageError(
            f"--store {database.shown}: the study {rows[0]['name']} has rows of version"
            f" {rows[0]['version']}; this llmdyno has version {VERSION}. Use the lead's llmdyno."
        )
    return Team(database, rows[0]["study"])


class _Worker:
    def __init__(self, team: Team, folder: Path, say: Callable[[str], None]) -> None:
        self._team, self._folder, self._say = team, folder, say
        self._sitting = secrets.token_hex(4)
        self._host = 0
        self._lines = 0  # of the ledger, that are here
        self._runs: list[str] = []  # whose summaries are here
        self._version: Callable[[], str | None] = lambda: None  # the engine's, here and now

    def run(self, name: str) -> int:
        """Do what work() does for the study that was found."""
        team = self._team
        self._fetch()
        ledger = Ledger(self._folder)
        if ledger.began is None:
            raise StorageError("the study has no ledger in the database; start its lead again.")
        stack = stack_of(ledger.spec)
        stack.require_engine()
        unlike = going_on.moved(
            # Another version may have begun the study; the lead's own now is what counts.
            {**ledger.environment, "llmdyno": team.terms()["llmdyno"]},
            ledger.engine_version,
            environment.describe(),
            stack.engine.version(),
            another_host=True,
        )
        if unlike:
            raise UsageError(
                f"{name}: this machine is unlike the lead's: {'; '.join(unlike)}. Runs of both"
                " cannot be compared; make them alike, or begin a study with this one as its lead."
            )
        self._version = stack.engine.version
        self._host = self._joined(name)
        self._say(f"host {self._host} ({name}) waits for trials.")
        delivered = 0
        while self._goes_on():
            leased = team.lease(self._host, self._sitting)
            if leased is None:
                time.sleep(_IDLE_S)
                continue
            delivered += self._measured(leased)
        self._say(f"The study has no more trials; {delivered} measured here.")
        return delivered

    def _joined(self, name: str) -> int:
        """Take a place among the hosts; wait while the name may be that of a worker that has died.

        Who was killed, or lost the database, could not say goodbye: it is known to be gone once
        it has given no sign for as long as a lease.

        Raises:
            UsageError: it is still there.
        """
        gpus = hardware.gpus_visible()
        join = partial(
            self._team.join,
            name=name,
            boot=presence.boot(),
            gpus=-1 if gpus is None else gpus,
            sitting=self._sitting,
        )
        ends_s = time.monotonic() + self._team.terms()["lease_s"] + _IDLE_S
        if (number := join()) is None:
            self._say(f"A worker named {name} was here a moment ago; waiting whether it is gone.")
        while number is None:
            if time.monotonic() > ends_s:
                raise UsageError(
                    f"--name {name}: a worker of that name is at work for the study already; name"
                    " this one otherwise."
                )
            time.sleep(_IDLE_S)
            number = join()
        return number

    def _goes_on(self) -> bool:
        """Give a sign of life; tell whether the study's trials still run.

        Raises:
            DynoError: the lead wants this host no longer, was stopped, or is gone.
        """
        row = self._team.beat(self._host, self._sitting)
        if row["refused"] is not None:
            raise DynoError(f"host {self._host}: the lead takes no work from it: {row['refused']}.")
        if row["state"] == "stopped":
            raise DynoError(
                "the study's lead was stopped; start this worker again once it goes on with dyno"
                " tune --resume."
            )
        if row["away_s"] > _AWAY_S:
            raise DynoError(
                f"the study's lead was not heard of for {row['away_s'] / 60:.0f} min; start it"
                " again with dyno tune --resume, and then this worker."
            )
        return bool(row["state"] == "trials")

    def _fetch(self) -> None:
        """Bring what the ledger has by now, and the summaries that a race looks at."""
        lines = self._team.lines(self._lines)
        with (self._folder / store.LEDGER).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self._lines += len(lines)
        for run, content in self._team.summaries(self._runs).items():
            place = self._folder / run
            if place.resolve().is_relative_to(self._folder.resolve()):
                store.make_folder(place)
                store.write_atomically(place / store.SUMMARY, content)
            self._runs.append(run)

    def _require_version(self, leased: Leased) -> None:
        """Give a job back whose baseline was measured with another version than is here now.

        Raises:
            DynoError: the engine was replaced since this worker joined, here or at the lead.
        """
        was, now = Ledger(self._folder).engine_version, self._version()
        if was is None or now is None or was == now:
            return
        self._team.give_back(leased.id, self._sitting)
        raise DynoError(
            f"host {self._host}: the engine's version: {was} at the lead, {now} here: it was"
            f" replaced while the study ran. Put {was} in place here, and start this worker again."
        )

    def _measured(self, leased: Leased) -> bool:
        """Measure a job and deliver what came; False: it is somebody else's, or was taken back."""
        self._fetch()
        self._require_version(leased)
        posted = leased.posted
        name = label(posted.phase, posted.number)
        run = self._folder / "runs" / store.new_id(name)
        store.make_folder(run)
        order = Order(
            study=Ledger(self._folder).spec,
            folder=str(self._folder),
            run=str(run.relative_to(self._folder)),
            config=posted.config,
            load=posted.load,
            imports=tuple(sys.path),
            unset=tuple(ours()),
            races=posted.races,
        )
        store.write_atomically(run / ORDER, msgspec.json.encode(order))
        self._say(f"  {name} begins.")
        child = start_lane(run, {})
        try:
            held = self._watched(child, leased.id)
        except BaseException:
            child.stop()  # the lease runs out
            raise
        child_failure = None if child.succeeded() else child.failure()
        child.stop()
        if not held:
            self._say(f"  {name} is not ours any more; what came of it is dropped.")
            shutil.rmtree(run, ignore_errors=True)
            return False
        came = self._came(run, str(child_failure or "it ended without a result"))
        tidy(run)
        delivered = self._team.deliver(
            leased.id, self._sitting, run=order.run, came=came, files=_files(run)
        )
        self._say(f"  {name} {'was delivered' if delivered else 'came too late'}.")
        shutil.rmtree(run, ignore_errors=True)
        return delivered

    def _watched(self, child: Child, job: int) -> bool:
        """Wait until a job is measured; False: the lease was lost, or the study is over."""
        beat_s = self._team.terms()["lease_s"] / _BEATS
        next_s = 0.0
        while not child.ended():
            if time.monotonic() >= next_s:
                if not self._goes_on() or not self._team.renew(job, self._sitting):
                    return False
                next_s = time.monotonic() + beat_s
            try:
                time.sleep(min(_LOOK_S, beat_s))
            except KeyboardInterrupt:
                self._team.give_back(job, self._sitting)
                raise
        return True

    def _came(self, run: Path, lost_why: str) -> str:
        """Return what a lane has written, or that its process was lost.

        Raises:
            StorageError: it could not write its results here.
        """
        place = run / CAME
        if not place.exists():
            why = f"the process that measured it was lost: {lost_why}"
            failed = Measurement(failure_class="died", failure_why=why)
            return msgspec.json.encode(Came(measurement=failed)).decode()
        content = place.read_bytes()
        came = msgspec.json.decode(content, type=Came)
        if came.measurement is None:
            raise StorageError(came.storage)
        return content.decode().replace(f"{self._folder}/", "")  # a path here is none there


def _files(run: Path) -> dict[str, bytes]:
    """Return what a run has left, by name, without what its server read; logs without secrets."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if not path.is_file() or name.parts[0] == SERVER_FILES:
            continue
        content = path.read_bytes()
        if path.suffix == ".log":
            lines = content.decode("utf-8", "replace").splitlines()
            content = "\n".join([*redact(lines, {}), ""]).encode()
        found[str(name)] = content
    return found
