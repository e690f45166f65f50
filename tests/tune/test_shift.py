"""A machine that has another speed after the trials: the verdict stands, and says so."""

from pathlib import Path

import pytest

from llmdyno.cli.rebuild import rebuild
from llmdyno.results import conclusions
from study_lab import LaneLab, Start, StudyLab, World, fast

CODE = "changed-baseline"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def slowed(times: float, phases: frozenset[str] = frozenset({"confirm", "best"})) -> World:
    """Return a world that takes so many times as long in these phases, and in what comes later."""

    def world(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = fast(start)
        later = start.phase in phases | {"ablation", "check"}
        return (gap_ms * times, first_ms * times) if later else (gap_ms, first_ms)

    return world


@pytest.mark.parametrize("phases", [{"confirm"}, {"best", "confirm"}])
def test_a_step_after_the_trials_is_told_and_spoils_no_verdict(
    lab: StudyLab, phases: set[str]
) -> None:
    document = lab.run(slowed(1 / 0.7, frozenset(phases)), lab.study(pairs=3))

    confirmation = document["confirmation"]
    assert confirmation["verdict"] == "better"
    assert confirmation["ratio"]["token_rate"]["mean"] == pytest.approx(1.9, rel=0.04)
    assert confirmation["shift"]["mean"] == pytest.approx(0.7, rel=0.04)
    low, high = confirmation["shift"]["ci95"]
    assert low < confirmation["shift"]["mean"] < high < 1
    (said,) = [one["text"] for one in document["doubts"] if one["code"] == CODE]
    assert f"the baseline came to {confirmation['shift']['mean']:.3g}x [" in said
    assert said in conclusions.remarks(document)
    again, page = rebuild(lab.folder)
    assert again["confirmation"]["shift"] == confirmation["shift"]
    assert "the server has changed meanwhile" in page.read_text()


@pytest.mark.parametrize("times", [1.0, 1.07])
def test_a_machine_that_stays_about_as_it_was_is_not_doubted(lab: StudyLab, times: float) -> None:
    document = lab.run(slowed(times), lab.study(pairs=6))

    assert document["confirmation"]["shift"] is None
    assert CODE not in {one["code"] for one in document["doubts"]}


def test_a_step_asks_for_no_more_pairs_than_a_steady_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = []
    for name, times in (("steady", 1.0), ("step", 1 / 0.7)):
        lab = StudyLab(tmp_path / name, monkeypatch)
        document = lab.run(slowed(times), lab.study(pairs=None))
        pairs.append(document["confirmation"]["pairs"])

    assert pairs[0] == pairs[1]


def test_where_the_step_comes_among_lanes_no_good_config_falls_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = LaneLab(tmp_path / "s", monkeypatch)
    document = lab.run(slowed(2.5), lab.study(search="fast", trials=1))

    assert document["best"]["config"] == {"fast": True}
    assert document["confirmation"]["verdict"] == "better"


@pytest.mark.parametrize(("trial_s", "is_told"), [("4s", False), ("8s", True)])
def test_a_run_of_another_length_tells_nothing_of_the_machine(
    lab: StudyLab, trial_s: str, *, is_told: bool
) -> None:
    """A longer run is faster: its server has warmed up. The reference is as long as a trial."""

    def world(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = fast(start)
        late = start.phase == "confirm"
        warm = 1.5 if start.level_s == 8 and (late or not is_told) else 1.0
        return gap_ms / warm, first_ms / warm

    asked = lab.study(users="1,2", duration="8s", trial_duration=trial_s, pairs=3)
    document = lab.run(world, asked)

    assert {start.level_s for start in lab.starts if start.phase == "confirm"} == {8}
    assert (document["confirmation"]["shift"] is not None) is is_told
    assert (CODE in {one["code"] for one in document["doubts"]}) is is_told


@pytest.mark.parametrize(("times", "is_told"), [(1.5, True), (1.0, False), (0.6, True)])
def test_a_step_is_found_where_no_run_before_was_as_those_of_the_pairs(
    lab: StudyLab, times: float, *, is_told: bool
) -> None:
    """The run in full is warmer by a quarter, and the reference, which is shorter, is colder."""

    def world(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = fast(start)
        warm = 1.25 if start.levels > 1 else 0.8 if start.level_s < 8 else 1.0
        warm *= 1 / times if start.phase == "confirm" else 1.0
        return gap_ms / warm, first_ms / warm

    asked = lab.study(users="1,2", duration="8s", trial_duration="4s", pairs=3)
    document = lab.run(world, asked)

    shift = document["confirmation"]["shift"]
    assert (shift is not None) is is_told
    assert (CODE in {one["code"] for one in document["doubts"]}) is is_told
    if shift is not None:  # against the nearer of the two
        nearer = 0.8 if times > 1 else 1.25
        assert shift["mean"] == pytest.approx(1 / times / nearer, rel=0.06)
