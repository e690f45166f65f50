"""A worker: measures trials of somebody's study on this machine, one at a time.

It takes jobs from a team's database (`team.py`) and measures each as a lane does, in a process of
its own on a leash (`lane.py`), with a server on loopback. What came goes to the database with the
run's files. It renews its lease meanwhile; if somebody else has the job by then, what it measured
is dropped. It asks no search and writes no ledger. Of a study over engines and fronts it follows
the whole until that is over, and measures those combinations that it can.
"""

import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import DynoError, StorageError, UsageError
from llmdyno.machine import environment, hardware
from llmdyno.processes import presence
from llmdyno.processes.child import Child
from llmdyno.processes.secrets import redact
from llmdyno.tune.copied import Copied
from llmdyno.tune.database import VERSION, Database, Row
from llmdyno.tune.entries import label
from llmdyno.tune.jobs import Leased
from llmdyno.tune.lane import CAME, ORDER, Came, Order
from llmdyno.tune.lanes import ours, start_lane, tidy
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
    return _Worker(database, _found(database, study, say), folder, say).run(name)


def studies_at_work(database: Database) -> list[Row]:
    """Return the studies whose trials run now: `study`, `name`, `version`; the tables are there."""
    return database.ask(
        "SELECT study, name, version FROM dyno_studies WHERE state = 'trials'"
        " AND whole IS NULL AND seen > now() - make_interval(secs => 2 * lease_s)"
        " ORDER BY seen DESC"
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
    def __init__(
        self, database: Database, team: Team, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._database, self._team, self._folder, self._say = database, team, folder, say
        self._sitting = secrets.token_hex(4)
        self._host = 0
        self._here = environment.describe()
        self._named: set[str] = set()  # the engines and fronts of a study over several
        self._parts: dict[str, Copied] = {}  # what this machine can measure, by its id

    def run(self, name: str) -> int:
        """Do what work() does for the study that was found."""
        team = self._team
        lacks = self._found_parts(name)
        self._host = self._joined(name, lacks)
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

    def _found_parts(self, name: str) -> dict[str, str]:
        """Find out what of the study this machine can measure; return what it cannot, and why.

        Raises:
            UsageError: nothing of it, or the machine is unlike the lead's.
        """
        team = self._team
        whole = Copied(team, self._folder / team.study)
        spec, here = whole.ledger.spec, self._here
        if not spec.combines:
            stack = whole.stack()
            stack.require_engine()
            _refuse_unlike(name, whole.unlike(here, version=stack.engine.version()))
            self._parts = {team.study: whole}
            return {}
        self._named = {*spec.engines, *spec.fronts}
        _refuse_unlike(name, whole.unlike(here, version=None, without=self._named))
        lacks = {of: why for row in team.parts() if (why := self._lacks(of := row["study"]))}
        if not self._parts:
            raise UsageError(f"{name}: no combination can be measured here.")
        return lacks

    def _lacks(self, of: str) -> str | None:
        """Say why a combination of that id cannot be measured here; None: it can, and is a part.

        Raises:
            HomeError: where its engine is installed here was named wrong.
        """
        part = Copied(Team(self._database, of, self._team.study), self._folder / of)
        own = part.ledger.spec
        why = part.lacks(self._here, self._named - {own.engine, own.front})
        if why is None:
            self._parts[of] = part
        else:
            self._say(f"! {own.engine} behind {own.front} is not measured here: {why}")
        return why

    def _takes_up(self, leased: Leased) -> bool:
        """Take up a combination that the study did not have when this worker came.

        A lead that was killed may go on with an engine that it lacked before. False: it cannot be
        measured here, and the job is given back.

        Raises:
            HomeError: as _lacks().
        """
        part = Team(self._database, leased.study, self._team.study)
        try:
            why = self._lacks(leased.study)
        except BaseException:
            part.give_back(leased.id, self._sitting)
            raise
        if why is None:
            return True
        part.lack(self._host, leased.study, why)
        part.give_back(leased.id, self._sitting)
        return False

    def _joined(self, name: str, lacks: Mapping[str, str]) -> int:
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
            lacks=lacks,
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

    def _has_lost(self, leased: Leased) -> bool:
        """Give a job back whose baseline was measured with another version than is here now.

        Raises:
            DynoError: that was the last that could be measured here.
        """
        part = self._parts[leased.study]
        why = part.replaced()
        if why is None:
            return False
        del self._parts[leased.study]
        own = part.ledger.spec
        if part.is_one_of_several:
            part.team.lack(self._host, leased.study, why)
        part.team.give_back(leased.id, self._sitting)
        if not self._parts:
            was, now = part.ledger.engine_version, part.version_now() or "none"
            raise DynoError(
                f"host {self._host}: the engine's version: {was} at the lead, {now} here: it was"
                f" replaced while the study ran. Put {was} in place here, and start this worker"
                " again."
            )
        self._say(f"! {own.engine} behind {own.front} is not measured here any more: {why}")
        return True

    def _measured(self, leased: Leased) -> bool:
        """Measure a job and deliver what came; False: it is somebody else's, or was taken back."""
        if leased.study not in self._parts and not self._takes_up(leased):
            return False
        part = self._parts[leased.study]
        part.fetch()
        if self._has_lost(leased):
            return False
        team, folder = part.team, part.folder
        posted = leased.posted
        name = f"{part.called}{label(posted.phase, posted.number)}"
        run = folder / "runs" / store.new_id(label(posted.phase, posted.number))
        store.make_folder(run)
        order = Order(
            study=part.ledger.spec,
            folder=str(folder),
            run=str(run.relative_to(folder)),
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
            held = self._watched(child, team, leased.id)
        except BaseException:
            child.stop()  # the lease runs out
            raise
        child_failure = None if child.succeeded() else child.failure()
        child.stop()
        if not held:
            self._say(f"  {name} is not ours any more; what came of it is dropped.")
            shutil.rmtree(run, ignore_errors=True)
            return False
        came = _came(folder, run, str(child_failure or "it ended without a result"))
        tidy(run)
        delivered = team.deliver(
            leased.id, self._sitting, run=order.run, came=came, files=_files(run)
        )
        self._say(f"  {name} {'was delivered' if delivered else 'came too late'}.")
        shutil.rmtree(run, ignore_errors=True)
        return delivered

    def _watched(self, child: Child, team: Team, job: int) -> bool:
        """Wait until a job is measured; False: the lease was lost, or the study is over."""
        beat_s = team.terms()["lease_s"] / _BEATS
        next_s = 0.0
        while not child.ended():
            if time.monotonic() >= next_s:
                if not self._goes_on() or not team.renew(job, self._sitting):
                    return False
                next_s = time.monotonic() + beat_s
            try:
                time.sleep(min(_LOOK_S, beat_s))
            except KeyboardInterrupt:
                team.give_back(job, self._sitting)
                raise
        return True


def _refuse_unlike(name: str, unlike: Sequence[str]) -> None:
    """Refuse to measure on a machine that is unlike the lead's.

    Raises:
        UsageError: it is.
    """
    if unlike:
        raise UsageError(
            f"{name}: this machine is unlike the lead's: {'; '.join(unlike)}. Runs of both"
            " cannot be compared; make them alike, or begin a study with this one as its lead."
        )


def _came(folder: Path, run: Path, lost_why: str) -> str:
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
    return content.decode().replace(f"{folder}/", "")  # a path here is none there


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
