"""Checks of lanes that fail, and what lanes and proof make of another place."""

from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import StorageError
from llmdyno.serve.stack import Stack
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.pending import Asking
from study_lab import LaneChild, LaneLab, Start, fast, flat


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneLab:
    return LaneLab(tmp_path / "s", monkeypatch)


def test_a_check_whose_process_is_lost_has_failed(lab: LaneLab) -> None:
    def breaking(start: Start) -> Any:
        if start.device == "cores 4-7" and start.phase != "reference":
            return "lost" if start.phase == "check" else "died"
        return flat(start)

    lab.looks = lambda start: 9 if start.device == "cores 0-3" and start.phase == "trial" else 1
    document = lab.run(breaking, lab.study(trials=6))

    (left,) = document["lanes"]["left_out"]
    assert left["device"] == "cores 4-7"
    assert "was lost: signal 9" in left["why"]
    assert len(lab.in_lanes("check")) == 1
    assert {} not in [step.config for step in Ledger(lab.folder).of("trial")]


def test_a_check_that_runs_is_no_trial(lab: LaneLab, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"itl_ms": number} for number in range(10, 14)]
    asked: list[Any] = []
    ask = Asking.ask

    def asking(self: Asking, tried: Any, out: Any, known: Any) -> Any:
        if any(start.phase == "check" for start in lab.starts[-1:]):
            asked.append(([one.config for one in tried], out))
        return ask(self, tried, out, known)

    def refusing(start: Start) -> Any:
        return "died" if start.config.get("itl_ms") in {11, 12, 13} else flat(start)

    # The check runs on while the other lane is free for something new.
    ends = {"trial": 7, "check": 9}
    monkeypatch.setattr(Asking, "ask", asking)
    lab.looks = lambda s: ends.get(s.phase, 1) if s.config in ({}, {"itl_ms": 10}) else 1
    document = lab.run(refusing, lab.study(candidates=given, trials=7))

    assert asked
    for tried, out in asked:
        assert {"itl_ms": 10} in tried  # trial 1 has ended; the check is check 1
        assert {} not in out
    assert sorted(trial["id"] for trial in document["trials"]) == [*range(1, 8)]


@pytest.mark.parametrize("alone", ["works", "fails"])
def test_the_last_lane_is_not_left_out_but_the_machine_is_checked(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch, alone: str
) -> None:
    monkeypatch.setattr(Stack, "gpus", lambda _, config: 2 if config.get("itl_ms") else 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    asked = lab.study(candidates=[{"itl_ms": number} for number in range(10, 13)])

    def breaking(start: Start) -> Any:
        fails = start.phase == "check" and (start.device or alone == "fails")
        return "died" if fails or start.config.get("itl_ms") else flat(start)

    if alone == "works":
        document = lab.run(breaking, asked)
        assert document["lanes"]["devices"] == ["GPU 0"]
    else:
        assert "the machine is at fault" in str(lab.fails(breaking, asked))
    assert [one.device for one in lab.starts if one.phase == "check"][:3] == ["GPU 1", "GPU 0", ""]
    assert [one.devices for one in Ledger(lab.folder).lanes_left_out] == [("GPU 1",)]
    assert lab.running == []


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("usual", [1, 2])
def test_a_part_unlike_a_lane_is_checked_in_the_lanes_that_have_it(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch, usual: int, *, breaks: bool
) -> None:
    takes = 3 - usual  # each trial; the baseline takes the other number
    monkeypatch.setattr(Stack, "gpus", lambda _, config: takes if config else usual)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    given = [{"itl_ms": number} for number in range(10, 18)]

    def failing(start: Start) -> Any:
        of_first = start.device in {"GPU 0", "GPU 0,1"}
        fails = of_first and (start.phase == "trial" or (start.phase == "check" and breaks))
        return "died" if fails else flat(start)

    lab.looks = lambda start: 1 if start.device in {"GPU 0", "GPU 0,1"} else 5
    document = lab.run(failing, lab.study(candidates=given, trials=8))

    checks = {start.device for start in lab.in_lanes("check")}
    assert checks == ({"GPU 0", "GPU 1"} if usual == 1 else {"GPU 0,1"})
    left = [one["device"] for one in document["lanes"]["left_out"]]
    assert left == ([("GPU 0" if usual == 1 else "GPU 0,1")] if breaks else [])
    failed = [trial for trial in document["trials"] if trial["state"] == "failed"]
    assert bool(failed) is not breaks  # what the lane let fail came back
    assert len(document["trials"]) == 8


def test_what_runs_alone_in_another_place_is_not_compared_with_the_baseline_before(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lab.study(candidates=[{"fast": True}], search="fast", trials=1, slo="ttft:p99<30ms")

    def stopped(start: Start) -> Any:
        if start.phase == "best":
            raise KeyboardInterrupt
        return fast(start)

    with pytest.raises(KeyboardInterrupt):
        lab.run(stopped, asked)
    monkeypatch.setenv("FAULTY_VERSION", "2.0")

    def slower(start: Start) -> Any:  # all of it, by more than fast=true gains
        gap_ms, first_ms = fast(start)
        return 3 * gap_ms, 3 * first_ms

    lab.run(slower, asked, elsewhere=True)

    assert "confirm" in {step.phase for step in lab.steps}
    assert not any("once it runs alone" in line for line in lab.told)


@pytest.mark.parametrize("phase", ["reference", "trial"])
def test_an_engine_that_is_replaced_while_lanes_run_stops_the_study(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setenv("FAULTY_VERSION", "1.0")

    def upgraded(start: Start) -> Any:
        if start.phase == phase:
            monkeypatch.setenv("FAULTY_VERSION", "2.0")
        return flat(start)

    error = lab.fails(upgraded, lab.study())

    assert "the engine's version: 1.0 before, 2.0 after: it was replaced" in str(error)
    assert len(lab.in_lanes(phase)) == 1
    assert lab.running == []


def test_a_lane_that_cannot_be_stopped_keeps_no_other_running(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = LaneChild.stop
    stopped: list[LaneChild] = []

    def stopping(child: LaneChild) -> None:
        stop(child)
        stopped.append(child)
        if len(stopped) == 3:  # the first of the two trials, after two baselines
            raise StorageError("its log cannot be written.")

    def looks(start: Start) -> int:
        if start.phase == "trial" and len(lab.in_lanes()) == 2:
            lab.looks = lambda _: 1  # one Ctrl-C
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(LaneChild, "stop", stopping)
    lab.looks = looks
    with pytest.raises((KeyboardInterrupt, StorageError)):
        lab.run(flat, lab.study())

    assert lab.running == []
    assert len(stopped) == 4


def test_a_check_that_a_stop_has_cut_off_is_made_first_when_the_study_goes_on(
    lab: LaneLab,
) -> None:
    """A kill between the failures of a lane and its check had lost the check."""

    def breaking(start: Start) -> Any:
        broken = start.device == "cores 4-7" and start.phase != "reference"
        return "died" if broken else flat(start)

    def looks(start: Start) -> int:
        if start.phase == "check":
            raise KeyboardInterrupt
        return 9 if start.device == "cores 0-3" and start.phase == "trial" else 1

    lab.looks = looks
    with pytest.raises(KeyboardInterrupt):
        lab.run(breaking, lab.study(trials=6))
    assert "check" not in {step.phase for step in lab.steps}
    lab.looks = lambda _: 1

    document = lab.run(breaking, lab.study(trials=6))

    assert (lab.starts[0].phase, lab.starts[0].device) == ("check", "cores 4-7")
    assert [one["device"] for one in document["lanes"]["left_out"]] == ["cores 4-7"]
    assert "failed" not in {trial["state"] for trial in document["trials"]}


def test_a_check_whose_process_was_stopped_is_made_again(lab: LaneLab) -> None:
    """It fails as it was stopped: its lane works, and is not to be left out for it."""

    def first_check(start: Start) -> bool:
        return start.phase == "check" and len(lab.in_lanes("check")) == 1

    def breaking(start: Start) -> Any:
        if start.device == "cores 4-7" and start.phase == "trial":
            return "died"
        return "hung" if first_check(start) else flat(start)

    lab.stand(first_check)
    lab.looks = lambda start: 9 if start.device == "cores 0-3" and start.phase == "trial" else 1
    document = lab.run(breaking, lab.study(trials=6))

    assert document["lanes"]["left_out"] == []
    assert {start.device for start in lab.in_lanes("check")[:2]} == {"cores 4-7"}
    checks = [step for step in lab.steps if step.phase == "check"]
    assert "failed" not in {step.state for step in checks}
    assert checks[0].dropped_s > 0
