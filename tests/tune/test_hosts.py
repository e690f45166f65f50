"""A study over hosts that come and go: lead and PostgreSQL are real, what is served is not."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import postgresql
from host_lab import HostLab
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.tune.endings import trials_left
from llmdyno.tune.entries import Began, Event, Out, Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from llmdyno.tune.team import Team
from study_lab import Start, fast, flat


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.started() as found:
        yield found


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: postgresql.Server
) -> Iterator[HostLab]:
    yield HostLab(tmp_path / "a study", monkeypatch, server)
    postgresql.forget_studies(server)


def numbers(lab: HostLab) -> list[int]:
    return sorted(step.number for step in Ledger(lab.folder).of("trial"))


def test_what_is_left_is_what_may_be_begun_or_measured_again(tmp_path: Path) -> None:
    study = Study(trials=2, parallel=2)
    ledger = Ledger(tmp_path)
    assert trials_left(ledger, study)
    ledger.append(Began(study="s", spec=study, environment={}, hosts=True))
    done = Step(phase="trial", number=0, config={}, state="measured", beside=1)
    ledger.append(done)
    assert trials_left(ledger, study)
    hung = msgspec.structs.replace(done, number=1, state="failed", failure_class="hung")
    ledger.append(hung)
    assert trials_left(ledger, study)  # what ran beside it may have been at fault
    ledger.append(Event(kind="withdrawn", why="no host", void=(("trial", 0, 1),)))
    assert not trials_left(ledger, study)
    assert not trials_left(ledger, msgspec.structs.replace(study, max_pairs=20))
    more = msgspec.structs.replace(study, trials=3)
    assert trials_left(ledger, more)
    ledger.append(Event(kind="extended", why="trials 3", changes={"trials": 3}))
    ledger.append(Out(phase="trial", number=2, config={}, device="host 1"))
    ledger.append(Event(kind="ended", why="budget"))
    assert [out.number for out in ledger.out] == [2]
    assert trials_left(ledger, more)
    ledger.append(Event(kind="withdrawn", why="no host", void=(("trial", 0, 1), ("trial", 0, 2))))
    assert (ledger.out, trials_left(ledger, more)) == ([], False)
    ledger.append(Event(kind="extended", why="pairs 4", changes={"pairs": 4}))
    assert Ledger(tmp_path).ended("budget")  # pairs alone open no trial again


def test_where_no_host_comes_the_budget_ends_the_trials(lab: HostLab) -> None:
    document = lab.run(flat, lab.study(budget="2s"), hosts=lab.hosts())

    assert document["outcome"]["ended_by"] == "budget"
    assert document["outcome"]["tried"] == 0
    assert document["baseline"] is not None
    ends = ("has no time for another trial", "is used up")  # the second on a slow machine
    assert any(said in line for line in lab.told for said in ends)
    lab.run(flat, lab.study(budget="2s"))  # nor does it want a host to go on
    assert lab.starts == []


def test_who_has_enough_while_no_host_is_there_ends_the_trials(lab: HostLab) -> None:
    lab.enough = lambda: any("No host is there; trials go on" in line for line in lab.told)

    document = lab.over_hosts(flat, lab.study(), jobs=2)  # a baseline and a trial each

    assert lab.told.count("! No host is there; trials go on when a worker comes back.") == 1
    assert (document["outcome"]["tried"], document["outcome"]["ended_by"]) == (2, "hand")
    assert document["outcome"]["state"] == "nothing better"
    ledger = Ledger(lab.folder)
    assert (ledger.out, numbers(lab)) == ([], [0, 1])
    assert ledger.withdrawn
    lab.run(flat, lab.study())  # nothing is left that a host would be wanted for
    assert lab.starts == []

    lab.enough = lambda: False
    refused = lab.fails(flat, lab.study(trials=7))
    assert isinstance(refused, UsageError)
    assert "name their database with --store" in str(refused)
    lab.over_hosts(flat, lab.study(trials=7))
    assert numbers(lab) == [*range(7)]  # what was withdrawn among them


def test_a_study_that_was_stopped_in_its_proof_needs_no_host(
    lab: HostLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(start: Start) -> Any:
        if start.phase == "best":
            raise KeyboardInterrupt
        return fast(start)

    with pytest.raises(KeyboardInterrupt):
        lab.over_hosts(stopped, lab.study(trials=4))
    before = numbers(lab)
    monkeypatch.setattr("llmdyno.tune.tuner._devices", None)  # nor parts of this machine
    monkeypatch.setattr("llmdyno.tune.tuner.reference_of_lanes", None)

    document = lab.run(fast, lab.study(trials=4, pairs=3))

    assert document["confirmation"]["verdict"] == "better"
    assert {start.phase for start in lab.starts} <= {"best", "confirm", "ablation"}
    assert numbers(lab) == before
    lab.run(fast, lab.study(trials=4, pairs=3), hosts=lab.hosts())  # with a store it is as well
    assert lab.starts == []


@pytest.mark.parametrize("at", [1, 3])  # a baseline, a trial
def test_what_the_ledger_has_is_not_measured_again(
    at: int, lab: HostLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, asked = Team.take, []

    def killed(self: Team, *what: Any) -> None:
        asked.append(what)
        if len(asked) == at:
            raise KeyboardInterrupt
        take(self, *what)

    monkeypatch.setattr(Team, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        lab.over_hosts(flat, lab.study(trials=3))
    runs = [step.run for step in Ledger(lab.folder).steps]

    lab.over_hosts(flat, lab.study(trials=3))

    after = [step.run for step in Ledger(lab.folder).steps]
    assert after[: len(runs)] == runs
    assert len(after) == len({*after})
    assert numbers(lab) == [0, 1, 2]


def test_a_study_knows_from_its_first_line_where_its_trials_run(
    lab: HostLab, tmp_path: Path
) -> None:
    def stopped(_: Start) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.run(stopped, lab.study(), hosts=lab.hosts())
    assert isinstance(lab.fails(flat, lab.study()), UsageError)

    lab.folder = tmp_path / "here"
    with pytest.raises(KeyboardInterrupt):
        lab.run(stopped, lab.study())
    refused = lab.fails(flat, lab.study(), hosts=lab.hosts())
    assert isinstance(refused, UsageError)
    assert "run in lanes of one machine; leave it out" in str(refused)


def test_a_study_that_is_removed_while_it_waits_ends_in_a_sentence(lab: HostLab) -> None:
    lab.after = lambda database: (database.ask("DELETE FROM dyno_studies"), None)[1]
    with lab.workers(2):
        error = lab.fails(flat, lab.study(), hosts=lab.hosts())

    assert isinstance(error, StorageError)
    said = "the study was removed from the database. What was measured is kept; go on with: dyno"
    assert said in str(error)
    assert f"--resume '{lab.folder}' --store 'postgresql+psycopg://me@/team?host=" in str(error)
    assert Ledger(lab.folder).lanes == ("host 1", "host 2")
    before = Ledger(lab.folder).of("trial")
    lab.after = lambda _: None

    document = lab.over_hosts(flat, lab.study())  # who is who is not known any more

    assert document["lanes"]["devices"] == ["host 3", "host 4"]
    assert Ledger(lab.folder).of("trial")[: len(before)] == before
    assert numbers(lab) == [*range(6)]


def test_trials_that_failed_with_the_machine_are_measured_again_by_hosts(lab: HostLab) -> None:
    """What they share is away while three trials and the baseline of the lead's check run."""

    def world(start: Start) -> Any:
        checks = sum(one.phase == "check" for one in lab.starts)
        broken = start.phase in {"trial", "check"} and checks < 2
        return "died" if broken else flat(start)

    # In turns: who fails three times in a row is checked by itself.
    lab.may_work = lambda name: lab.by[-1:] != [name]
    document = lab.over_hosts(world, lab.study(trials=4))

    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert numbers(lab) == [0, 1, 2, 3]
    assert not [start for start in lab.starts if start.phase == "check" and start.device]
    failed = [step for step in Ledger(lab.folder).voided if step.phase == "trial"]
    assert len(failed) >= 3
    assert all(step.device.startswith("host ") for step in failed)


def test_a_host_that_breaks_is_checked_once_and_has_no_further_trial(lab: HostLab) -> None:
    """It takes a trial that was offered before its check, which fails, too."""

    def world(start: Start) -> Any:
        broken = start.device == "b" and start.phase in {"trial", "check"}
        return "died" if broken else flat(start)

    def first(name: str) -> bool:
        return name == "b" or "check" in lab.measured or "trial" not in lab.measured

    lab.may_work = first
    document = lab.over_hosts(world, lab.study(trials=6))

    assert len(document["lanes"]["left_out"]) == 1
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert [start.device for start in lab.starts if start.phase == "check"] == ["b"]
    left = Ledger(lab.folder).lanes_left
    assert not [
        step for step in Ledger(lab.folder).steps if step.device in left and step.state == "failed"
    ]


def test_what_a_host_lets_fail_before_it_hears_that_it_is_left_out_comes_back(
    lab: HostLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse, refused = Team.refuse, threading.Event()

    def world(start: Start) -> Any:
        broken = start.device == "b" and start.phase in {"trial", "check"}
        return "died" if broken else flat(start)

    def since_check() -> list[str]:
        at = lab.measured.index("check") if "check" in lab.measured else len(lab.measured)
        return lab.measured[at + 1 :]

    def late(team: Team, *what: Any) -> None:
        ends_s = time.monotonic() + 20
        while "check" in lab.measured and not since_check() and time.monotonic() < ends_s:
            time.sleep(0.01)
        refused.set()
        refuse(team, *what)

    monkeypatch.setattr(Team, "refuse", late)
    lab.may_work = lambda name: name == "b" or refused.is_set() or "trial" not in lab.measured
    document = lab.over_hosts(world, lab.study(trials=8))

    assert "trial" in since_check()
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert numbers(lab) == [*range(8)]


def test_the_last_host_that_breaks_ends_the_study_though_the_lead_still_works(
    lab: HostLab,
) -> None:
    def world(start: Start) -> Any:
        return "died" if start.device and start.phase in {"trial", "check"} else flat(start)

    with lab.workers(99):
        error = lab.fails(world, lab.study(trials=20), hosts=lab.hosts())

    assert isinstance(error, ServerError)
    assert "its baseline has worked, and fails now (died)" in str(error)
    assert "No other host is left." in str(error)
    assert len(Ledger(lab.folder).of("trial")) < 20
    assert not [step for step in Ledger(lab.folder).of("trial") if step.state == "failed"]

    document = lab.over_hosts(flat, lab.study(trials=8))

    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert len(numbers(lab)) == 8
