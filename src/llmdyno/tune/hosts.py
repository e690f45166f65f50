"""Trials over several hosts: the lead's side, behind the interface of lanes on one machine.

A host is a lane with a machine of its own, on which a worker (`worker.py`) runs. Lead and workers
meet in a team's database (`team.py`). The lead alone asks the search and writes the ledger; its
file comes first, and its lines go to the database for the workers to race against. Hosts are called
"host 1", "host 2": the names of machines stay in the database, because results are passed on.

Of a study over engines and fronts each combination has a `Hosts` of its own, a `part()` of that of
the crew. They share who has joined, and so one numbering, and who was left out as its machine is
bad. A host that lacks one of the engines is left out of that part alone.
"""

import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from llmdyno.errors import StorageError, UsageError
from llmdyno.tune import commands
from llmdyno.tune.crew import Crew, hosts_in, id_of, name_of, number_of
from llmdyno.tune.database import Database, Row
from llmdyno.tune.entries import Event
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.team import LEASE_S, Team
from llmdyno.units import counted

_LOOK_S = 0.5  # between two looks at who is there
_FRESH_S = 2.0  # how old what is known of the hosts may be
_LEASES = 2  # so many leases the last of the hosts that are to come are waited for
_LATE = "the study has its hosts; start the worker before the trials"


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
        self._crew = Crew(database, wanted, lease_s)
        self.stack = ""  # of a part: which combination it is
        self._parts: Sequence[Hosts] = ()
        self._team: Team | None = None
        self._ledger = Path()
        self._pushed = 0  # lines of the ledger
        self._open = False  # workers have not been let go
        self._was_deserted = False
        self._rows: Sequence[Row] = ()
        self._seen_s = float("-inf")
        self._admitted: set[str] | None = None  # None: whoever is known
        self._out: set[str] = set()  # of this part alone

    def part(self, stack: str) -> "Hosts":
        """Return these hosts as one combination of the study has them.

        Args:
            stack: what it is called in the study's folder.
        """
        found = Hosts(self._crew.database, self._crew.wanted)
        found._crew, found.stack = self._crew, stack
        self._parts = (*self._parts, found)
        return found

    @property
    def shown(self) -> str:
        """The database's URL as it may be shown."""
        return self._crew.database.shown

    def check(self) -> None:
        """See whether the database can be used, before anything starts.

        Raises:
            StorageError: it cannot be reached, or its tables cannot be made.
        """
        self._crew.database.make_tables()

    def open(
        self,
        folder: Path,
        ledger: Ledger,
        say: Callable[[str], None],
        *,
        invites: bool = True,
        parts: Sequence[Ledger] = (),
    ) -> None:
        """Offer the study to workers; they may join from now on.

        Args:
            folder: of the study.
            ledger: of the study.
            say: is told what befalls the hosts.
            invites: whether trials are left, so that workers are wanted.
            parts: the ledgers of its combinations, in the order of part()'s calls.

        Raises:
            StorageError: the database cannot be used.
        """
        crew = self._crew
        crew.say = say
        crew.database.advise(
            " What was measured is kept; go on with:"
            f" {commands.resume(folder, '--store', self.shown)}"
        )
        name, ledgers = folder.resolve().name, parts or (ledger,)
        seen = {name for one in ledgers for name in hosts_in(one)}
        gone = sorted(number_of(one) for one in seen) if invites else ()
        self._team = Team(crew.database, id_of(ledger))
        is_new = self._team.open(name, crew.lease_s, gone=gone)
        if parts and not is_new:
            self._remember(parts)
        self._keep(ledger)
        for part, own in zip(self._parts, parts, strict=True):
            part.open_part(own, name, self._team.study)
        if is_new and invites:
            for one in ledgers:
                self._forget(one)
        self._open = True
        self.push()
        self._team.set_state("trials")  # now it has all that a worker asks for
        crew.live_on(self._team)
        if invites:
            join = f"dyno worker --store {shlex.quote(self.shown)} --study {shlex.quote(name)}"
            say(f"Workers join with: {join}")

    def open_part(self, ledger: Ledger, name: str, whole: str) -> None:
        """Let the database have a combination; it waits for its turn.

        Args:
            ledger: of it.
            name: of the study.
            whole: what the study is known by.

        Raises:
            StorageError: the database cannot be used.
        """
        self._team = Team(self._crew.database, id_of(ledger), whole)
        self._team.open(f"{name}, {self.stack}", self._crew.lease_s)
        self._keep(ledger)

    def _remember(self, parts: Sequence[Ledger]) -> None:
        """Take from the ledgers who measures, once a baseline is told, and whose machine is bad."""
        if any(event.kind == "lanes" for one in parts for event in one.events):
            self._crew.known = {host for one in parts for host in hosts_in(one)}
        for event in (event for one in parts for event in one.lanes_left_out if not event.stack):
            for host in event.devices:
                self.leave_out(host)

    def _keep(self, ledger: Ledger) -> None:
        self._ledger = ledger.path
        self.team.take_recorded({step.run for step in (*ledger.steps, *ledger.voided)})

    def _forget(self, ledger: Ledger) -> None:
        """Leave out the hosts of a study that was removed: "host 1" would be another machine."""
        for name in ledger.lanes_left:
            why = "the study was removed from the database, which alone knew what machine this is."
            ledger.append(Event(kind="lane", why=why, devices=(name,)))

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let hosts have the jobs of this part within; after it, it waits for its next turn."""
        self._seen_s = float("-inf")
        self.team.set_state("trials")
        try:
            yield
        finally:
            with contextlib.suppress(StorageError):  # who asks for something next says it
                self.push()
                self.team.set_state("waits")

    def gather(
        self, known: Sequence[str], wait: Callable[[str], None], over: Callable[[], bool]
    ) -> bool:
        """Wait until the hosts are there; whoever comes later is refused.

        Args:
            known: the hosts that have measured the baseline; empty: none has.
            wait: is told what is waited for.
            over: tells whether they are waited for no longer.

        Returns:
            Whether they are there.
        """
        crew = self._crew
        if known:
            crew.known |= {*known}
            self.admit(known)
        expected = [*known] or sorted(crew.known - crew.out - self._out)
        least = 1 if known else len(expected) or crew.wanted
        last_s = float("inf")  # when those who are missing are waited for no longer
        while len(there := self._joined(expected)) < least and time.monotonic() < last_s:
            if over():
                return False
            wanted = " or ".join(known) if known else counted(least, "host")
            wait(f"{len(there)} of {wanted} joined" if not known else f"waiting for {wanted}")
            if expected and there:
                last_s = min(last_s, time.monotonic() + _LEASES * crew.lease_s)
            time.sleep(_LOOK_S)
        if not known:
            crew.known = crew.known or {*there}
            self._admitted = {*self.usual}
        names = ", ".join(f"{name_of(row)} is {row['name']}" for row in self._live())
        missing = sorted({*expected} - {*there})
        without = f", without {' and '.join(missing)}" if missing and not known else ""
        self.say(f"{counted(len(self.usual), 'host')}{without}: {names or 'none can'}.")
        return True

    def _joined(self, expected: Collection[str]) -> list[str]:
        """Return which of these hosts are there, though one lack what is measured; none: any."""
        self._live()
        there = [name_of(row) for row in self._rows if name_of(row) not in self._crew.out]
        return [name for name in there if not expected or name in expected][: self._crew.wanted]

    @property
    def lacking(self) -> Mapping[str, str]:
        """The hosts that are there and lack what is measured, each with the reason."""
        self._live()
        return {
            name_of(row): row["lacks"]
            for row in self._rows
            if row["lacks"] is not None and name_of(row) in self._crew.known - self._out
        }

    @property
    def nobody_can(self) -> bool:
        """Whether every host of the study was left out of this part."""
        known = self._crew.known
        return bool(known) and not known - self._crew.out - self._out

    def await_one(self, wait: Callable[[str], None], over: Callable[[], bool]) -> bool:
        """Wait until one of the hosts is there, if all are gone; tell whether one is."""
        while not self.nobody_can and self.deserted():
            if over():
                return False
            wait("no host is there")
            time.sleep(_LOOK_S)
        return not self.nobody_can

    def deserted(self) -> bool:
        """Tell whether no host is there; say so once, until one is back."""
        deserted = not self.usual
        if deserted and not self._was_deserted:
            self.say("! No host is there; trials go on when a worker comes back.")
        self._was_deserted = deserted
        return deserted

    @property
    def team(self) -> Team:
        """The study's rows; only after open()."""
        assert self._team is not None, "open() comes first"
        return self._team

    def push(self) -> None:
        """Bring the lines of the ledger's file that are new to the database; of all parts, too."""
        lines = self._ledger.read_bytes().rpartition(b"\n")[0].decode().splitlines()
        self.team.push(self._pushed, lines[self._pushed :])
        self._pushed = len(lines)
        for part in self._parts:
            part.push()

    def release(self, state: str = "over") -> None:
        """Let the workers go: no further trial will be."""
        self.push()
        self._crew.ended.set()
        self.team.close(state)
        self._open = False

    def close(self) -> None:
        """Bring the end of the ledger to the database; of a study that was stopped, say so."""
        self._crew.ended.set()
        if self._team is None:
            return
        try:
            if self._open:
                self.release("stopped")
            self.push()
        finally:
            self._crew.end()

    def _live(self) -> Sequence[Row]:
        """Return the hosts that can have a job; refuse those that came late."""
        now_s = time.monotonic()
        if now_s - self._seen_s > _FRESH_S or not self._rows:
            self._rows, self._seen_s = self.team.hosts(), now_s
            known = self._crew.known if self.stack else self._admitted
            for row in self._rows:
                if known and name_of(row) not in known:
                    self.team.refuse(row["number"], _LATE)
        return [row for row in self._rows if self._has(row)]

    def _has(self, row: Row) -> bool:
        name = name_of(row)
        if row["lacks"] is not None or name in self._crew.out | self._out:
            return False
        return name in (self._crew.known or {name} if self._admitted is None else self._admitted)

    @property
    def usual(self) -> list[str]:
        """The hosts that are there, by name."""
        return [name_of(row) for row in self._live()][: self._crew.wanted]

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
        """Let these hosts alone have trials: they are those that measured the baseline."""
        self._admitted = set(names)
        self.team.admit([number_of(name) for name in names])
        self._seen_s = float("-inf")

    def leave_out(self, name: str, *, alone: bool = False) -> None:
        """Let a host have no further job.

        Args:
            name: of the host.
            alone: of this part: its machine is as good as the others'.
        """
        (self._out if alone else self._crew.out).add(name)
        if self._admitted is not None:
            self.admit([one for one in self._admitted if one != name])
        if not alone:
            self.team.refuse(number_of(name), "it is not like the others")
        self._seen_s = float("-inf")

    def hide_left_out(self) -> None:
        """Do nothing: what the lead starts runs on its own machine."""

    def show_all(self) -> None:
        """Do nothing, as hide_left_out()."""

    def boot_of(self, number: int) -> str:
        """Return which machine a host is, to tell whether two are one; empty: it is not known."""
        return next((str(row["boot"]) for row in self._rows if row["number"] == number), "")

    def say(self, line: str) -> None:
        """Tell the lead's user what befell a host."""
        self._crew.say(line)
