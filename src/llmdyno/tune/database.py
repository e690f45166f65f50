"""A team's PostgreSQL, where a study that runs over several hosts keeps its rows.

    dyno_studies   a study: its state, and when its lead was last seen; of one over engines and
                   fronts each combination has a row, too, which names the whole
    dyno_ledger    the lines of its ledger, in order, as the lead's file has them
    dyno_hosts     the workers that have joined the whole, by the name of their machine
    dyno_lacks     which of them cannot measure a combination, and why, as they say themselves
    dyno_places    which of them may have any trial of a study or a combination, as its lead says
    dyno_jobs      what is to be measured; who has leased it, until when, and what came
    dyno_files     what a run has left, compressed, on its way from a worker to the lead

A study's state is "waits" until its ledger is there, "trials" while workers are wanted, then
"over", or "stopped" with its lead. A combination is at "trials" while it is its turn and "waits"
before and between its rounds: then nobody gets a job of it; what a worker has of it goes on.

All moments are the database's own, so no two clocks are compared. A lease that its worker does not
renew runs out, and the job is there for the next one. Rows of one study go with its row in
dyno_studies.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llmdyno.errors import StorageError, UsageError

if TYPE_CHECKING:  # it takes a fifth of a second to import
    from sqlalchemy.engine import Connection

SCHEME = "postgresql+psycopg"
# Of the tables, and of what stands in them. 2 (2026-11-29) has the lead's llmdyno in dyno_studies,
# 3 (2026-11-30) has combinations, and says who may have a trial.
VERSION = 3
PATIENCE_S = 20.0  # how long a database may be away, as while it is started again
_AGAIN_S = 0.5  # between two tries
# A database that falls silent, as one whose cable was pulled, is gone after some 20 s.
_ALIVE = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
}
_CONNECT_S = 10
_LOCK = 0x64796E6F  # whoever makes the tables holds it
_TABLES = """
CREATE TABLE IF NOT EXISTS dyno_studies (
    study text PRIMARY KEY, name text NOT NULL, version integer NOT NULL, state text NOT NULL,
    lease_s double precision NOT NULL, seen timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS dyno_ledger (
    study text REFERENCES dyno_studies ON DELETE CASCADE, number integer, line text NOT NULL,
    PRIMARY KEY (study, number));
CREATE TABLE IF NOT EXISTS dyno_hosts (
    study text REFERENCES dyno_studies ON DELETE CASCADE, number integer, name text NOT NULL,
    boot text NOT NULL, gpus integer NOT NULL, sitting text NOT NULL, refused text,
    seen timestamptz NOT NULL, PRIMARY KEY (study, number), UNIQUE (study, name));
CREATE TABLE IF NOT EXISTS dyno_jobs (
    id bigserial PRIMARY KEY, study text REFERENCES dyno_studies ON DELETE CASCADE,
    phase text NOT NULL, number integer NOT NULL, job text NOT NULL, wanted integer,
    state text NOT NULL DEFAULT 'open', host integer, sitting text, until timestamptz,
    tries integer NOT NULL DEFAULT 0, tries_max integer NOT NULL, run text, came text);
CREATE INDEX IF NOT EXISTS dyno_jobs_of ON dyno_jobs (study, state);
CREATE TABLE IF NOT EXISTS dyno_files (
    study text REFERENCES dyno_studies ON DELETE CASCADE, run text, name text,
    content bytea NOT NULL, PRIMARY KEY (study, run, name));
CREATE TABLE IF NOT EXISTS dyno_lacks (
    study text REFERENCES dyno_studies ON DELETE CASCADE, host integer, why text NOT NULL,
    PRIMARY KEY (study, host));
CREATE TABLE IF NOT EXISTS dyno_places (
    study text REFERENCES dyno_studies ON DELETE CASCADE, host integer,
    PRIMARY KEY (study, host));
ALTER TABLE dyno_studies ADD COLUMN IF NOT EXISTS llmdyno text NOT NULL DEFAULT '';
ALTER TABLE dyno_studies ADD COLUMN IF NOT EXISTS whole text
    REFERENCES dyno_studies ON DELETE CASCADE;
"""
# The tables have what was added last: who may only use them needs no right to make any.
_MADE = """
SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('dyno_studies') AND attname = 'whole'
"""
# Values in the query of a URL that are none of others' business, by name.
_SECRET = re.compile("passw|passphrase|pwd|secret|token|credential", re.IGNORECASE)

Row = Mapping[str, Any]
_T = TypeVar("_T")


class Database:
    """A connection to a team's database, which may go away for a while.

    Args:
        url: as SQLAlchemy has it, without a password: that is PostgreSQL's own variable's or
            file's to give (PGPASSWORD, PGPASSFILE).
        flag: that the user gave it with.
        notify: is told when the database is away.
        patience_s: how long it may be.

    Raises:
        UsageError: the URL is none, holds a password or names another database; or the driver is
            not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        flag: str = "--store",
        notify: Callable[[str], None] = lambda _: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.shown = without_password(url)
        self._notify, self._patience_s = notify, patience_s
        self._advice = ""
        self._was_there = False  # what never answered is not waited for
        _check_url(url, self.shown, flag)
        from sqlalchemy import create_engine

        try:
            self._engine = create_engine(
                url,
                pool_pre_ping=True,
                connect_args={
                    "connect_timeout": _CONNECT_S,
                    "client_encoding": "utf8",
                    **_ALIVE,
                },
            )
        except ImportError as error:
            raise UsageError(
                f"{flag} {self.shown}: PostgreSQL's driver is not installed:"
                " pip install 'llmdyno[postgresql]'."
            ) from error

    def advise(self, advice: str) -> None:
        """Set what is said to a user after the sentence of a database that stays away."""
        self._advice = advice

    def close(self) -> None:
        """Give back the connections; none may be in use."""
        self._engine.dispose()

    def make_tables(self) -> None:
        """Make the tables, unless they are there; add what those of an older version lack.

        Raises:
            StorageError: the database cannot be reached, or nothing may be made in it.
        """

        def make(connection: "Connection") -> None:
            if self.run(connection, _MADE):
                return
            self.run(connection, "SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
            connection.exec_driver_sql(_TABLES)

        self.do(make)

    def fault(self, what: str) -> StorageError:
        """Return the error that says what is wrong with the database, and what to do."""
        return StorageError(f"{self.shown}: {what}.{self._advice}")

    def do(self, work: "Callable[[Connection], _T]", *, waits: bool = True) -> _T:
        """Do some work in one transaction; while the database is away, wait and do it again.

        Args:
            work: may be done twice, if the answer to its commit was lost.
            waits: if not, it is tried once, and others' patience is as it was.

        Raises:
            StorageError: the database refuses it, or stays away.
        """
        from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

        until_s = time.monotonic() + self._patience_s
        told = False
        while True:
            try:
                with self._engine.begin() as connection:
                    came = work(connection)
                self._was_there = True
                return came
            except (OperationalError, InterfaceError) as error:
                if not waits or not self._was_there or time.monotonic() >= until_s:
                    self._was_there = self._was_there and not waits
                    raise self.fault(f"cannot be reached: {_why(error)}") from None
                if not told:
                    self._notify(f"! {self.shown} does not answer; it is asked again.")
                    told = True
                time.sleep(_AGAIN_S)
            except SQLAlchemyError as error:
                raise StorageError(f"{self.shown}: refuses: {_why(error)}.") from None

    @staticmethod
    def run(connection: "Connection", sql: str, **values: Any) -> list[Row]:
        """Run one statement; return its rows, none if it has none."""
        from sqlalchemy import text

        result = connection.execute(text(sql), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def ask(self, sql: str, **values: Any) -> list[Row]:
        """Run one statement in a transaction of its own, as do() does; return its rows.

        Raises:
            StorageError: as do().
        """
        return self.do(lambda connection: self.run(connection, sql, **values))


def without_password(url: str) -> str:
    """Return a database's URL as it may be shown.

    It has no password. Of its query it has what is no secret by its name; of another database than
    PostgreSQL it has none, because some hold a password in the midst of it.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with suppress(ValueError, ArgumentError):
        if url.count("@") <= 1:  # else where the password ends is anyone's guess
            found = make_url(url)
            known = found.query if found.drivername.startswith("postgresql") else {}
            shown = {name: value for name, value in known.items() if not _SECRET.search(name)}
            return found.set(query=shown).render_as_string(hide_password=True)
    return f"{url.partition('://')[0]}://..."


def _check_url(url: str, shown: str, flag: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ValueError, ArgumentError):
        found = None
    if found is None or found.drivername != SCHEME or not found.database:
        raise UsageError(
            f"{flag} {shown}: is no URL of a PostgreSQL; write {SCHEME}://USER@HOST/DATABASE."
        )
    if found.password is not None or "password" in found.query:
        raise UsageError(
            f"{flag} {shown}: has a password, which everybody on this machine can read; put it"
            " into the variable PGPASSWORD, or a file that PGPASSFILE names."
        )
    for name in found.query:
        if _SECRET.search(name):
            raise UsageError(
                f"{flag} {shown}: has {name} in its query, which everybody on this machine can"
                " read; put it into the file that PGSERVICEFILE names, and the service's name into"
                " the URL: ?service=NAME."
            )


def _why(error: Exception) -> str:
    """Return the first line of what the driver says; it never has the password."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
    return said[0].rstrip(".")
