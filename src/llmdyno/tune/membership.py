"""Who has joined a study over hosts, and what of it each may measure: rows of a team's database.

A host joins a study as a whole. Of one over engines and fronts it may lack a combination, which it
says itself. Trials are for hosts that have a place, which the lead gives to those that have
measured the baseline; what is for one host by name needs none.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from llmdyno.errors import StorageError
from llmdyno.tune.database import Database, Row

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Membership:
    """The hosts of one study, or of one combination of a study.

    Args:
        database: of the team.
        study: what it is known by there.
        whole: the study that it is a combination of; empty: it is none.
    """

    def __init__(self, database: Database, study: str, whole: str = "") -> None:
        self._database, self.study = database, study
        self.whole = whole or study

    def _ask(self, sql: str, **values: Any) -> list[Row]:
        return self._database.ask(sql, study=self.study, **values)

    # What the lead does.

    def hosts(self) -> list[Row]:
        """Return the workers that are there: `number`, `name`, `boot`, `gpus`, and `lacks`.

        That is why one cannot measure this combination; null: it can.
        """
        return self._ask(
            "SELECT h.number, h.name, h.boot, h.gpus, l.why AS lacks FROM dyno_hosts h"
            " JOIN dyno_studies s USING (study)"
            " LEFT JOIN dyno_lacks l ON l.study = :study AND l.host = h.number"
            " WHERE h.study = :whole AND refused IS NULL"
            " AND h.seen > now() - make_interval(secs => s.lease_s) ORDER BY h.number",
            whole=self.whole,
        )

    def refuse(self, host: int, why: str) -> None:
        """Take no further work from a host, of no combination."""
        self._database.ask(
            "UPDATE dyno_hosts SET refused = :why WHERE study = :study AND number = :host",
            study=self.whole,
            host=host,
            why=why,
        )

    def admit(self, hosts: Collection[int]) -> None:
        """Let these hosts, and no others, have any trial of this study or combination."""

        def work(connection: "Connection") -> None:
            run, study = self._database.run, self.study
            out = "DELETE FROM dyno_places WHERE study = :study AND NOT host = ANY(:hosts)"
            run(connection, out, study=study, hosts=list(hosts))
            into = "INSERT INTO dyno_places (study, host) SELECT :study, unnest(:hosts ::integer[])"
            run(connection, f"{into} ON CONFLICT DO NOTHING", study=study, hosts=list(hosts))

        self._database.do(work)

    # What a worker does.

    def join(
        self,
        *,
        name: str,
        boot: str,
        gpus: int,
        sitting: str,
        lacks: Mapping[str, str] | None = None,
    ) -> int | None:
        """Take a place among the hosts of the whole.

        Args:
            name: of the machine.
            boot: what tells whether two hosts are one machine.
            gpus: that it has; -1: it cannot tell.
            sitting: of this worker; another one of its name has another.
            lacks: combinations that it cannot measure, each with the reason.

        Returns:
            Its number, the same one whenever it comes again; None while another worker of that name
            is there, or was within a lease.
        """

        def work(connection: "Connection") -> int | None:
            run, whole = self._database.run, self.whole
            hold = "SELECT study FROM dyno_studies WHERE study = :study FOR UPDATE"
            run(connection, hold, study=whole)
            there = run(
                connection,
                "SELECT h.sitting FROM dyno_hosts h JOIN dyno_studies s USING (study)"
                " WHERE study = :study AND h.name = :name AND h.sitting <> :sitting"
                " AND h.seen > now() - make_interval(secs => s.lease_s)",
                study=whole,
                name=name,
                sitting=sitting,
            )
            if there:
                return None
            found = run(
                connection,
                "INSERT INTO dyno_hosts (study, number, name, boot, gpus, sitting, seen)"
                " SELECT :study, 1 + coalesce(max(number), 0), :name, :boot, :gpus, :sitting, now()"
                " FROM dyno_hosts WHERE study = :study ON CONFLICT (study, name) DO UPDATE"
                " SET boot = :boot, gpus = :gpus, sitting = :sitting, seen = now()"
                " RETURNING number",
                study=whole,
                name=name,
                boot=boot,
                gpus=gpus,
                sitting=sitting,
            )
            number = int(found[0]["number"])
            had = (
                "DELETE FROM dyno_lacks l USING dyno_studies s WHERE l.study = s.study"
                " AND coalesce(s.whole, s.study) = :whole AND l.host = :host"
            )
            run(connection, had, whole=whole, host=number)
            for study, why in (lacks or {}).items():
                self._say_lack(connection, study, number, why)
            return number

        return self._database.do(work)

    def lack(self, host: int, study: str, why: str) -> None:
        """Say that a host cannot measure a combination any more."""
        self._database.do(lambda connection: self._say_lack(connection, study, host, why))

    def _say_lack(self, connection: "Connection", study: str, host: int, why: str) -> None:
        sql = (
            "INSERT INTO dyno_lacks (study, host, why) VALUES (:study, :host, :why)"
            " ON CONFLICT (study, host) DO UPDATE SET why = :why"
        )
        self._database.run(connection, sql, study=study, host=host, why=why)

    def beat(self, host: int, sitting: str) -> Row:
        """Give a sign of life; return the study's `state`, `refused` (why) and the lead's `away_s`.

        Raises:
            StorageError: the study was removed from the database, or its place was given away.
        """
        found = self._database.ask(
            "UPDATE dyno_hosts h SET seen = now() FROM dyno_studies s WHERE s.study = :study AND"
            " h.study = s.study AND h.number = :host AND h.sitting = :sitting RETURNING"
            " s.state, h.refused, extract(epoch FROM now() - s.seen)::float8 AS away_s",
            study=self.whole,
            host=host,
            sitting=sitting,
        )
        if not found:
            raise StorageError(
                "the study is not in the database any more, or this host's place"
                " was given to another worker."
            )
        return found[0]
