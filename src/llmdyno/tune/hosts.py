"""Trials over several hosts: the lead's side, behind the interface of lanes on one machine.

A host is a lane with a machine of its own, on which a worker (`worker.py`) runs. Lead and workers
meet in a team's database (`team.py`). The lead alone asks the search and writes the ledger; its
file comes first, and its lines go to the database for the workers to race against. Hosts are called
"host 1", "host 2": the names of machines stay in the database, because results are passed on.
"""

import contextlib
import hashlib
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmdyno.errors import DynoError, UsageError
from llmdyno.tune import commands
from llmdyno.tune.database import Database, Row
from llmdyno.tune.entries import Event
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.team import LEASE_S, Team
from llmdyno.units import counted

_LOOK_S = 0.5  # between two looks at who is there
_LAST_SIGN_S = 1.0  # how long a sign of life that is under way is waited for at the end
_FRESH_S = 2.0  # how old what is known of the hosts may be
NAME = "host "


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
        self._was_deserted = False
        self._rows: Sequence[Row] = ()
        self._seen_s = float("-inf")
        self._admitted: set[str] = set()  # empty: whoever joins
        self._ended = threading.Event()
        self._signs: threading.Thread | None = None  # gives signs of life

    @property
    def shown(self) -> str:
        """The database's URL as it may be shown."""
        return self._database.shown

    def check(self) -> None:
        """See whether the database can be used, before anything starts.

        Raises:
            StorageError: it cannot be reached, or its tables cannot be made.
        """
        self._database.make_tables()

    def open(
        self, folder: Path, ledger: Ledger, say: Callable[[str], None], *, invites: bool = True
    ) -> None:
        """Offer the study to workers; they may join from now on.

        Args:
            folder: of the study.
            ledger: of the study.
            say: is told what befalls the hosts.
            invites: whether trials are left, so that workers are wanted.

        Raises:
            StorageError: the database cannot be used.
        """
        self._say = say
        self._database.advise(
            " What was measured is kept; go on with:"
            f" {commands.resume(folder, '--store', self.shown)}"
        )
        self._ledger = ledger.path
        with ledger.path.open("rb") as file:  # how it began tells it from others of its name
            began = hashlib.sha256(file.readline()).hexdigest()[:16]
        self._team = Team(self._database, began)
        seen = {step.device for step in (*ledger.steps, *ledger.voided)}
        numbers = sorted(int(one.removeprefix(NAME)) for one in seen if one.startswith(NAME))
        is_new = self._team.open(
            folder.resolve().name, self._lease_s, gone=numbers if invites else ()
        )
        if is_new and invites:
            self._forget(ledger)
        self._open = True
        self.push()
        self._team.take_recorded({step.run for step in (*ledger.steps, *ledger.voided)})
        self._signs = threading.Thread(target=self._live_on, args=(self._team,), daemon=True)
        self._signs.start()
        name = shlex.quote(folder.resolve().name)
        if invites:
            say(f"Workers join with: dyno worker --store {shlex.quote(self.shown)} --study {name}")

    def _forget(self, ledger: Ledger) -> None:
        """Leave out the hosts of a study that was removed: "host 1" would be another machine."""
        for name in ledger.lanes_left:
            why = "the study was removed from the database, which alone knew what machine this is."
            ledger.append(Event(kind="lane", why=why, devices=(name,)))

    def _live_on(self, team: Team) -> None:
        """Tell workers that the lead lives, whatever it does; nobody else gives a sign of it."""
        while not self._ended.wait(self._lease_s / 3):
            with contextlib.suppress(DynoError):  # who asks for something next says it
                team.beat_lead()

    def gather(
        self, known: Sequence[str], wait: Callable[[str], None], over: Callable[[], bool]
    ) -> bool:
        """Wait until the hosts are there; whoever comes later is refused.

        Args:
            known: the hosts that the study has; empty: it is the first to have joined.
            wait: is told what is waited for.
            over: tells whether they are waited for no longer.

        Returns:
            Whether they are there.
        """
        self._admitted = set(known)
        least = 1 if known else self._wanted
        while len(self.usual) < least:
            if over():
                return False
            wanted = " or ".join(known) if known else counted(self._wanted, "host")
            wait(f"{len(self.usual)} of {wanted} joined" if not known else f"waiting for {wanted}")
            time.sleep(_LOOK_S)
        self._admitted |= set(self.usual)
        names = ", ".join(f"{NAME}{row['number']} is {row['name']}" for row in self._live())
        self._say(f"{counted(len(self.usual), 'host')}: {names}.")
        return True

    def await_one(self, wait: Callable[[str], None], over: Callable[[], bool]) -> bool:
        """Wait until one of the hosts is there, if all are gone; tell whether one is."""
        while self.deserted():
            if over():
                return False
            wait("no host is there")
            time.sleep(_LOOK_S)
        return True

    def deserted(self) -> bool:
        """Tell whether no host is there; say so once, until one is back."""
        deserted = not self.usual
        if deserted and not self._was_deserted:
            self._say("! No host is there; trials go on when a worker comes back.")
        self._was_deserted = deserted
        return deserted

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
            if self._signs is not None:
                self._signs.join(_LAST_SIGN_S)
            self._database.close()

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
        return f"{NAME}{row['number']}" in self._admitted

    @property
    def usual(self) -> list[str]:
        """The hosts that are there, by name."""
        return [f"{NAME}{row['number']}" for row in self._live()][: self._wanted]

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
        self.team.refuse(int(name.removeprefix(NAME)), "it is not like the others")
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
        self._say(line)


def are_hosts(ledger: Ledger, *, unknown: bool = False) -> bool:
    """Tell whether a study's trials run over hosts.

    Args:
        ledger: of the study.
        unknown: what is said of one that was begun by a version that did not write it down, and has
            measured nothing there.
    """
    if ledger.began is not None and ledger.began.hosts is not None:
        return ledger.began.hosts
    return any(name.startswith(NAME) for name in ledger.lanes) if ledger.lanes else unknown
