"""What lead and workers of a study over several hosts tell each other, in a team's database.

The lead posts jobs; a worker leases one, renews the lease while it measures, and delivers what
came. A lease that runs out is open again for any worker: `FOR UPDATE SKIP LOCKED` gives each job to
one of them, and only who holds the lease may deliver. A job whose workers died twice is lost.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from llmdyno import __version__, store
from llmdyno.errors import StorageError
from llmdyno.tune.database import VERSION, Row
from llmdyno.tune.jobs import Leased, Posted
from llmdyno.tune.membership import Membership

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

LEASE_S = 30.0  # without a sign of life from a worker, after which its job is open again
TRIES = 2  # workers that may die with a job


class Team(Membership):
    """The rows of one study, or of one combination of a study; its arguments are Membership's."""

    # What the lead does.

    def open(self, name: str, lease_s: float, *, gone: Sequence[int] = ()) -> bool:
        """Let the database have the study; return whether it did not.

        What is new, and what is a combination, waits: nobody finds it until set_state() says so.

        Args:
            name: of the study.
            lease_s: how long a job is a worker's without a sign of life.
            gone: numbers of hosts that the study had. If the database did not have it, nobody knows
                any more what machines these were, and no worker gets them.

        Raises:
            StorageError: the database cannot be used.
        """
        self._database.make_tables()

        def work(connection: "Connection") -> bool:
            run, study = self._database.run, self.study
            (opened,) = run(
                connection,
                "INSERT INTO dyno_studies (study, name, version, llmdyno, state, lease_s, whole)"
                " VALUES (:study, :name, :version, :llmdyno, 'waits', :lease_s, :whole)"
                " ON CONFLICT (study) DO UPDATE SET seen = now(), name = :name, lease_s = :lease_s,"
                " version = :version, llmdyno = :llmdyno, state = CASE WHEN dyno_studies.whole IS"
                " NULL THEN dyno_studies.state ELSE 'waits' END RETURNING xmax = 0 AS new",
                study=study,
                name=name,
                version=VERSION,
                llmdyno=__version__,
                lease_s=lease_s,
                whole=None if self.whole == study else self.whole,
            )
            for host in gone if opened["new"] else ():
                kept = (
                    "INSERT INTO dyno_hosts (study, number, name, boot, gpus, sitting, seen)"
                    " VALUES (:study, :host, :name, '', -1, '', '-infinity') ON CONFLICT DO NOTHING"
                )
                run(connection, kept, study=study, host=host, name=f"removed {host}")
            run(
                connection, "UPDATE dyno_hosts SET refused = NULL WHERE study = :study", study=study
            )
            return bool(opened["new"])

        return self._database.do(work)

    def set_state(self, state: str) -> None:
        """Say that it is this study's or this combination's turn ("trials"), or not ("waits")."""
        sql = "UPDATE dyno_studies SET state = :state, seen = now() WHERE study = :study"
        self._ask(sql, state=state)

    def close(self, state: str) -> None:
        """Say that no further job of the whole will come; what is open or leased is taken back."""

        def work(connection: "Connection") -> None:
            run = self._database.run
            out = (
                "DELETE FROM dyno_jobs j USING dyno_studies s WHERE s.study = j.study"
                " AND :study IN (s.study, s.whole) AND j.state IN ('open', 'leased')"
            )
            run(connection, out, study=self.whole)
            over = (
                "UPDATE dyno_studies SET state = :state, seen = now()"
                " WHERE :study IN (study, whole)"
            )
            run(connection, over, study=self.whole, state=state)

        self._database.do(work)

    def take_recorded(self, runs: Collection[str]) -> None:
        """Take the jobs whose runs the ledger has: the lead was killed before it could."""
        done = "SELECT id, run FROM dyno_jobs WHERE study = :study AND state = 'done'"
        for row in self._ask(f"{done} AND run = ANY(:runs)", runs=list(runs)):
            self.take(int(row["id"]), row["run"])

    def push(self, first: int, lines: Sequence[str]) -> None:
        """Add lines of the ledger, of which the first has this number."""
        if not lines:
            return
        into = "INSERT INTO dyno_ledger (study, number, line)"
        sql = f"{into} VALUES (:study, :number, :line) ON CONFLICT DO NOTHING"

        def work(connection: "Connection") -> None:
            self._hold(connection)
            for number, line in enumerate(lines, first):
                self._database.run(connection, sql, study=self.study, number=number, line=line)

        self._database.do(work)

    def post(self, job: Posted, *, host: int | None, tries_max: int) -> int:
        """Offer a job, to one host or to any; return its id.

        One that was offered before the lead was killed is not offered again: who has it goes on,
        and what came is there.
        """
        content = msgspec.json.encode(job).decode()

        def work(connection: "Connection") -> int:
            self._hold(connection)
            found = self._database.run(
                connection,
                "SELECT id FROM dyno_jobs WHERE study = :study AND job = :job AND state <> 'taken'"
                " AND wanted IS NOT DISTINCT FROM CAST(:host AS integer)",
                study=self.study,
                job=content,
                host=host,
            ) or self._database.run(
                connection,
                "INSERT INTO dyno_jobs (study, phase, number, job, wanted, tries_max) VALUES"
                " (:study, :phase, :number, :job, :host, :tries_max) RETURNING id",
                study=self.study,
                phase=job.phase,
                number=job.number,
                job=content,
                host=host,
                tries_max=tries_max,
            )
            return int(found[0]["id"])

        return self._database.do(work)

    def _hold(self, connection: "Connection") -> None:
        """Keep the study in the database until the transaction ends."""
        sql = "SELECT study FROM dyno_studies WHERE study = :study FOR KEY SHARE"
        if not self._database.run(connection, sql, study=self.study):
            raise self._removed()

    def _removed(self) -> StorageError:
        return self._database.fault("the study was removed from the database")

    def beat_lead(self) -> None:
        """Give a sign of the lead's life, if the database is there.

        Raises:
            StorageError: it is not; it is not waited for.
        """
        sql = "UPDATE dyno_studies SET seen = now() WHERE study = :study"
        self._database.do(
            lambda connection: self._database.run(connection, sql, study=self.whole), waits=False
        )

    def look(self, ids: Sequence[int]) -> dict[int, Row]:
        """Return how jobs stand, by id.

        A job whose leases have all run out is "lost". So is one for a host that is gone for two
        leases: after the first another worker of its name may have its place, and needs time to;
        and one for a host that cannot measure it any more.

        Raises:
            StorageError: the database is away, or the study was removed from it.
        """
        self._ask(
            "UPDATE dyno_jobs j SET state = 'lost' FROM dyno_studies s WHERE j.study = :study"
            " AND s.study = j.study AND ((j.state = 'leased' AND j.until < now()"
            " AND j.tries >= j.tries_max) OR (j.state <> 'done' AND j.state <> 'taken'"
            " AND j.wanted IS NOT NULL AND (EXISTS (SELECT 1 FROM dyno_lacks l WHERE"
            " l.study = j.study AND l.host = j.wanted) OR NOT EXISTS (SELECT 1 FROM dyno_hosts h"
            " WHERE h.study = coalesce(s.whole, s.study) AND h.number = j.wanted"
            " AND h.refused IS NULL AND h.seen > now() - make_interval(secs => 2 * s.lease_s)))))"
        )
        found = self._ask(
            "SELECT id, state, host, wanted, tries, run, came FROM dyno_jobs"
            " WHERE study = :study AND id = ANY(:ids)",
            ids=list(ids),
        )
        if len(found) < len({*ids}):
            raise self._removed()
        return {int(row["id"]): row for row in found}

    def files(self, run: str) -> dict[str, bytes]:
        """Return what a worker has delivered of a run, by name."""
        sql = "SELECT name, content FROM dyno_files WHERE study = :study AND run = :run"
        return {
            row["name"]: zlib.decompress(bytes(row["content"])) for row in self._ask(sql, run=run)
        }

    def take(self, job: int, run: str | None) -> None:
        """Say that the ledger has what came of a job; of its files the summary alone is kept."""
        self._ask(
            "UPDATE dyno_jobs SET state = 'taken' WHERE study = :study AND id = :job", job=job
        )
        self._ask(
            "DELETE FROM dyno_files WHERE study = :study AND run = :run AND name <> :kept",
            run=run,
            kept=store.SUMMARY,
        )

    # What a worker does.

    def parts(self) -> list[Row]:
        """Return what the whole consists of, `study` of each: its combinations, or itself."""
        found = self._database.ask(
            "SELECT study FROM dyno_studies WHERE whole = :whole ORDER BY name", whole=self.whole
        )
        return found or [{"study": self.whole}]

    def lease(self, host: int, sitting: str) -> Leased | None:
        """Lease a job of the whole, whichever combination's turn it is.

        None: there is none now, or none for a host that was refused, lacks what it needs, or has no
        place among those that measure it.
        """
        found = self._database.ask(
            "UPDATE dyno_jobs SET state = 'leased', host = :host, sitting = :sitting,"
            " tries = tries + 1, until = now() + make_interval(secs => (SELECT lease_s FROM"
            " dyno_studies WHERE study = :whole)) WHERE id = (SELECT j.id FROM dyno_jobs j"
            " JOIN dyno_studies s USING (study) WHERE coalesce(s.whole, s.study) = :whole"
            " AND s.state = 'trials' AND (wanted = :host OR (wanted IS NULL AND EXISTS (SELECT 1"
            " FROM dyno_places p WHERE p.study = j.study AND p.host = :host)))"
            " AND NOT EXISTS (SELECT 1 FROM dyno_lacks l WHERE l.study = j.study"
            " AND l.host = :host) AND tries < tries_max AND"
            " (j.state = 'open' OR (j.state = 'leased' AND until < now())) AND NOT EXISTS (SELECT 1"
            " FROM dyno_hosts WHERE study = :whole AND number = :host AND refused IS NOT NULL)"
            " ORDER BY id FOR UPDATE OF j SKIP LOCKED LIMIT 1) RETURNING id, study, job",
            whole=self.whole,
            host=host,
            sitting=sitting,
        )
        if not found:
            return None
        (row,) = found
        return Leased(int(row["id"]), row["study"], msgspec.json.decode(row["job"], type=Posted))

    def renew(self, job: int, sitting: str) -> bool:
        """Renew a lease; False: somebody else has it, or the job was taken back."""
        return bool(
            self._ask(
                "UPDATE dyno_jobs SET until = now() + make_interval(secs => (SELECT lease_s FROM"
                " dyno_studies WHERE study = :study)) WHERE study = :study AND id = :job AND"
                " sitting = :sitting AND state = 'leased' RETURNING id",
                job=job,
                sitting=sitting,
            )
        )

    def deliver(
        self, job: int, sitting: str, *, run: str, came: str, files: Mapping[str, bytes]
    ) -> bool:
        """Write what came of a job, all or nothing; False: the lease was lost meanwhile."""

        def work(connection: "Connection") -> bool:
            sql, study = self._database.run, self.study
            if sql(
                connection,
                "SELECT id FROM dyno_jobs WHERE id = :job AND sitting = :sitting AND run = :run",
                job=job,
                sitting=sitting,
                run=run,
            ):
                return True  # the answer to an earlier commit was lost
            mine = sql(
                connection,
                "UPDATE dyno_jobs SET state = 'done', run = :run, came = :came WHERE id = :job AND"
                " study = :study AND sitting = :sitting AND state = 'leased' RETURNING id",
                job=job,
                study=study,
                sitting=sitting,
                run=run,
                came=came,
            )
            for name, content in files.items() if mine else ():
                sql(
                    connection,
                    "INSERT INTO dyno_files (study, run, name, content)"
                    " VALUES (:study, :run, :name, :content)",
                    study=study,
                    run=run,
                    name=name,
                    content=zlib.compress(content),
                )
            return bool(mine)

        return self._database.do(work)

    def give_back(self, job: int, sitting: str) -> None:
        """Let another worker have a job at once: this one was told to stop."""
        self._ask(
            "UPDATE dyno_jobs SET state = 'open', tries = tries - 1 WHERE study = :study AND"
            " id = :job AND sitting = :sitting AND state = 'leased'",
            job=job,
            sitting=sitting,
        )

    def summaries(self, known: Sequence[str]) -> dict[str, bytes]:
        """Return the summaries of runs, by run, but for those that are known."""
        rows = self._ask(
            "SELECT run, content FROM dyno_files WHERE study = :study AND name = :name"
            " AND NOT run = ANY(:known)",
            name=store.SUMMARY,
            known=list(known),
        )
        return {row["run"]: zlib.decompress(bytes(row["content"])) for row in rows}

    def lines(self, first: int) -> list[str]:
        """Return the lines of the ledger from a number on."""
        rows = self._ask(
            "SELECT line FROM dyno_ledger WHERE study = :study AND number >= :first"
            " ORDER BY number",
            first=first,
        )
        return [row["line"] for row in rows]

    def terms(self) -> Row:
        """Return how long a lease lasts, `lease_s`, and which version its lead is, `llmdyno`.

        Raises:
            StorageError: the study is not in the database any more.
        """
        found = self._ask("SELECT lease_s, llmdyno FROM dyno_studies WHERE study = :study")
        if not found:
            raise self._removed()
        return found[0]
