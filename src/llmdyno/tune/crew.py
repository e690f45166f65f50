"""Who measures a study over hosts, in all of its combinations, and that its lead lives."""

import contextlib
import hashlib
import threading
from collections.abc import Callable

from llmdyno.errors import DynoError
from llmdyno.tune.database import Database, Row
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.team import Team

NAME = "host "
_LAST_SIGN_S = 1.0  # how long a sign of life that is under way is waited for at the end


class Crew:
    """The hosts of a study, in all its parts, and its lead's signs of life.

    Args:
        database: where the hosts are found.
        wanted: how many there are to be.
        lease_s: without a sign of life from a worker, after which another has its job.
    """

    def __init__(self, database: Database, wanted: int, lease_s: float) -> None:
        self.database, self.wanted, self.lease_s = database, wanted, lease_s
        self.say: Callable[[str], None] = lambda _: None
        self.known: set[str] = set()  # empty: whoever joins
        self.out: set[str] = set()  # their machines are bad
        self.ended = threading.Event()
        self._signs: threading.Thread | None = None

    def live_on(self, team: Team) -> None:
        """Tell workers from now on that the lead lives, whatever it does; nobody else does so."""
        self._signs = threading.Thread(target=self._give_signs, args=(team,), daemon=True)
        self._signs.start()

    def _give_signs(self, team: Team) -> None:
        while not self.ended.wait(self.lease_s / 3):
            with contextlib.suppress(DynoError):  # who asks for something next says it
                team.beat_lead()

    def end(self) -> None:
        """Give no further sign of life, and give back the database."""
        self.ended.set()
        if self._signs is not None:
            self._signs.join(_LAST_SIGN_S)
        self.database.close()


def id_of(ledger: Ledger) -> str:
    """Return what a study is known by: how it began tells it from others of its name."""
    with ledger.path.open("rb") as file:
        return hashlib.sha256(file.readline()).hexdigest()[:16]


def hosts_in(ledger: Ledger) -> set[str]:
    """Return the hosts that a ledger names."""
    found = {step.device for step in (*ledger.steps, *ledger.voided)}
    found |= {host for event in ledger.events for host in event.devices}
    return {host for host in found if host.startswith(NAME)}


def planned(count: int) -> list[str]:
    """Return what so many hosts will be called."""
    return [f"{NAME}{number}" for number in range(1, count + 1)]


def name_of(row: Row) -> str:
    """Return what a host of the database is called in a study."""
    return f"{NAME}{row['number']}"


def number_of(host: str) -> int:
    """Return the number of a host in the database, by what it is called."""
    return int(host.removeprefix(NAME))
