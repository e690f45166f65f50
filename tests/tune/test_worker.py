"""A study over hosts, for real: a lead, workers in processes of their own, one PostgreSQL."""

import json
import os
import signal
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
from llmdyno.tune.entries import Began
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from studies import MARK, TESTS, environment, servers_left, wait_until

PATIENCE_S = 600.0  # only a test that fails waits so long
pytestmark = pytest.mark.timeout(1500)
ASKED = (
    *("tune", "--engine", "timed.engine", "--model", "m", "-c", "2", "--ramp", "100ms"),
    *("--duration", "1s", "--trial-duration", "800ms", "--interval", "200ms", "--osl", "10"),
    *("--pairs", "2", "--warmup", "0s", "--no-quality", "--search", "itl_ms"),
)
ENGINES = ("--engine", "timed.engine,faulty.engine", "--search", "itl_ms")


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

    def lead(self, *words: str, **more: str) -> subprocess.Popen[bytes]:
        asked = (*ASKED, "--out", "s", "--parallel", "2", "--store", self.server.url)
        return self.start("lead", *asked, *words, **more)

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
    with ExitStack() as stack:
        yield Team(tmp_path, server, stack)
    postgresql.forget_studies(server)
    assert servers_left(tmp_path) == []


def test_two_hosts_measure_the_trials_and_the_lead_proves_alone(team: Team) -> None:
    lead = team.lead("--trials", "4")
    first, second = team.worker("gpu-a"), team.worker("gpu-b")

    assert lead.wait(PATIENCE_S) == 0, team.said("lead")
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0), team.said("gpu-a")
    document = team.document()
    assert document["lanes"]["devices"] == ["host 1", "host 2"]
    assert {trial["device"] for trial in document["trials"]} == {"host 1", "host 2"}
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert len(document["trials"]) == 4
    ledger = team.ledger()
    assert {s.device for s in ledger.steps if s.phase in {"baseline", "best", "confirm"}} == {""}
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] > 1.2
    for trial in document["trials"]:
        assert (team.study / trial["run"] / "journal.jsonl").stat().st_size > 0
    database = Database(team.server.url)
    rows = database.ask("SELECT line FROM dyno_ledger ORDER BY number")
    lines = (team.study / LEDGER).read_text().splitlines()
    assert [row["line"] for row in rows] == lines
    names = {row["name"] for row in database.ask("SELECT name FROM dyno_files")}
    assert names <= {"summary.json"}  # the lead has the rest
    database.close()
    everything = b"".join(p.read_bytes() for p in team.folder.rglob("*") if p.is_file())
    assert b"a-secret" not in everything
    assert b"gpu-a" not in (team.study / LEDGER).read_bytes()  # names of hosts are not passed on
    assert (team.study / "report.html").exists()


def test_the_trial_of_a_worker_that_is_killed_comes_back_on_another_host(team: Team) -> None:
    lead = team.lead("--trials", "3", "--trial-duration", "3s")
    doomed, other = team.worker("gpu-a"), team.worker("gpu-b")
    wait_until(lambda: "  trial" in team.said("gpu-a"), timeout_s=PATIENCE_S)
    doomed.send_signal(signal.SIGKILL)

    assert lead.wait(PATIENCE_S) == 0, team.said("lead")
    assert other.wait(PATIENCE_S) == 0
    (lost,) = [line for line in team.said("lead").splitlines() if "worker was lost" in line]
    number = int(lost.split("trial ")[1].split(":")[0])
    (again,) = [trial for trial in team.document()["trials"] if trial["id"] == number]
    assert (again["state"], again["device"]) == ("measured", _host_of(team, "gpu-b"))
    assert len(team.document()["trials"]) == 3
    assert len(team.ledger().tries(("trial", 0, number - 1))) == 1


def test_a_database_that_is_cut_ends_it_in_a_sentence_and_nothing_is_lost(team: Team) -> None:
    lead = team.lead("--trials", "6", "--trial-duration", "2s")
    workers = team.worker("gpu-a"), team.worker("gpu-b")
    wait_until(
        lambda: team.study.exists() and len(team.ledger().of("trial")) >= 2, timeout_s=PATIENCE_S
    )
    team.server.stop()
    try:
        assert lead.wait(PATIENCE_S) == 3
        assert [one.wait(PATIENCE_S) for one in workers] == [3, 3]
    finally:
        team.server.start()
    said = team.said("lead")
    (sentence,) = [line for line in said.splitlines() if line.startswith("dyno: ")]
    assert "dyno: postgresql+psycopg://me@/team?host=%2F" in sentence
    assert ": cannot be reached: " in sentence
    assert "What was measured is kept; go on with: dyno tune --resume s --store '" in sentence
    assert "Traceback" not in said + team.said("gpu-a") + team.said("gpu-b")
    before = [step for step in team.ledger().steps if step.phase == "trial"]
    assert len(before) >= 2

    without = subprocess.run(
        [*DYNO, "tune", "--resume", "s"],
        cwd=team.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert without.returncode == 2
    assert "the study's trials run over hosts; name their database with --store" in without.stderr
    lead = team.start("again", "tune", "--resume", "s", "--store", team.server.url)
    for name in ("gpu-a", "gpu-b"):
        team.worker(name)
    assert lead.wait(PATIENCE_S) == 0, team.said("again")
    after = [step for step in team.ledger().steps if step.phase == "trial"]
    assert after[: len(before)] == before
    assert sorted(step.number for step in after) == [*range(6)]


def test_what_workers_measure_while_the_lead_is_dead_is_taken(team: Team) -> None:
    held = team.folder / "held"
    held.touch()  # no trial ends before both have begun and the lead is dead
    lead = team.lead("--trials", "4")
    for name in ("gpu-a", "gpu-b"):
        team.worker(name, TIMED_HELD=str(held))
    wait_until(lambda: _told(team, "  trial") == 2, timeout_s=PATIENCE_S)
    lead.kill()
    lead.wait()
    held.unlink()
    delivered = 2 + 2  # two baselines, two trials
    wait_until(lambda: _told(team, "was delivered") == delivered, timeout_s=PATIENCE_S)
    out = len(team.ledger().out)

    lead = team.start("again", "tune", "--resume", "s", "--store", team.server.url)

    assert lead.wait(PATIENCE_S) == 0, team.said("again")
    assert out == 2
    assert sorted(trial["id"] for trial in team.document()["trials"]) == [1, 2, 3, 4]
    assert {trial["state"] for trial in team.document()["trials"]} == {"measured"}
    assert _told(team, "begins") == 2 + 4  # none of them twice


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be taken away")
def test_a_machine_that_is_unlike_the_leads_is_refused(team: Team) -> None:
    lead = team.lead("--trials", "1")
    wait_until(lambda: "Workers join with" in team.said("lead"), timeout_s=PATIENCE_S)
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        unlike = team.worker("gpu-a")
    finally:
        os.sched_setaffinity(0, usable)

    assert unlike.wait(PATIENCE_S) == 2
    refused = "dyno: gpu-a: this machine is unlike the lead's: usable cores:"
    assert refused in team.said("gpu-a")
    lead.send_signal(signal.SIGINT)
    assert lead.wait(PATIENCE_S) == 130


def test_an_engine_that_is_replaced_on_a_host_measures_nothing_more(team: Team) -> None:
    states = [team.folder / name for name in ("lead", "gpu-a", "gpu-b")]
    for state in states:
        state.mkdir()
    asked = ("--engine", "faulty.engine", "--trials", "4", "--trial-duration", "2s")
    lead = team.lead(*asked, FAULTY_STATE=str(states[0]))
    first = team.worker("gpu-a", FAULTY_STATE=str(states[1]))
    second = team.worker("gpu-b", FAULTY_STATE=str(states[2]))
    wait_until(lambda: "  trial" in team.said("gpu-a"), timeout_s=PATIENCE_S)
    (states[1] / "version").write_text("2.0")

    assert lead.wait(PATIENCE_S) == 0, team.said("lead")
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (3, 0)
    said = "the engine's version: 1.0 at the lead, 2.0 here: it was replaced while the study ran."
    assert said in team.said("gpu-a")
    assert team.said("gpu-a").count("begins") == 2  # its baseline, and what ran meanwhile
    assert {trial["state"] for trial in team.document()["trials"]} == {"measured"}


def test_workers_follow_a_study_over_engines_until_it_is_over(team: Team, tmp_path: Path) -> None:
    """One has another version of the second engine; one comes late."""
    lead = team.lead(*ENGINES, "--trials", "6", FAULTY_VERSION="1.0")
    first = team.worker("gpu-a", FAULTY_VERSION="1.0")
    second = team.worker("gpu-b", FAULTY_VERSION="2.0")
    wait_until(lambda: "Round 1 of 2" in team.said("lead"), timeout_s=PATIENCE_S)
    late = team.worker("gpu-late", FAULTY_VERSION="1.0")

    assert lead.wait(PATIENCE_S) == 0, team.said("lead")
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0), team.said("gpu-b")
    assert late.wait(PATIENCE_S) == 3
    assert "the lead takes no work from it: the study has its hosts" in team.said("gpu-late")
    has_it, lacks_it = _host_of(team, "gpu-a"), _host_of(team, "gpu-b")
    document = team.document()
    timed, faulty = document["combinations"]
    assert timed["lanes"] == {"devices": ["host 1", "host 2"], "left_out": []}
    why = "it has faulty.engine 2.0, the lead 1.0."
    assert faulty["lanes"] == {"devices": [has_it], "left_out": [{"device": lacks_it, "why": why}]}
    assert f"  ! {lacks_it}: {why} It is left out of this combination." in team.said("lead")
    assert "! faulty.engine behind native is not measured here: " in team.said("gpu-b")
    by = {one["device"] for one in document["trials"] if one["engine"] == "faulty.engine"}
    assert by == {has_it}
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert len(document["trials"]) == 6
    assert document["best"]["engine"] == "faulty.engine"
    assert document["confirmation"]["verdict"] == "better"
    for trial in document["trials"]:
        assert (team.study / trial["run"] / "journal.jsonl").stat().st_size > 0
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"a-secret" not in everything


def test_a_worker_that_cannot_import_an_engine_measures_the_others(
    team: Team, tmp_path: Path
) -> None:
    only = tmp_path / "only"
    only.mkdir()
    (only / "timed").symlink_to(Path(TESTS) / "timed")
    lead = team.lead(*ENGINES, "--trials", "4")
    first, second = team.worker("gpu-a"), team.worker("gpu-b", PYTHONPATH=str(only))

    assert lead.wait(PATIENCE_S) == 0, team.said("lead")
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0), team.said("gpu-b")
    _, faulty = team.document()["combinations"]
    (out,) = faulty["lanes"]["left_out"]
    assert out["device"] == _host_of(team, "gpu-b")
    assert "faulty.engine" in out["why"]
    assert "Traceback" not in team.said("gpu-b")


def test_a_worker_and_a_lead_are_killed_between_rounds_and_come_again(team: Team) -> None:
    asked = (*ENGINES, "--trials", "8", "--trial-duration", "1500ms")
    lead = team.lead(*asked)
    workers = {name: team.worker(name) for name in ("gpu-a", "gpu-b")}
    wait_until(lambda: "Round 2 of 2" in team.said("lead"), timeout_s=PATIENCE_S)
    for process in (lead, workers["gpu-b"]):
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = _parts(team)
    number = _host_of(team, "gpu-b")
    again = team.start("again", "tune", "--resume", "s", "--store", team.server.url)
    second = team.start("gpu-b2", "worker", "--store", team.server.url, "--name", "gpu-b")

    assert again.wait(PATIENCE_S) == 0, team.said("again")
    assert (workers["gpu-a"].wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0)
    assert _host_of(team, "gpu-b2") == number
    after = _parts(team)
    for name, steps in before.items():  # nothing that was measured is lost or measured again
        assert after[name][: len(steps)] == steps
    document = team.document()
    assert len(document["trials"]) == 8
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert {trial["device"] for trial in document["trials"]} <= {"host 1", "host 2"}
    assert document["best"]["engine"] == "faulty.engine"


def test_workers_take_up_an_engine_that_the_lead_lacked_before_it_was_killed(team: Team) -> None:
    """One has it in another version. Both had died of a KeyError."""
    lead = team.lead(*ENGINES, "--trials", "6", "--trial-duration", "1500ms", FAULTY_VERSION="")
    first, second = team.worker("gpu-a"), team.worker("gpu-b", FAULTY_VERSION="2.0")
    wait_until(lambda: _told(team, "trial 1 begins") > 0, timeout_s=PATIENCE_S)
    assert [place.name for place in (team.study / "stacks").iterdir()] == ["timed.engine+native"]
    lead.send_signal(signal.SIGKILL)
    lead.wait()

    again = team.start("again", "tune", "--resume", "s", "--store", team.server.url)

    assert again.wait(PATIENCE_S) == 0, team.said("again")
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0), team.said("gpu-a")
    document = team.document()
    by = {one["device"] for one in document["trials"] if one["engine"] == "faulty.engine"}
    assert by == {_host_of(team, "gpu-a")}
    assert "! faulty.engine behind native is not measured here: " in team.said("gpu-b")
    assert {trial["state"] for trial in document["trials"]} == {"measured"}


def _parts(team: Team) -> dict[str, list[str]]:
    """Return the runs of each combination's trials, as its ledger has them."""
    return {
        place.name: [step.run for step in Ledger(place).steps if step.phase == "trial"]
        for place in (team.study / "stacks").iterdir()
    }


def test_hosts_answer_as_lanes_do_and_who_comes_late_is_refused(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdyno.tune.hosts._FRESH_S", 0.0)
    ledger = Ledger(tmp_path)
    ledger.append(Began(study="s", spec=Study(), environment={}))
    told: list[str] = []
    hosts = Hosts(Database(server.url), 2, lease_s=60.0)
    hosts.open(tmp_path, ledger, told.append)
    team = hosts.team
    for name, gpus in (("a", 2), ("b", 4)):
        team.join(name=name, boot="x", gpus=gpus, sitting=name)
    assert (hosts.usual, hosts.lanes) == (["host 1", "host 2"], 2)

    assert hosts.gather((), told.append, lambda: False)
    late = team.join(name="late", boot="y", gpus=4, sitting="late")

    assert late is not None
    assert hosts.usual == ["host 1", "host 2"]
    assert "the study has its hosts" in team.beat(late, "late")["refused"]
    assert told[-1] == "2 hosts: host 1 is a, host 2 is b."
    assert (hosts.parts, hosts.by_gpu) == (2, True)
    assert [hosts.fits(gpus) for gpus in (1, 2, 3)] == [True, True, False]
    hosts.leave_out("host 1")
    assert (hosts.usual, hosts.fits(3), hosts.lanes_without("host 2")) == (["host 2"], True, 0)
    hosts.leave_out("host 2")
    assert (hosts.usual, hosts.lanes) == ([], 1)
    hosts.close()
    database = Database(server.url)
    assert database.ask("SELECT state FROM dyno_studies") == [{"state": "stopped"}]
    assert len(database.ask("SELECT line FROM dyno_ledger")) == 1
    database.ask("DELETE FROM dyno_studies")
    database.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--parallel", "1"), "say over how many with --parallel 2 or more"),
    ],
)
def test_what_runs_on_no_host_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    asked = [*DYNO, *ASKED, *words, "--store", "postgresql+psycopg://me@nowhere.invalid/team"]
    ended = subprocess.run(
        asked, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me@127.0.0.1:1/team"
    asked = [*DYNO, *ASKED, "--parallel", "2", "--store", url]
    for words in (asked, [*DYNO, "worker", "--store", url]):
        ended = subprocess.run(
            words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 3
        assert ended.stderr.startswith(f"dyno: {url}: cannot be reached: ")
        assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def _told(team: Team, what: str) -> int:
    return sum(team.said(name).count(what) for name in ("gpu-a", "gpu-b"))


def _host_of(team: Team, name: str) -> str:
    (line,) = [line for line in team.said(name).splitlines() if "waits for trials" in line]
    return line.split(" (")[0]
