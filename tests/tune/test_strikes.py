"""What strikes a study at any moment: it goes on, loses nothing, and its word stays true."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmdyno import deploy, store
from llmdyno.errors import DynoError, InterruptError, ServerError
from llmdyno.report import pages
from llmdyno.terminal.study import verdict_lines
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from study_lab import Start, StudyLab, World, fast

BEST = {"fast": True, "itl_ms": 10}
ASKED: dict[str, Any] = {
    "users": "1,2",
    "search": "fast,itl_ms",
    "trials": 2,
    "candidates": [BEST, {"itl_ms": 10}],
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return lab_in(tmp_path, monkeypatch)


def lab_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    monkeypatch.setattr("llmdyno.results.stats.RESAMPLES", 50)
    return StudyLab(place / "s", monkeypatch)


def codes(document: dict[str, Any]) -> list[str]:
    return [doubt["code"] for doubt in document["doubts"]]


def fails(*numbers: int, kind: str = "died") -> World:
    """Return a world in which the starts of these numbers fail."""
    return lambda start: kind if start.number in numbers else fast(start)


def interrupted(number: int) -> World:
    """Return a world in which a person ends the study at a start."""

    def world(start: Start) -> tuple[float, float]:
        if start.number == number:
            raise InterruptError("interrupted")
        return fast(start)

    return world


def test_a_ledger_that_is_cut_anywhere_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a kill leaves of the ledger, the rest is measured, and nothing twice."""
    whole = lab_in(tmp_path, monkeypatch)
    document = whole.run(fast, whole.study(**ASKED))
    content = (whole.folder / store.LEDGER).read_bytes()
    begun = content.index(b"\n") + 1
    dice = random.Random(14)
    cuts = [begun, *sorted(dice.sample(range(begun, len(content)), 5)), len(content) - 1]
    for cut in cuts:
        again = lab_in(tmp_path / str(cut), monkeypatch)
        shutil.copytree(whole.folder / "runs", again.folder / "runs")
        (again.folder / store.LEDGER).write_bytes(content[:cut])
        had = Ledger(again.folder).steps

        came = again.run(fast, again.study(**ASKED))

        assert again.steps[: len(had)] == had
        assert len(had) + len(again.starts) == len(whole.starts), cut
        assert came["best"]["config"] == document["best"]["config"] == BEST
        assert came["confirmation"]["verdict"] == "better"
        assert [row["knob"] for row in came["ablation"]] == ["itl_ms", "fast"]


def test_a_winner_that_dies_in_the_ablation_is_none(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        return "hung" if start.phase == "ablation" and start.config == BEST else fast(start)

    document = lab.run(world, lab.study(**ASKED))

    assert document["best"]["config"] == {"itl_ms": 10}
    assert document["confirmation"]["verdict"] == "better"
    assert [(one["config"], one["why"]) for one in document["rejected"]] == [
        (BEST, "died in the ablation (hung)")
    ]
    assert document["rejected"][0]["confirmation"]["verdict"] == "not confirmed"
    assert lab.run(world, lab.study(**ASKED))["best"]["config"] == {"itl_ms": 10}
    assert lab.starts == []


def test_a_winner_that_fails_once_before_a_stop_is_tried_again(lab: StudyLab) -> None:
    """The stop comes before the second try: nothing tells yet whether the config is at fault."""
    failed: list[int] = []

    def world(start: Start) -> tuple[float, float] | str:
        if start.phase != "ablation" or start.config != BEST:
            return fast(start)
        if failed:
            raise InterruptError("interrupted")
        failed.append(start.number)
        return "hung"

    with pytest.raises(InterruptError):
        lab.run(world, lab.study(**ASKED))
    assert lab.document["best"]["config"] == BEST
    assert lab.document["rejected"] == []

    document = lab.run(fast, lab.study(**ASKED))
    assert lab.starts[0].config == BEST
    assert document["best"]["config"] == BEST
    assert document["rejected"] == []
    assert sorted(row["knob"] for row in document["ablation"]) == ["fast", "itl_ms"]
    assert all(row["pairs"] for row in document["ablation"])


@pytest.mark.parametrize("phase", ["best", "confirm"])
def test_a_first_failure_that_a_stop_follows_rejects_nothing(lab: StudyLab, phase: str) -> None:
    """What has worked is tried once more; until then nobody knows whose fault it was."""
    failed: list[int] = []

    def world(start: Start) -> tuple[float, float] | str:
        if start.phase != phase or start.config != BEST:
            return fast(start)
        if failed:
            raise InterruptError("interrupted")
        failed.append(start.number)
        return "hung"

    asked = lab.study(**ASKED)
    with pytest.raises(InterruptError):
        lab.run(world, asked)
    stopped = lab.document

    assert stopped["rejected"] == []
    assert stopped["outcome"]["state"] == "unfinished"
    assert stopped["confirmation"]["verdict"] == "not confirmed"
    document = lab.run(fast, asked)
    assert lab.starts[0].config == BEST
    assert document["best"]["config"] == BEST
    assert document["confirmation"]["verdict"] == "better"


@pytest.mark.parametrize("number", [6, 8])
def test_a_pair_with_a_stop_in_it_is_doubted(lab: StudyLab, number: int) -> None:
    """Starts 5 to 8 are the confirmation: 6 and 8 are the second runs of its pairs."""
    with pytest.raises(InterruptError):
        lab.run(interrupted(number), lab.study(search="fast", trials=1, users="1,2"))
    stopped = lab.document
    document = lab.run(fast, lab.study(search="fast", trials=1, users="1,2"))

    assert stopped["confirmation"]["verdict"] == "not confirmed"
    assert len(lab.starts) == 8 - (number - 1)
    assert document["confirmation"]["verdict"] == "better"
    assert "torn-pairs" in codes(document)
    (said,) = [line for line in verdict_lines(document) if "before the study was stopped" in line]
    assert said.startswith("Of 1 of 2 pairs one run was measured before")
    assert said in lab.bundled()


@pytest.mark.parametrize(("at", "arm"), [(5, "baseline in pair 1"), (6, "tuned in pair 1")])
def test_a_pair_with_a_run_that_failed_is_doubted(lab: StudyLab, at: int, arm: str) -> None:
    asked = lab.study(users="1,2")
    document = lab.run(fails(at, kind="out-of-memory"), asked)

    assert document["confirmation"]["verdict"] == "better"
    said = f"1 run of the pairs failed and was made again: {arm} (out-of-memory)."
    assert said in [doubt["text"] for doubt in document["doubts"]]
    assert said in verdict_lines(document)


def test_a_run_measured_again_in_another_place_has_not_failed(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lab.study(users="1,2")
    monkeypatch.setenv("FAULTY_VERSION", "1.0")
    with pytest.raises(InterruptError):
        lab.run(interrupted(6), asked)  # half a pair is measured
    monkeypatch.setenv("FAULTY_VERSION", "2.0")
    document = lab.run(fast, asked, elsewhere=True)

    tries = [step.place for step in lab.steps if (step.phase, step.number) == ("confirm", 0)]
    assert tries == [0, 1]
    assert [run["failed_before"] for run in document["confirmation"]["runs"]] == [[]] * 4
    assert "repeated-runs" not in codes(document)


def test_a_run_that_failed_with_the_machine_is_told_too(lab: StudyLab) -> None:
    lab.fails(fails(5, 6, kind="missing-library"), lab.study(users="1,2"))
    document = lab.run(fast, lab.study(users="1,2"))

    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["runs"][0]["failed_before"] == ["missing-library"] * 2
    assert "repeated-runs" in codes(document)


def test_a_winner_that_fails_now_and_then_is_told(lab: StudyLab) -> None:
    """Each time a second try works: what was measured is whole, and hides how often it fails."""

    def world(start: Start) -> tuple[float, float] | str:
        fails_now = start.number in {3, 6} and start.config == {"fast": True}
        return "died" if fails_now else fast(start)

    document = lab.run(world)

    assert document["confirmation"]["verdict"] == "better"
    starts = document["confirmation"]["starts"]
    assert starts["after"] == {"made": 6, "failed": ["died", "died"]}
    assert starts["before"] == {"made": 3, "failed": []}
    said = "tried again: the tuned in 2 of 6 (died, died)"
    assert said in lab.bundled()
    assert said in "\n".join(verdict_lines(document))


def test_what_the_world_refused_is_no_failure_of_a_config(lab: StudyLab) -> None:
    """The first baseline finds its port taken; the person mends that and goes on."""
    assert "port" in str(lab.fails(lambda _: "port-in-use"))

    document = lab.run(fast)

    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["starts"]["before"]["failed"] == []
    assert "failing-starts" not in codes(document)


def test_what_is_fast_because_it_refuses_is_no_winner(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float, int]:
        return *fast(start), 4 if start.config.get("fast") else 0

    document = lab.run(world, lab.study(**ASKED))

    # The config that serves all is tried first, though the other looks 1.4 times as fast.
    assert document["best"]["config"] == {"itl_ms": 10}
    assert document["confirmation"]["verdict"] == "better"
    assert [start.config for start in lab.starts].count(BEST) == 1


def test_a_winner_that_begins_to_refuse_is_dropped(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float, int]:
        return *fast(start), 4 if start.config and start.phase == "confirm" else 0

    document = lab.run(world)

    assert document["best"]["config"] == {}
    assert document["outcome"]["said"] == (
        "The baseline stays: fast=true failed 25.3 % of its requests in the confirmation, the"
        " baseline 0.0 %."
    )
    assert document["confirmation"]["verdict"] == "worse"


def test_requests_that_fail_in_both_arms_are_a_doubt(lab: StudyLab) -> None:
    document = lab.run(lambda start: (*fast(start), 4))

    assert document["confirmation"]["verdict"] == "better"
    said = "of the baseline (25.3 % of its requests); failed-requests in 2 of 2 runs of the tuned ("
    (doubt,) = [one["text"] for one in document["doubts"] if one["code"] == "doubtful-pairs"]
    assert said in doubt


def test_an_engine_that_is_replaced_while_the_study_runs(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def world(start: Start) -> tuple[float, float]:
        monkeypatch.setenv("FAULTY_VERSION", "2.0" if start.number == 4 else "1.0")
        return fast(start)

    error = lab.fails(world)

    assert type(error) is DynoError
    assert error.exit_status == 3
    assert str(error).startswith("the engine's version: 1.0 before, 2.0 after: it was replaced")
    assert "--elsewhere" in str(error)
    assert len(lab.starts) == 4
    monkeypatch.setenv("FAULTY_VERSION", "1.0")  # put back
    assert lab.run(fast)["confirmation"]["verdict"] == "better"
    assert len(lab.starts) == 3


def test_a_study_may_go_on_with_an_engine_that_is_replaced(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def world(start: Start) -> tuple[float, float]:
        monkeypatch.setenv("FAULTY_VERSION", "2.0" if start.number >= 4 else "1.0")
        return fast(start)

    monkeypatch.setenv("FAULTY_VERSION", "1.0")
    document = lab.run(world, elsewhere=True)

    assert document["moves"] == ["the engine's version: 1.0 before, 2.0 after"]
    assert document["confirmation"]["pairs"] == 2
    assert [run["place"] for run in document["confirmation"]["runs"]] == [1] * 4
    assert "another-place" in codes(document)


def test_a_study_whose_last_run_failed_with_the_machine_ends(lab: StudyLab) -> None:
    """All that is left is half a pair of the ablation: it is made whole."""
    asked = lab.study(**ASKED)
    whole = lab.run(fast, asked)
    starts = len(lab.starts)
    shutil.rmtree(lab.folder)
    error = lab.fails(fails(starts, starts + 1, kind="missing-library"), asked)

    assert isinstance(error, ServerError)
    document = lab.run(fast, asked)
    assert document["stopped"] is None
    assert [row["pairs"] for row in document["ablation"]] == [
        row["pairs"] for row in whole["ablation"]
    ]


def test_a_stop_that_leaves_nothing_to_measure_is_not_told_for_ever(lab: StudyLab) -> None:
    lab.fails(fails(2, 3), lab.study(users="1,2", trials=1))  # the reference
    lines = (lab.folder / store.LEDGER).read_text().splitlines(keepends=True)
    shutil.rmtree(lab.folder)
    lab.run(fast, lab.study(users="1,2", trials=1))
    with (lab.folder / store.LEDGER).open("a") as ledger:
        ledger.write(lines[-1])  # the machine's event

    document = lab.run(fast, lab.study(users="1,2", trials=1))

    assert [start.phase for start in lab.starts] == ["check"]
    assert document["stopped"] is None
    assert document["outcome"]["state"] == "confirmed"


def test_a_study_whose_winners_may_all_not_win_ends(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdyno.tune.gate.Gate.admits", lambda *_: False)

    document = lab.run(fast)
    assert document["outcome"]["state"] == "nothing better"
    assert document["best"]["config"] == {}
    content = (lab.folder / store.LEDGER).read_bytes()
    assert lab.run(fast)["outcome"] == document["outcome"]
    assert (lab.folder / store.LEDGER).read_bytes() == content


@pytest.mark.parametrize(("number", "tried"), [(4, 0), (5, 1), (9, 1)])
def test_a_stop_before_the_next_best_is_confirmed_is_no_verdict(
    lab: StudyLab, number: int, tried: int
) -> None:
    """Start 4 is the best one's full run, which dies in the confirmation; 9 is that of the next."""

    def world(start: Start) -> tuple[float, float] | str:
        if start.number == number:
            raise InterruptError("interrupted")
        dies = start.phase == "confirm" and start.config == {"fast": True}
        return "died" if dies else fast(start)

    asked = lab.study(search="fast,itl_ms", trials=2, candidates=[{"fast": True}, {"itl_ms": 15}])
    with pytest.raises(InterruptError):
        lab.run(world, asked)
    stopped = lab.document

    assert stopped["confirmation"]["verdict"] == "not confirmed"
    assert stopped["outcome"]["state"] == "unfinished"
    assert f"dyno tune --resume {lab.folder} goes on" in stopped["outcome"]["said"]
    assert len([step for step in lab.steps if step.phase == "best"]) == tried
    number = 0
    document = lab.run(world, asked)
    assert document["best"]["config"] == {"itl_ms": 15}
    assert document["confirmation"]["verdict"] == "better"


def test_what_is_not_confirmed_is_handed_over_with_that_word(lab: StudyLab) -> None:
    asked = lab.study(search="fast", trials=1, users="1,2")
    with pytest.raises(InterruptError):
        lab.run(interrupted(7), asked)

    document = lab.document
    said = "these settings are not confirmed; what the trials showed of them may be luck"
    assert document["best"]["config"] == {"fast": True}
    assert document["confirmation"]["verdict"] == "not confirmed"
    assert "unconfirmed" in codes(document)
    assert f"**Mind:** {said}" in lab.bundled()
    told: list[str] = []
    files = deploy.write(
        lab.folder.parent / "b",
        stack_of(asked),
        document["best"]["config"],
        study=document,
        notify=told.append,
    )
    assert "README.md" in files
    assert any(line.startswith(f"! {said}") for line in told)
    assert pages.of_study(document, {}).verdict.sentence.startswith("Not confirmed: 1 whole pair")

    document = lab.run(fast, asked)
    assert said not in lab.bundled()
    told.clear()
    deploy.write(
        lab.folder.parent / "b", stack_of(asked), {"fast": True}, study=document, notify=told.append
    )
    assert not any("confirmed" in line for line in told)


def test_a_study_that_learns_nothing_from_another_says_so(lab: StudyLab) -> None:
    lab.run(fast)
    first, lab.folder = lab.folder, lab.folder.with_name("second")

    lab.run(fast, lab.study(learn_from=str(first)))

    said = f"Nothing to try first is learnt from {first}: "
    assert any(line.startswith(said) for line in lab.told)
