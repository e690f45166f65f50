"""What the page shows of a study, and what its buttons do to it."""

import re
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from llmdyno.dashboard.study import StudyFeed
from llmdyno.load.progress import Progress
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.tuner import Tuner
from llmdyno.wire.exchange import Meter
from study_lab import Start, StudyLab, fast


@pytest.fixture
def study_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def quiet(told: list[str]) -> Narrator:
    return Narrator(
        notify=told.append, notify_waiting=lambda _: None, display=lambda *_: lambda *_: None
    )


def test_the_page_has_every_step_the_best_and_what_comes_next(
    study_lab: StudyLab, board: Any
) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        return "died" if start.config.get("itl_ms") == 30 else fast(start)

    asked = study_lab.study(
        search="fast,itl_ms", trials=3, candidates=[{"itl_ms": 30}, {"fast": True}]
    )
    told: list[str] = []
    study_lab.world = world
    feed = StudyFeed(board, asked, Event())
    document = Tuner(asked, study_lab.folder, feed.narrator(quiet(told))).run()

    shown = board.parts["study"]
    trials = [step for step in shown["steps"] if step["phase"] == "trial"]
    assert [one["value"] for one in trials] == [one["value"] for one in document["trials"]]
    assert trials[0]["why"].startswith("died")
    assert shown["baseline"] == next(s for s in shown["steps"])["value"]
    assert [step["label"] for step in shown["steps"] if step["best"]] == [
        max((one for one in trials if one["value"]), key=lambda one: one["value"])["label"]
    ]
    assert not shown["searching"]
    assert any(line.startswith("next, 3 of 3: ") for line in board.parts["outlook"]["lines"])
    assert re.fullmatch(
        r"next, (pair 2 of 2|without .*); ends about .*", board.parts["proving"]["line"]
    )
    assert board.lists["lines"] == told
    assert board.parts["head"]["kind"] == "tune"


def test_enough_ends_the_trials_of_the_study(study_lab: StudyLab, board: Any) -> None:
    asked = study_lab.study(search="fast,itl_ms", trials=5)
    enough = Event()
    enough.set()
    study_lab.world = fast
    feed = StudyFeed(board, asked, enough)

    document = Tuner(asked, study_lab.folder, feed.narrator(quiet([]))).run()

    assert document["outcome"]["ended_by"] == "hand"
    assert document["trials"] == []


def test_a_run_within_the_study_is_drawn_under_its_name(study_lab: StudyLab, board: Any) -> None:
    feed = StudyFeed(board, study_lab.study(), Event())
    told = feed.narrator(quiet([]))

    told.notify_waiting("starting the server")
    assert board.parts["waiting"] == "starting the server"
    told.display("trial 3", [2.0])(Progress(load="2 users"), Meter())

    assert board.parts["now"]["name"] == "trial 3"


def test_a_study_that_goes_on_shows_what_it_had_before(study_lab: StudyLab, board: Any) -> None:
    asked = study_lab.study()
    study_lab.run(fast, asked)

    feed = StudyFeed(board, asked, Event())
    Tuner(asked, study_lab.folder, feed.narrator(quiet([]))).run()  # there is nothing left to do

    assert [step["phase"] for step in board.parts["study"]["steps"]][-1] == "confirm"


def test_a_trial_that_was_ended_early_is_shown_with_its_reason_and_is_no_best(
    study_lab: StudyLab, board: Any
) -> None:
    asked = study_lab.study()
    study_lab.run(fast, asked)
    ledger = Ledger(study_lab.folder)
    lost = next(step for step in ledger.steps if step.phase == "trial")
    lost = msgspec.structs.replace(lost, state="pruned", value=1e9, pruned_why="cannot win")
    ledger.steps = [lost if step.phase == "trial" else step for step in ledger.steps]

    StudyFeed(board, asked, Event()).show(ledger)

    shown = board.parts["study"]["steps"]
    (trial,) = [step for step in shown if step["phase"] == "trial"]
    assert (trial["state"], trial["why"], trial["best"]) == ("pruned", "cannot win", False)
