"""A machine that fails while trials run and then works again by itself: they are measured again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno import store
from llmdyno.errors import InterruptError
from llmdyno.tune.combined import Combined
from llmdyno.tune.ledger import Ledger
from studies import unheard
from study_lab import LaneLab, Start, StudyLab, World, fast, flat

GIVEN: list[dict[str, Any]] = [{"itl_ms": number} for number in range(11, 16)]
ASKED: dict[str, Any] = {"search": "itl_ms", "trials": 5, "candidates": GIVEN}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    monkeypatch.setattr("llmdyno.results.stats.RESAMPLES", 50)
    return StudyLab(tmp_path / "s", monkeypatch)


@pytest.fixture
def lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneLab:
    monkeypatch.setattr("llmdyno.results.stats.RESAMPLES", 50)
    return LaneLab(tmp_path / "s", monkeypatch)


def broken(*numbers: int) -> World:
    """Return a world whose machine fails in the starts of these numbers."""
    return lambda start: "died" if start.number in numbers else fast(start)


def states(document: dict[str, Any]) -> list[str]:
    return [trial["state"] for trial in document["trials"]]


def test_trials_that_failed_with_the_machine_are_measured_again(lab: StudyLab) -> None:
    """Starts 2 to 5 fail: trials 1 to 3, and the baseline that is to tell why."""
    document = lab.run(broken(2, 3, 4, 5), lab.study(**ASKED))

    assert [trial["config"] for trial in document["trials"]] == GIVEN
    assert states(document) == ["measured"] * 5
    phases = [start.phase for start in lab.starts[:11]]
    assert phases == ["baseline", *["trial"] * 3, "check", "check", *["trial"] * 5]
    assert any("measured again: trial 1, trial 2, trial 3" in line for line in lab.told)
    assert [step.number for step in Ledger(lab.folder).voided] == [0, 1, 2]
    assert document["best"]["config"] == GIVEN[0]


def test_the_search_does_not_learn_that_they_fail(lab: StudyLab) -> None:
    learnt: list[Any] = []

    class Searching:
        def __init__(self, *_: Any, **__: Any) -> None:
            learnt.append([])

        def start(self, *_: Any) -> None:
            pass

        def give(self, _: Any) -> None:
            pass

        def ask(self, known: Any) -> dict[str, int]:
            return {"itl_ms": 10 + len(known)}

        def tell(self, value: float | None, *_: Any) -> None:
            learnt[-1].append(value)

    asked = lab.study(search="itl_ms", trials=5)
    document = lab.run(broken(2, 3, 4, 5), asked, make_search=Searching)

    assert states(document) == ["measured"] * 5
    assert learnt[-1] == [trial["value"] for trial in document["trials"]]


def test_trials_that_fail_by_themselves_are_not_measured_again(lab: StudyLab) -> None:
    def refusing(start: Start) -> Any:
        return "died" if start.config in GIVEN[:3] else fast(start)

    document = lab.run(refusing, lab.study(**ASKED))

    assert states(document) == ["failed"] * 3 + ["measured"] * 2
    assert [start.config for start in lab.starts].count(GIVEN[0]) == 1


def test_a_baseline_that_fails_now_and_then_does_not_keep_a_study_from_its_end(
    lab: StudyLab,
) -> None:
    """All configs fail by themselves, and so does every first start of a check."""
    checks: list[int] = []

    def world(start: Start) -> Any:
        if start.phase == "check":
            checks.append(start.number)
            return "died" if len(checks) % 2 else fast(start)
        return "died" if start.config else fast(start)

    document = lab.run(world, lab.study(**ASKED))

    assert states(document) == ["failed"] * 5
    for config in GIVEN:
        assert [start.config for start in lab.starts].count(config) <= 3


@pytest.mark.parametrize("at", range(3, 11))
def test_a_stop_anywhere_loses_no_such_trial(lab: StudyLab, at: int) -> None:
    """The machine fails in starts 2 to 5 of the whole study, a person stops start `at`."""
    had: list[int] = []
    stopped: list[int] = []

    def world(start: Start) -> Any:
        if len(had) + 1 == at and not stopped:
            stopped.append(at)
            raise InterruptError("interrupted")
        had.append(start.number)
        return "died" if 2 <= len(had) <= 5 else fast(start)

    with pytest.raises(InterruptError):
        lab.run(world, lab.study(**ASKED))
    document = lab.run(world, lab.study(**ASKED))

    assert states(document) == ["measured"] * 5
    assert document["confirmation"]["verdict"] == "better"


def test_trials_at_the_end_that_failed_with_the_machine_are_measured_again(lab: StudyLab) -> None:
    """Too few have failed to be suspected before nothing is left to confirm."""

    def world(start: Start) -> Any:
        return "died" if start.number in {5, 6, 7} else flat(start)

    document = lab.run(world, lab.study(**ASKED))

    assert states(document) == ["measured"] * 5
    assert [start.phase for start in lab.starts[6:]] == ["check", "check", "trial", "trial"]
    assert document["outcome"]["state"] == "nothing better"
    content = (lab.folder / store.LEDGER).read_bytes()
    assert lab.run(world, lab.study(**ASKED))["outcome"] == document["outcome"]
    assert (lab.folder / store.LEDGER).read_bytes() == content


def mends(lab: LaneLab) -> World:
    """Return a world whose machine lets four trials and the first check fail."""

    def world(start: Start) -> Any:
        tried = [one for one in lab.starts if one.phase in {"trial", "check"}]
        checks = [one for one in tried if one.phase == "check"]
        return "died" if start.phase != "reference" and tried and len(checks) < 2 else flat(start)

    return world


def test_trials_in_lanes_are_measured_again(lanes: LaneLab) -> None:
    document = lanes.run(mends(lanes), lanes.study(**ASKED))

    assert states(document) == ["measured"] * 5
    assert sorted(trial["id"] for trial in document["trials"]) == [1, 2, 3, 4, 5]
    failed = [step for step in Ledger(lanes.folder).voided if step.phase == "trial"]
    assert len(failed) >= 3
    again = [start.config for start in lanes.in_lanes()]
    assert all(again.count(step.config) == 2 for step in failed)


def test_trials_in_lanes_are_measured_again_after_a_stop(lanes: LaneLab) -> None:
    whole = mends(lanes)
    stopped: list[int] = []

    def world(start: Start) -> Any:
        came = whole(start)
        if start.phase == "check" and came != "died" and not stopped:
            stopped.append(start.number)
            raise InterruptError("interrupted")
        return came

    with pytest.raises(InterruptError):
        lanes.run(world, lanes.study(**ASKED))
    document = lanes.run(flat, lanes.study(**ASKED))

    assert stopped
    assert states(document) == ["measured"] * 5
    assert not any(start.phase == "check" for start in lanes.starts)


# Killed after any line of the ledger.


class Mends:
    """A machine in which trials from a number on fail, and the first check; then it works.

    Args:
        first: the number of the first trial that fails, of all that were started.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self.phases: list[str] = []  # of all that was started, before a stop and after it

    def __call__(self, start: Start) -> Any:
        checks = self.phases.count("check")
        self.phases.append(start.phase)
        trials = self.phases.count("trial")
        fails = start.phase == "check" or (start.phase == "trial" and trials >= self._first)
        return "died" if fails and not checks else (float(start.config.get("itl_ms", 20)), 20.0)


class Kill:
    """Kills a study once its ledgers have got so many lines; 0: never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines = self.at = 0
        append = Ledger.append

        def killing(ledger: Ledger, entry: Any) -> None:
            append(ledger, entry)
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Ledger, "append", killing)


def run_combined(lab: StudyLab, world: World, given: list[dict[str, Any]]) -> dict[str, Any]:
    lab.world, lab.starts = world, []
    asked = lab.study(engine="timed.engine,faulty.engine", search="itl_ms", trials=6)
    asked = msgspec.structs.replace(asked, candidates=tuple(given))
    return Combined(asked, lab.folder, unheard()).run()


def word(document: dict[str, Any]) -> Any:
    trials = [(one.get("engine"), one["config"], one["state"]) for one in document["trials"]]
    best = document["best"]["config"]
    return document["outcome"], document["stopped"], best, sorted(trials, key=str)


@pytest.mark.parametrize("how", ["alone", "in lanes", "over engines"])
@pytest.mark.parametrize("last", [True, False])
def test_a_study_that_is_killed_after_any_line_ends_with_the_same_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, last: bool
) -> None:
    """Its last three trials fail with the machine, or earlier ones do."""
    monkeypatch.setattr("llmdyno.results.stats.RESAMPLES", 20)
    made = LaneLab if how == "in lanes" else StudyLab
    kill = Kill(monkeypatch)

    def run(lab: StudyLab, world: World) -> Any:
        if how == "over engines":
            return word(run_combined(lab, world, [{"itl_ms": at} for at in (11, 12, 14)]))
        return word(lab.run(world, lab.study(**ASKED)))

    first = (4 if how == "over engines" else 3) if last else 1
    whole = run(made(tmp_path / "whole" / "s", monkeypatch), Mends(first))
    assert {state for _, _, state in whole[-1]} == {"measured"}
    for at in range(1, kill.lines + 1):
        lab, world = made(tmp_path / str(at) / "s", monkeypatch), Mends(first)
        kill.lines, kill.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            run(lab, world)
        kill.at = 0

        assert run(lab, world) == whole, f"killed after line {at}: {world.phases}"


def test_a_trial_that_found_no_gpu_is_measured_again(lab: StudyLab) -> None:
    """One is enough, and the baseline need not fail: no config takes a GPU away."""

    def world(start: Start) -> Any:
        return "gpu-unavailable" if start.number == 3 else fast(start)

    document = lab.run(world, lab.study(**ASKED))

    assert [trial["config"] for trial in document["trials"]] == GIVEN
    assert states(document) == ["measured"] * 5
    phases = [start.phase for start in lab.starts[:8]]
    assert phases == ["baseline", *["trial"] * 2, "check", *["trial"] * 4]
    assert any("for want of one is measured again: trial 2." in line for line in lab.told)


def test_a_config_that_never_finds_a_gpu_has_failed_in_the_end(lab: StudyLab) -> None:
    def world(start: Start) -> Any:
        return "gpu-unavailable" if start.config == GIVEN[1] else fast(start)

    document = lab.run(world, lab.study(**ASKED))

    assert states(document) == ["measured", "failed", *["measured"] * 3]
    assert [start.config for start in lab.starts].count(GIVEN[1]) == 3


def test_a_gpu_that_is_gone_for_good_stops_the_study(lab: StudyLab) -> None:
    """The trials were 4 of 5 of the study's, and "no config beats the baseline" was its word."""
    error = lab.fails(
        lambda start: "gpu-unavailable" if start.number > 2 else fast(start), lab.study(**ASKED)
    )

    assert "the machine is at fault" in str(error)
    assert lab.document["confirmation"]["verdict"] == "not confirmed"
    document = lab.run(fast, lab.study(**ASKED))
    assert states(document) == ["measured"] * 5


def test_lanes_that_found_no_gpu_measure_again(lanes: LaneLab) -> None:
    """Both lose theirs for two trials each; the baseline works when it is asked."""

    def world(start: Start) -> Any:
        return "gpu-unavailable" if start.phase == "trial" and start.number < 8 else fast(start)

    document = lanes.run(world, lanes.study(**ASKED, parallel=2))

    assert states(document) == ["measured"] * 5


def lost_once(*configs: dict[str, Any]) -> World:
    """Return a world in which the first start of each of these configs finds no GPU."""
    left: list[Mapping[str, Any]] = list(configs)

    def world(start: Start) -> Any:
        if start.phase == "trial" and start.config in left:
            left.remove(start.config)
            return "gpu-unavailable"
        return fast(start)

    return world


@pytest.mark.parametrize("lost", [GIVEN[1:2], GIVEN[2:4], GIVEN[4:], GIVEN[3:]])
def test_a_lane_that_lost_its_gpu_shows_that_it_works_and_measures_again(
    lanes: LaneLab, lost: list[dict[str, Any]]
) -> None:
    document = lanes.run(lost_once(*lost), lanes.study(**ASKED, parallel=2))

    assert states(document) == ["measured"] * 5
    by_id = {trial["id"]: trial["config"] for trial in document["trials"]}
    assert [by_id[number] for number in sorted(by_id)] == GIVEN
    failed = {step.device for step in Ledger(lanes.folder).voided}
    assert {start.device for start in lanes.in_lanes("check")} == failed != set()
    assert len(lanes.in_lanes()) == 5 + len(lost)
    assert document["lanes"]["left_out"] == []


def test_a_lane_whose_gpu_is_gone_for_good_is_left_out_at_once(lanes: LaneLab) -> None:
    def world(start: Start) -> Any:
        gone = start.device == "cores 4-7" and start.phase != "reference"
        return "gpu-unavailable" if gone else fast(start)

    document = lanes.run(world, lanes.study(**ASKED, parallel=2))

    assert states(document) == ["measured"] * 5
    assert [one["device"] for one in document["lanes"]["left_out"]] == ["cores 4-7"]
    assert [start.phase for start in lanes.starts if start.device == "cores 4-7"] == [
        "reference",
        "trial",
        "check",
    ]


def test_the_only_lane_that_is_left_measures_again_what_found_no_gpu(lanes: LaneLab) -> None:
    once = lost_once(GIVEN[4])

    def world(start: Start) -> Any:
        gone = start.device == "cores 4-7" and start.phase != "reference"
        return "gpu-unavailable" if gone else once(start)

    document = lanes.run(world, lanes.study(**ASKED, parallel=2))

    assert [one["device"] for one in document["lanes"]["left_out"]] == ["cores 4-7"]
    assert states(document) == ["measured"] * 5


def test_a_config_that_never_finds_a_gpu_in_a_lane_has_failed_in_the_end(lanes: LaneLab) -> None:
    def world(start: Start) -> Any:
        return "gpu-unavailable" if start.config == GIVEN[1] else fast(start)

    document = lanes.run(world, lanes.study(**ASKED, parallel=2))

    failed = [one["config"] for one in document["trials"] if one["state"] == "failed"]
    assert failed == GIVEN[1:2]
    assert [start.config for start in lanes.starts].count(GIVEN[1]) == 3
    assert document["lanes"]["left_out"] == []


@pytest.mark.parametrize("lost", [GIVEN[1:2], GIVEN[4:], GIVEN[3:]])
def test_a_stop_before_a_lanes_check_does_not_make_its_failure_count(
    lanes: LaneLab, lost: list[dict[str, Any]]
) -> None:
    world = lost_once(*lost)

    def stopped(start: Start) -> Any:
        if start.phase == "check":
            raise KeyboardInterrupt
        return world(start)

    with pytest.raises(KeyboardInterrupt):
        lanes.run(stopped, lanes.study(**ASKED, parallel=2))
    assert "failed" in {step.state for step in Ledger(lanes.folder).of("trial")}

    assert states(lanes.run(world, lanes.study(**ASKED, parallel=2))) == ["measured"] * 5
