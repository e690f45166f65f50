"""Studies of which something is gone: a run's folder, or a line of the ledger."""

import shutil
from pathlib import Path

import pytest

from llmdyno.machine import environment
from llmdyno.tune.entries import Event
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.reference import reference_of
from llmdyno.tune.study import study_document
from study_lab import LaneLab, Start, StudyLab, fast


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def remove(folder: Path, *phases: str) -> None:
    """Remove the folders of a study's runs of these phases."""
    for step in Ledger(folder).steps:
        if step.phase in phases:
            shutil.rmtree(folder / step.run)


def test_lanes_do_without_the_files_of_their_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    lab = LaneLab(tmp_path / "s", monkeypatch)
    before = lab.run(fast)["confirmation"]
    remove(lab.folder, "reference")

    assert lab.run(fast)["confirmation"] == before
    assert lab.starts == []


def test_lanes_whose_baseline_has_no_line_any_more_do_not_keep_a_study_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    lab = LaneLab(tmp_path / "s", monkeypatch)
    lab.run(fast)
    path = lab.folder / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"phase":"reference"' not in line))

    assert lab.run(fast)["confirmation"]["verdict"] == "better"
    assert lab.starts == []  # no trial is left that they would be compared with


def test_a_reference_is_its_line_in_the_ledger(lab: StudyLab) -> None:
    asked = lab.study(users="1,2", trial_duration="6s")
    lab.run(fast, asked)
    remove(lab.folder, "reference")
    lab.told.clear()

    lab.run(fast, asked)

    reference = reference_of(Ledger(lab.folder))
    assert reference is not None
    assert reference.phase == "reference"
    assert lab.starts == []
    assert not any("measured again" in line for line in lab.told)


def test_a_refused_resume_takes_nothing_back(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(fast)
    before = (lab.folder / "ledger.jsonl").read_text()
    remove(lab.folder, "confirm")
    real = environment.describe
    monkeypatch.setattr(environment, "describe", lambda **told: {**real(**told), "kernel": "x"})

    lab.fails(fast)

    assert (lab.folder / "ledger.jsonl").read_text() == before


def test_a_winner_whose_run_alone_is_gone_keeps_its_pairs(lab: StudyLab) -> None:
    lab.run(fast)
    remove(lab.folder, "best")

    assert lab.run(fast)["confirmation"]["verdict"] == "better"
    assert [start.phase for start in lab.starts] == ["best"]


def test_what_befell_a_winner_that_is_gone_is_not_anothers(lab: StudyLab) -> None:
    lab.run(fast)
    died = Event(kind="died", why="died after the confirmation (died)", contender=0)
    Ledger(lab.folder).append(died)
    remove(lab.folder, "best", "confirm", "ablation")

    document = lab.run(fast)

    assert document["rejected"] == []
    assert document["confirmation"]["verdict"] == "better"
    assert Ledger(lab.folder).of("best")[-1].contender == 1


def test_a_withdrawn_trial_without_a_line_is_left_out(lab: StudyLab) -> None:
    lab.run(fast)
    ledger = Ledger(lab.folder)
    ledger.append(Event(kind="withdrawn", why="no host was there", void=(("trial", 0, 5),)))

    document = study_document(lab.folder, Ledger(lab.folder), stack_of(lab.study()))

    assert document["withdrawn"] == []


@pytest.mark.parametrize("phase", ["trial", "best", "confirm"])
def test_a_folder_that_is_renamed_while_the_study_runs_goes_on_where_it_is_then(
    lab: StudyLab, phase: str
) -> None:
    """Nothing is measured beside it, into a ledger without a beginning."""
    there = lab.folder.with_name("there")
    moved = False

    def world(start: Start) -> tuple[float, float]:
        nonlocal moved
        if start.phase == phase and not moved:
            lab.folder.rename(there)
            moved = True
        return fast(start)

    said = str(lab.fails(world))
    assert "ledger.jsonl is gone: the study's folder was renamed or removed" in said
    assert not (lab.folder / "ledger.jsonl").exists()

    lab.folder = there
    assert lab.run(fast)["confirmation"]["verdict"] == "better"
