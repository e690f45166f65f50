"""Several trials at once: their lanes, what is proposed meanwhile, what goes wrong, going on."""

from pathlib import Path
from typing import Any

import pytest

from llmdyno import store
from llmdyno.errors import ServerError, UsageError
from llmdyno.report import setup
from llmdyno.serve.stack import Stack
from llmdyno.tune.combined import Combined
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.tuner import Tuner
from studies import unheard
from study_lab import LaneLab, Start, fast, flat

LANES = {"cores 0-3", "cores 4-7"}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneLab:
    return LaneLab(tmp_path / "s", monkeypatch)


def configs(lab: LaneLab) -> list[Any]:
    return [step.config for step in Ledger(lab.folder).of("trial")]


def test_trials_run_beside_each_other_and_what_decides_runs_alone(lab: LaneLab) -> None:
    document = lab.run(fast, lab.study())

    trials, proof = document["trials"], [s for s in lab.steps if s.phase in {"best", "confirm"}]
    assert {trial["device"] for trial in trials} == LANES
    assert all(start.beside <= 1 for start in lab.starts)
    assert {trial["beside"] for trial in trials} == {1}
    assert [(step.device, step.beside) for step in proof] == [("", 0)] * len(proof)
    assert document["confirmation"]["verdict"] == "better"
    assert document["best"]["config"]["fast"] is True
    assert document["outcome"]["tried"] == 6
    assert document["lanes"]["devices"] == sorted(LANES)
    assert document["lanes"]["alone"] == pytest.approx(document["lanes"]["value"], rel=0.5)
    assert "2 trials at once (cores 0-3; cores 4-7)" in setup.what(document, ())
    assert "parallel-trials" in [doubt["code"] for doubt in document["doubts"]]


def test_what_is_out_is_never_proposed_again(lab: LaneLab) -> None:
    lab.looks = lambda start: 1 + start.number % 3  # they end in another order than they began

    lab.run(flat, lab.study(trials=12, parallel=4))

    tried = [sorted(config.items()) for config in configs(lab)]
    assert len(tried) == 12
    assert all(tried.count(config) == 1 for config in tried)
    assert max(start.beside for start in lab.in_lanes()) == 3


def test_candidates_come_first_each_under_its_number(lab: LaneLab) -> None:
    given = [{"itl_ms": 11}, {"itl_ms": 12}, {"itl_ms": 13}]

    lab.run(flat, lab.study(candidates=given, trials=4))

    assert [start.config for start in lab.in_lanes()][:3] == given
    assert [Ledger(lab.folder).find("trial", n).config for n in range(3)] == given  # type: ignore[union-attr]


@pytest.mark.parametrize("torn", [b"", b'{"type":"out","phase":"tri'])
def test_what_was_out_at_a_stop_is_begun_again(lab: LaneLab, torn: bytes) -> None:
    def stopped(start: Start) -> int:
        if start.phase == "trial" and len(lab.in_lanes()) == 4:
            lab.looks = lambda _: 1  # one Ctrl-C
            raise KeyboardInterrupt
        return 1

    lab.looks = stopped
    with pytest.raises(KeyboardInterrupt):
        lab.run(flat, lab.study())
    assert lab.running == []  # what ran was stopped
    ledger = Ledger(lab.folder)
    out = [(one.number, one.config) for one in ledger.out]
    done = len(ledger.of("trial"))
    assert len(out) == 2
    with (lab.folder / store.LEDGER).open("ab") as file:
        file.write(torn)  # as a kill in the middle of a line leaves it

    lab.looks = lambda _: 1
    document = lab.run(flat, lab.study())

    assert [start.config for start in lab.in_lanes()][:2] == [config for _, config in out]
    assert lab.in_lanes("reference") == []  # the lanes are known
    assert len(lab.in_lanes()) == 6 - done
    found = {step.number: step.config for step in Ledger(lab.folder).of("trial")}
    assert [found[number] for number, _ in out] == [config for _, config in out]
    assert sorted(found) == list(range(6))
    assert Ledger(lab.folder).out == []
    assert document["outcome"]["state"] == "nothing better"


def test_what_others_may_have_harmed_is_measured_once_more_alone(lab: LaneLab) -> None:
    def crowded(start: Start) -> Any:
        return "out-of-memory" if start.beside and start.phase == "trial" else flat(start)

    document = lab.run(crowded, lab.study(trials=4))

    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    again = [step for step in lab.steps if step.state == "failed"]
    assert again
    for step in again:
        tries = Ledger(lab.folder).tries(("trial", 0, step.number))
        assert [(one.state, one.beside) for one in tries] == [("failed", 1), ("measured", 0)]
    assert any("measured once more, with nothing beside it" in line for line in lab.told)


def test_a_config_that_is_refused_is_not_measured_once_more(lab: LaneLab) -> None:
    lab.run(lambda s: "bad-config" if s.config.get("idle") == "b" else flat(s), lab.study())

    failed = [step for step in lab.steps if step.state == "failed"]
    assert failed
    assert all(len(Ledger(lab.folder).tries(("trial", 0, s.number))) == 1 for s in failed)


@pytest.mark.parametrize(("losses", "state"), [(1, "measured"), (2, "failed")])
def test_the_trial_of_a_dead_process_comes_back_once(lab: LaneLab, losses: int, state: str) -> None:
    lost: list[Any] = []

    def dying(start: Start) -> Any:
        if (
            start.phase == "trial"
            and len(lost) < losses
            and start.config in (lost or [start.config])
        ):
            lost.append(start.config)
            return "lost"
        return flat(start)

    document = lab.run(dying, lab.study(trials=3))

    (trial,) = [trial for trial in document["trials"] if trial["config"] == lost[0]]
    assert (trial["state"], trial["beside"]) == (state, 0)
    assert len(document["trials"]) == 3
    if state == "failed":
        assert "was lost: signal 9" in trial["failure"]["why"]


def test_a_broken_machine_stops_it_and_what_failed_is_measured_once_it_is_mended(
    lab: LaneLab,
) -> None:
    def broken(start: Start) -> Any:
        tried = len([one for one in lab.starts if one.phase == "trial"])
        return "missing-library" if tried > 2 else flat(start)

    error = lab.fails(broken, lab.study())

    assert isinstance(error, ServerError)
    assert "the machine is at fault" in str(error)
    assert lab.running == []
    document = lab.document
    assert document["stopped"]["class"] == "missing-library"
    before = [step.number for step in lab.steps if step.phase == "trial"]
    pending = [out.number for out in Ledger(lab.folder).out]
    assert before
    assert pending
    document = lab.run(flat, lab.study())
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert sorted(trial["id"] for trial in document["trials"]) == [1, 2, 3, 4, 5, 6]
    assert len(lab.in_lanes()) == 6 - len(before)


def test_a_lane_that_breaks_is_left_out_and_what_failed_there_comes_back(lab: LaneLab) -> None:
    def breaking(start: Start) -> Any:
        broken = start.device == "cores 4-7" and start.phase in {"trial", "check"}
        return "died" if broken and len(lab.in_lanes()) > 2 else flat(start)

    lab.looks = lambda start: 1 if start.device == "cores 4-7" else 4  # it fails fast

    document = lab.run(breaking, lab.study(trials=12))

    (left,) = document["lanes"]["left_out"]
    assert left["device"] == "cores 4-7"
    assert left["why"].startswith("its baseline has worked, and fails now (died)")
    assert document["lanes"]["devices"] == ["cores 0-3"]
    assert {trial["state"] for trial in document["trials"]} == {"measured"}
    assert sorted(trial["id"] for trial in document["trials"]) == [*range(1, 13)]
    failed = [s.config for s in lab.in_lanes() if breaking(s) == "died"]
    assert len(failed) >= 3
    assert lab.in_lanes("check")
    assert not [start for start in lab.starts if start.phase == "check" and not start.device]
    # It stays out when the study goes on.
    lab.run(flat, lab.study(trials=13))
    assert {start.device for start in lab.in_lanes()} == {"cores 0-3"}


def test_a_lane_that_fails_by_its_configs_stays(lab: LaneLab) -> None:
    given = [{"itl_ms": number} for number in range(10, 15)]

    def refusing(start: Start) -> Any:
        return "died" if start.config.get("itl_ms") in {11, 12, 13} else flat(start)

    lab.looks = lambda start: 9 if start.config.get("itl_ms") == 10 else 1
    document = lab.run(refusing, lab.study(candidates=given, trials=5))

    assert document["lanes"]["left_out"] == []
    assert [start.device for start in lab.in_lanes("check")] == ["cores 4-7"]
    assert [trial["id"] for trial in document["trials"] if trial["state"] == "failed"] == [2, 3, 4]


def test_one_that_takes_two_lanes_waits_for_both_and_one_that_never_fits_is_not_started(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes = {11: 2, 12: 3}
    monkeypatch.setattr(Stack, "gpus", lambda _, config: takes.get(config.get("itl_ms"), 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    given = [{"itl_ms": 10}, {"itl_ms": 11}, {"itl_ms": 12}, {"itl_ms": 13}]

    document = lab.run(flat, lab.study(candidates=given, trials=4))

    by_id = {trial["id"]: trial for trial in document["trials"]}
    assert (by_id[1]["device"], by_id[2]["device"]) == ("GPU 0", "GPU 0,1")
    assert by_id[2]["beside"] == 0
    assert by_id[3]["state"] == "predicted-infeasible"
    assert by_id[3]["failure"]["why"] == "it takes 3 GPUs, and the lanes have 2 GPUs."
    assert by_id[4]["state"] == "measured"
    for start in lab.in_lanes("reference"):
        assert start.device in {"GPU 0", "GPU 1"}


def test_what_was_good_by_its_neighbours_only_is_passed_over(lab: LaneLab) -> None:
    def flattering(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = fast(start)
        if start.config.get("idle") == "b":  # best of all in a lane, worst of all alone
            return (gap_ms / 3, first_ms) if start.device else (gap_ms * 3, first_ms)
        return gap_ms, first_ms

    asked = lab.study(candidates=[{"idle": "b"}, {"fast": True}], search="fast,idle", trials=2)
    document = lab.run(flattering, asked)

    assert document["best"]["config"] == {"fast": True}
    assert document["confirmation"]["verdict"] == "better"
    (rejected,) = document["rejected"]
    assert rejected["config"] == {"idle": "b"}
    assert "does worse than the baseline once it runs alone" in rejected["why"]
    confirmed = [start.config for start in lab.starts if start.phase == "confirm"]
    assert {"idle": "b"} not in confirmed


def test_of_many_that_are_good_by_neighbours_three_are_tried_alone(lab: LaneLab) -> None:
    def flattering(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = fast(start)
        alone = bool(start.config) and not start.device
        return (40.0 if alone else gap_ms), first_ms

    document = lab.run(flattering, lab.study())

    assert document["best"]["config"] == {}
    assert document["outcome"]["state"] == "rejected"
    assert len(document["rejected"]) == 3
    assert sum(start.phase == "confirm" for start in lab.starts) == 0


def test_a_budget_ends_what_is_begun_and_not_what_runs(lab: LaneLab) -> None:
    # Each trial takes a second by its own account, and the lanes no time by the clock.
    document = lab.run(flat, lab.study(budget="1500ms", trials=40))

    assert document["outcome"]["ended_by"] in {"budget", None}
    ledger = Ledger(lab.folder)
    lanes = [step for step in ledger.steps if step.device]
    assert all(step.wall_s is not None and step.wall_s < 1.0 for step in lanes)
    assert ledger.spent_s == pytest.approx(sum(step.charged_s for step in ledger.steps))


def test_a_person_ends_the_trials_and_those_that_run_come_to_their_end(lab: LaneLab) -> None:
    narrator = Narrator(
        notify=lab.told.append,
        notify_waiting=lambda _: None,
        display=lambda *_: lambda *_: None,
        enough=lambda: len(lab.in_lanes()) >= 3,
    )

    lab.world = flat
    document = Tuner(lab.study(trials=20), lab.folder, narrator).run()

    assert document["outcome"]["ended_by"] == "hand"
    assert len(document["trials"]) == 3
    assert {trial["state"] for trial in document["trials"]} == {"measured"}


def test_a_space_that_is_used_up_ends_it(lab: LaneLab) -> None:
    document = lab.run(flat, lab.study(search="idle"))

    assert document["outcome"]["ended_by"] == "space"
    assert len(document["trials"]) == 3


def test_it_goes_on_with_more_trials_in_the_same_lanes(lab: LaneLab) -> None:
    lab.run(flat, lab.study(trials=3))

    document = lab.run(flat, lab.study(trials=5))

    assert len(document["trials"]) == 5
    assert len(lab.in_lanes()) == 2
    assert {start.device for start in lab.in_lanes()} == LANES


def test_several_engines_or_none_at_once_are_refused_in_a_sentence(lab: LaneLab) -> None:
    with pytest.raises(UsageError, match="--parallel 0: must be at least 1"):
        lab.study(parallel=0)
    several = lab.study(engine="timed.engine,faulty.engine")
    with pytest.raises(UsageError, match="has one trial at a time on one machine; leave it out"):
        Combined(several, lab.folder, unheard())
    with pytest.raises(UsageError, match="--parallel 9: takes 9 CPU cores, 1 for each trial"):
        lab.run(fast, lab.study(parallel=9))
    assert not lab.folder.exists()


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_a_trial_whose_process_was_stopped_is_measured_alone_twice_and_then_counts(
    lab: LaneLab, stops: int
) -> None:
    victims: list[Any] = []

    def stands(start: Start) -> bool:
        if start.phase != "trial" or len(victims) == stops:
            return False
        found = start.config in (victims or [start.config])
        if found:
            victims.append(start.config)
        return found

    lab.stand(stands)
    document = lab.run(flat, lab.study())

    starts = [start for start in lab.in_lanes() if start.config == victims[0]]
    assert len(starts) == 1 + min(stops, 2)
    assert {start.beside for start in starts[1:]} == {0}
    assert len(lab.in_lanes()) == 6 + min(stops, 2)
    (step,) = [step for step in lab.steps if step.phase == "trial" and step.dropped_s]
    assert step.config == victims[0]
    assert step.stood_s == (15.0 if stops == 3 else 0.0)
    doubtful = [
        trial["config"] for trial in document["trials"] if "dyno-stopped" in trial["doubts"]
    ]
    assert doubtful == ([victims[0]] if stops == 3 else [])
    said = [one["text"] for one in document["doubts"] if one["code"] == "doubtful-trials"]
    assert bool(said) == (stops == 3)
    assert any("too; it counts, with a doubt" in line for line in lab.told) == (stops == 3)
