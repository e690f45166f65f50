"""A study over engines on hosts: who measures what, what is lacking, what goes on after a kill."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import postgresql
from host_lab import CombinedLab
from llmdyno.cli.rebuild import rebuild
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.tune.database import Database
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.team import Team
from study_lab import Start

pytestmark = pytest.mark.timeout(900)
TIMED, FAULTY = "timed.engine+native", "faulty.engine+native"


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.started() as found:
        yield found


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: postgresql.Server
) -> Iterator[CombinedLab]:
    monkeypatch.setenv("FAULTY_VERSION", "1.0")
    yield CombinedLab(tmp_path / "a study", monkeypatch, server)
    postgresql.forget_studies(server)


def part(lab: CombinedLab, stack: str) -> Ledger:
    return Ledger(lab.folder / "stacks" / stack)


def measured_once(lab: CombinedLab, count: int = 6) -> None:
    """See that every trial of every combination was measured, once."""
    trials = [step for one in (TIMED, FAULTY) for step in part(lab, one).of("trial")]
    assert {step.state for step in trials} == {"measured"}
    for one in (TIMED, FAULTY):
        ledger = part(lab, one)
        assert [*range(len(ledger.of("trial")))] == sorted(s.number for s in ledger.of("trial"))
        assert all(len(ledger.tries(("trial", 0, s.number))) == 1 for s in ledger.of("trial"))
    assert len(trials) == count


def test_hosts_measure_both_engines_and_the_lead_proves_alone(lab: CombinedLab) -> None:
    document = lab.over_hosts(lab.two, lab.study())

    assert document["best"]["engine"] == "faulty.engine"
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] == pytest.approx(2.2, rel=0.05)
    measured_once(lab)
    for one in (TIMED, FAULTY):  # the baseline on every host, for each
        ledger = part(lab, one)
        assert {s.device for s in ledger.of("reference")} == {"host 1", "host 2"}
        assert {s.device for s in ledger.of("trial")} <= {"host 1", "host 2"}
        assert ledger.began is not None
        assert ledger.began.hosts
    proof = [s for one in (TIMED, FAULTY) for s in part(lab, one).steps if s.phase == "confirm"]
    assert {step.device for step in proof} == {""}
    assert document["lanes"]["devices"] == ["host 1", "host 2"]
    assert document["lanes"]["value"] == pytest.approx(document["lanes"]["alone"], rel=0.05)
    entries = {one["engine"]: one["lanes"] for one in document["combinations"]}
    assert [*entries] == ["timed.engine", "faulty.engine"]
    assert all(one == {"devices": ["host 1", "host 2"], "left_out": []} for one in entries.values())
    assert "several-hosts" in [doubt["code"] for doubt in document["doubts"]]
    again, page = rebuild(lab.folder)
    assert again["combinations"] == document["combinations"]
    assert "Best of 2 combinations" in page.read_text()
    database = Database(lab.server.url)
    states = database.ask("SELECT state, whole IS NULL AS whole FROM dyno_studies")
    assert [row["state"] for row in states] == ["over"] * 3
    assert sum(row["whole"] for row in states) == 1
    for place in (lab.folder, *(lab.folder / "stacks").iterdir()):  # the ledgers, to their ends
        lines = (place / "ledger.jsonl").read_text().splitlines()
        found = database.ask("SELECT count(*) AS n FROM dyno_ledger WHERE line = ANY(:l)", l=lines)
        assert found[0]["n"] >= len({*lines})
    database.close()


def test_the_search_knows_the_baseline_of_its_combination(lab: CombinedLab) -> None:
    document = lab.over_hosts(lab.two, lab.study())

    for one in (TIMED, FAULTY):
        assert {} not in [step.config for step in part(lab, one).of("trial")]
    assert document["outcome"]["tried"] == 6


def test_a_host_without_one_engine_is_left_out_of_that_combination_alone(lab: CombinedLab) -> None:
    lab.lacks = {"b": {"faulty.engine"}}

    document = lab.over_hosts(lab.two, lab.study())

    measured_once(lab)
    assert {s.device for s in part(lab, TIMED).steps if s.device} == {"host 1", "host 2"}
    (out,) = part(lab, FAULTY).lanes_left_out
    (without,) = out.devices
    assert out.stack == FAULTY
    assert out.why == "it has no faulty.engine."
    assert {s.device for s in part(lab, FAULTY).steps if s.device} == (
        {"host 1", "host 2"} - {without}
    )
    assert not part(lab, TIMED).lanes_left_out
    told = f"  ! {without}: it has no faulty.engine. It is left out of this combination."
    assert lab.told.count(told) == 1
    assert document["combinations"][1]["lanes"]["left_out"] == [
        {"device": without, "why": "it has no faulty.engine."}
    ]
    assert document["best"]["engine"] == "faulty.engine"


def test_an_engine_that_no_host_has_keeps_its_baseline(lab: CombinedLab) -> None:
    lab.lacks = {"a": {"faulty.engine"}, "b": {"faulty.engine"}}

    document = lab.over_hosts(lab.two, lab.study())

    assert any("No host can measure it: it has its baseline only." in line for line in lab.told)
    assert len(part(lab, FAULTY).lanes_left_out) == 2
    assert [len(part(lab, one).of("trial")) for one in (TIMED, FAULTY)] == [6, 0]
    # The lead has measured that baseline, and proves it on its own machine.
    assert (document["best"]["engine"], document["best"]["config"]) == ("faulty.engine", {})
    assert document["confirmation"]["verdict"] == "better"
    done = len(lab.by_engine)
    assert lab.run(lab.two, lab.study())["best"] == document["best"]  # it needs no host to be read
    assert len(lab.by_engine) == done


def test_a_host_that_is_slow_is_left_out_of_all(lab: CombinedLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = lab.two(start)
        return (2 * gap_ms, first_ms) if start.device == "c" else (gap_ms, first_ms)

    lab.names = ("a", "b", "c")
    document = lab.over_hosts(world, lab.study(parallel=3))

    (first,) = part(lab, TIMED).lanes_left_out
    (second,) = part(lab, FAULTY).lanes_left_out
    assert first.devices == second.devices
    assert (first.stack, second.stack) == ("", "")
    assert second.why.startswith("it was left out of timed.engine behind native: its baseline has")
    by_slow = [engine for engine, start in lab.by_engine if start.device == "c"]
    assert by_slow
    assert "faulty.engine" not in by_slow
    assert document["best"]["engine"] == "faulty.engine"


def test_a_baseline_that_fails_on_a_host_leaves_it_out_of_that_combination(
    lab: CombinedLab,
) -> None:
    def world(start: Start) -> Any:
        broken = start.device == "b" and lab.engine == "timed.engine"
        return "died" if broken else lab.two(start)

    lab.over_hosts(world, lab.study())

    (out,) = part(lab, TIMED).lanes_left_out
    assert out.stack == TIMED
    assert not part(lab, FAULTY).lanes_left_out
    assert {s.device for s in part(lab, FAULTY).of("reference")} == {"host 1", "host 2"}


class Killed(BaseException):
    """As after kill -9: nobody says goodbye to the database."""


def test_a_lead_that_is_killed_after_every_line_comes_to_the_same_end(
    lab: CombinedLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, close = Ledger.append, Hosts.close
    lines = [0]

    def killed(ledger: Ledger, entry: Any) -> None:
        append(ledger, entry)
        lines[0] += 1
        raise Killed

    monkeypatch.setattr(Ledger, "append", killed)
    monkeypatch.setattr(Hosts, "close", lambda hosts: hosts._crew.end())
    lab.stays = True
    document: dict[str, Any] = {}
    with lab.workers(99):
        while not document and lines[0] < 200:
            with suppress(Killed):
                document = lab.run(lab.two, lab.study(trials=4), hosts=lab.hosts())
        monkeypatch.setattr(Hosts, "close", close)

    assert lines[0] > 20
    assert document["confirmation"]["verdict"] == "better"
    assert document["best"]["engine"] == "faulty.engine"
    measured_once(lab, 4)
    for one in (TIMED, FAULTY):
        ledger = part(lab, one)
        assert {s.device for s in ledger.steps if s.device} == {"host 1", "host 2"}
        assert len([e for e in ledger.events if e.kind == "lanes"]) == 1
        keys = [(s.phase, s.number, s.contender) for s in ledger.steps]
        assert len(keys) == len({*keys})  # nothing twice
    assert lab.by_engine
    assert len([line for line in lab.told if "Round 2 of 2" in line]) >= 1


def test_a_study_whose_trials_are_over_needs_no_host(lab: CombinedLab) -> None:
    def stopped(start: Start) -> Any:
        if start.phase == "best":
            raise KeyboardInterrupt
        return lab.two(start)

    with pytest.raises(KeyboardInterrupt):
        lab.over_hosts(stopped, lab.study())
    measured_once(lab)

    document = lab.run(lab.two, lab.study())

    assert document["confirmation"]["verdict"] == "better"
    measured_once(lab)
    refused = lab.fails(lab.two, lab.study(trials=9))
    assert isinstance(refused, UsageError)
    assert "the study's trials run over hosts; name their database with --store" in str(refused)
    lab.over_hosts(lab.two, lab.study(trials=9))
    assert sum(len(part(lab, one).of("trial")) for one in (TIMED, FAULTY)) == 9


def test_a_study_that_was_begun_here_goes_on_here(lab: CombinedLab) -> None:
    def stopped(_: Start) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.run(stopped, lab.study(parallel=1))
    refused = lab.fails(lab.two, lab.study(), hosts=lab.hosts())
    assert isinstance(refused, UsageError)
    assert "the study's trials run on one machine; leave it out" in str(refused)


def test_where_no_host_comes_the_budget_ends_the_trials(lab: CombinedLab) -> None:
    document = lab.run(lab.two, lab.study(budget="2s"), hosts=lab.hosts())

    assert document["outcome"]["ended_by"] == "budget"
    assert document["outcome"]["tried"] == 0
    assert document["baseline"] is not None


def test_a_worker_that_dies_between_two_rounds_leaves_its_trials_to_others(
    lab: CombinedLab,
) -> None:
    lab.dies_when = lambda name: name == "b" and any("Round 2" in line for line in lab.told)

    document = lab.over_hosts(lab.two, lab.study(trials=10))

    trials = [step for one in (TIMED, FAULTY) for step in part(lab, one).of("trial")]
    assert len(trials) == 10
    assert {step.state for step in trials} == {"measured"}
    assert document["best"]["engine"] == "faulty.engine"


def test_who_comes_after_the_first_baseline_is_refused_and_the_study_goes_on(
    lab: CombinedLab,
) -> None:
    came: list[dict[str, Any]] = []

    def late() -> None:
        database = Database(lab.server.url)
        rows: list[Any] = []
        ends_s = time.monotonic() + 60
        while time.monotonic() < ends_s and not any("Round 1" in line for line in lab.told):
            time.sleep(0.01)
        rows = [*database.ask("SELECT study FROM dyno_studies WHERE whole IS NULL")]
        team = Team(database, rows[0]["study"])
        host = team.join(name="late", boot="late", gpus=0, sitting="late")
        assert host is not None
        assert team.lease(host, "late") is None  # it has no place, even before it is refused
        while time.monotonic() < ends_s:
            row = dict(team.beat(host, "late"))
            if row["refused"] is not None or row["state"] != "trials":
                came.append(row)
                break
            time.sleep(0.01)
        database.close()

    comes = threading.Thread(target=late)
    comes.start()
    lab.over_hosts(lab.two, lab.study(trials=10))
    comes.join()

    assert came[0]["refused"].startswith("the study has its hosts; start the worker before")
    for one in (TIMED, FAULTY):
        assert {s.device for s in part(lab, one).steps if s.device} == {"host 1", "host 2"}


def test_the_machine_that_breaks_ends_the_study_in_a_sentence(lab: CombinedLab) -> None:
    def world(start: Start) -> Any:
        return "died" if start.device and start.phase in {"trial", "check"} else lab.two(start)

    with lab.workers(99):
        error = lab.fails(world, lab.study(trials=20), hosts=lab.hosts())

    assert isinstance(error, (ServerError, StorageError))
    assert "No other host is left." in str(error)
    document = lab.over_hosts(lab.two, lab.study(trials=6))
    assert document["best"]["engine"] == "faulty.engine"
