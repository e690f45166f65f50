"""A study over hosts, for real: a lead, workers in processes of their own, one PostgreSQL."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import postgresql
from conftest import DYNO
from llmdyno.store import LEDGER
from llmdyno.tune.database import Database
from llmdyno.tune.ledger import Ledger
from studies import MARK, environment, servers_left

ASKED = (
    *("tune", "--engine", "timed.engine", "--model", "m", "-c", "2", "--ramp", "100ms"),
    *("--duration", "1s", "--trial-duration", "800ms", "--interval", "200ms", "--osl", "10"),
    *("--pairs", "2", "--warmup", "0s", "--no-quality", "--no-race", "--out", "s"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.started() as found:
        yield found


class Team:
    """Processes of a test, each with its output in a file; all end with the test."""

    def __init__(self, folder: Path, server: postgresql.Server, stack: ExitStack) -> None:
        self.folder, self.server, self._stack = folder, server, stack
        self.study = folder / "s"

    def start(self, name: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
        output = self._stack.enter_context((self.folder / f"{name}.txt").open("wb"))
        variables = {**environment(), MARK: str(self.folder), "PGPASSWORD": "a-secret", **more}
        process = subprocess.Popen(
            [*DYNO, *words],
            cwd=self.folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def lead(self, *words: str) -> subprocess.Popen[bytes]:
        return self.start("lead", *ASKED, "--store", self.server.url, "--parallel", "2", *words)

    def worker(self, name: str, **more: str) -> subprocess.Popen[bytes]:
        return self.start(name, "worker", "--store", self.server.url, "--name", name, **more)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def ledger(self) -> Ledger:
        return Ledger(self.study)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.study / "study.json").read_text())
        return found


@pytest.fixture
def team(tmp_path: Path, server: postgresql.Server) -> Iterator[Team]:
    database = Database(server.url)
    with ExitStack() as stack:
        yield Team(tmp_path, server, stack)
    database.make_tables()
    database.ask("DELETE FROM dyno_studies")
    database.close()
    assert servers_left(tmp_path) == []


def test_two_hosts_measure_the_trials_and_the_lead_proves_alone(team: Team) -> None:
    lead = team.lead("--trials", "4")
    first, second = team.worker("gpu-a"), team.worker("gpu-b")

    assert lead.wait(120) == 0, team.said("lead")
    assert (first.wait(20), second.wait(20)) == (0, 0), team.said("gpu-a")
    document = team.document()
    assert document["lanes"]["devices"] == ["host 1", "host 2"]
    assert {trial["device"] for trial in document["trials"]} == {"host 1", "host 2"}
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert len(document["trials"]) == 4
    ledger = team.ledger()
    assert {s.device for s in ledger.steps if s.phase in {"baseline", "best", "confirm"}} == {""}
    assert document["confirmation"]["verdict"] == "better"
    for trial in document["trials"]:
        assert (team.study / trial["run"] / "journal.jsonl").stat().st_size > 0
    database = Database(team.server.url)
    rows = database.ask("SELECT line FROM dyno_ledger ORDER BY number")
    lines = (team.study / LEDGER).read_text().splitlines()
    assert [row["line"] for row in rows] == lines[: len(rows)]
    assert len(rows) >= len(lines) - len(ledger.of("confirm")) - 20
    names = {row["name"] for row in database.ask("SELECT name FROM dyno_files")}
    assert names <= {"summary.json"}  # the lead has the rest
    database.close()
    everything = b"".join(p.read_bytes() for p in team.folder.rglob("*") if p.is_file())
    assert b"a-secret" not in everything
    assert b"gpu-a" not in (team.study / LEDGER).read_bytes()  # names of hosts are not passed on
    assert (
        subprocess.run(
            [*DYNO, "report", "s"], cwd=team.folder, env=environment(), check=False
        ).returncode
        == 0
    )
