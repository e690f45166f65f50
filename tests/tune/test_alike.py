"""Whether lanes are alike: the baseline in all of them at once, and what is left out."""

import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.errors import ServerError
from llmdyno.results.conclusions import remarks
from llmdyno.serve.stack import Stack
from llmdyno.tune.entries import Event
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import noise_so_far, spreads_before
from llmdyno.tune.race import _rivals
from llmdyno.tune.reference import reference_of
from study_lab import LaneLab, Start, World, flat


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneLab:
    return LaneLab(tmp_path / "s", monkeypatch)


def odd(devices: dict[str, Any]) -> World:
    """Return a world in which some lanes are so many times as slow, or fail."""

    def world(start: Start) -> Any:
        gap_ms, first_ms = flat(start)
        found = devices.get(start.device, 1.0)
        return found if isinstance(found, str) else (gap_ms * found, first_ms)

    return world


def test_the_baseline_runs_in_all_lanes_at_once_and_their_mean_is_the_reference(
    lab: LaneLab,
) -> None:
    document = lab.run(odd({"cores 4-7": 1.04}), lab.study(trials=2))

    starts = lab.in_lanes("reference")
    assert [start.beside for start in starts] == [0, 1]
    assert {str(start.config) for start in starts} == {"{}"}
    values = [one["value"] for one in document["lanes"]["baselines"]]
    assert values[0] / values[1] == pytest.approx(1.04, abs=0.02)
    assert document["lanes"]["left_out"] == []
    assert any("The lanes are alike" in line and "apart" in line for line in lab.told)


@pytest.mark.parametrize("what", [1.6, 0.5, "died"])
def test_a_lane_that_is_unlike_the_others_is_left_out_and_the_rest_measured_again(
    lab: LaneLab, what: Any
) -> None:
    asked = lab.study(parallel=4, trials=5)
    document = lab.run(odd({"cores 2-3": what}), asked)

    rest = ["cores 0-1", "cores 4-5", "cores 6-7"]
    (left,) = document["lanes"]["left_out"]
    assert left["device"] == "cores 2-3"
    assert ("failed (died)" if what == "died" else "more than equal runs lie apart") in left["why"]
    assert document["lanes"]["devices"] == rest
    assert [start.device for start in lab.in_lanes("reference")][8:] == rest
    assert {start.device for start in lab.in_lanes()} <= {*rest}
    assert max(start.beside for start in lab.in_lanes()) == 2
    # It stays so when the study goes on.
    lab.run(odd({"cores 2-3": what}), lab.study(parallel=4, trials=7))
    assert len(lab.in_lanes()) == 2
    assert {start.device for start in lab.in_lanes()} <= {*rest}


@pytest.mark.parametrize("what", [1.6, "died"])
def test_a_lane_that_is_odd_only_once_stays(lab: LaneLab, what: Any) -> None:
    def world(start: Start) -> Any:
        before = len(lab.in_lanes("reference"))
        return odd({"cores 4-7": what if before <= 2 else 1.0})(start)

    document = lab.run(world, lab.study(trials=2))

    assert document["lanes"]["devices"] == ["cores 0-3", "cores 4-7"]
    assert len(document["lanes"]["baselines"]) == 4
    assert any("Once more." in line for line in lab.told)


def test_lanes_that_are_odd_in_turn_are_noise(lab: LaneLab) -> None:
    def world(start: Start) -> Any:
        first = len(lab.in_lanes("reference")) <= 4
        return odd({"cores 0-1" if first else "cores 6-7": 1.6})(start)

    document = lab.run(world, lab.study(parallel=4, trials=2))

    assert len(document["lanes"]["devices"]) == 4


def test_of_two_that_differ_the_better_one_is_left(lab: LaneLab) -> None:
    document = lab.run(odd({"cores 0-3": 2.0}), lab.study(trials=3))

    assert document["lanes"]["devices"] == ["cores 4-7"]
    assert {trial["beside"] for trial in document["trials"]} == {0}
    assert any(line.startswith("  One lane is left: cores 4-7") for line in lab.told)
    assert "parallel-trials" not in [doubt["code"] for doubt in document["doubts"]]


def test_where_every_lane_fails_the_study_says_so(lab: LaneLab) -> None:
    error = lab.fails(odd({"cores 0-3": "died", "cores 4-7": "died"}), lab.study())

    assert isinstance(error, ServerError)
    assert "the baseline works alone and fails in every lane (cores 0-3: died)" in str(error)
    document = lab.run(flat, lab.study())  # mended: it is asked again
    assert document["lanes"]["devices"] == ["cores 0-3", "cores 4-7"]


def test_a_study_whose_lanes_were_all_left_out_says_so(lab: LaneLab) -> None:
    lab.run(flat, lab.study(trials=2))
    ledger = Ledger(lab.folder)
    for name in ("cores 0-3", "cores 4-7"):
        ledger.append(Event(kind="lane", why="its baseline fails.", devices=(name,)))

    error = lab.fails(flat, lab.study(trials=4))

    assert isinstance(error, ServerError)
    assert "every lane was left out, cores 4-7 last: its baseline fails. Mend" in str(error)


def test_what_a_lane_that_is_left_out_made_is_no_noise(lab: LaneLab) -> None:
    lab.run(odd({"cores 4-7": 3.0}), lab.study(trials=2))

    assert noise_so_far(Ledger(lab.folder)).variance < 0.06**2


def test_lanes_found_in_another_place_are_measured_anew(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(odd({"cores 4-7": 3.0}), lab.study(trials=2))
    monkeypatch.setenv("FAULTY_VERSION", "2.0")

    document = lab.run(flat, lab.study(trials=4), elsewhere=True)

    assert document["lanes"]["devices"] == ["cores 0-3", "cores 4-7"]
    assert document["lanes"]["left_out"] == []


def test_a_gpu_that_is_left_out_measures_nothing_alone_either(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stack, "gpus", lambda *_: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    shown: dict[str, str] = {}

    def world(start: Start) -> Any:
        shown[start.phase] = os.environ["CUDA_VISIBLE_DEVICES"]
        slow = 2.0 if start.device == "GPU 0" else 1.0
        return (20.0 * slow / (1.9 if start.config else 1.0), 20.0)

    document = lab.run(world, lab.study(search="fast", trials=1))

    assert document["lanes"]["devices"] == ["GPU 1", "GPU 2"]  # the third is a spare one
    assert (shown["best"], shown["confirm"]) == ("1,2", "1,2")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"


def test_search_race_proof_and_verdict_have_one_reference(lab: LaneLab) -> None:
    """A trial between the first lane's baseline and the mean of all does better."""
    slow = odd({"cores 4-7": 1.04})

    def world(start: Start) -> Any:
        if start.config:  # 3 % slower than the faster lane, 1 % faster than the mean
            return 20.0 * 1.01, 20.0
        return slow(start)

    document = lab.run(world, lab.study(trials=2))

    ledger = Ledger(lab.folder)
    first, second = (step.value for step in ledger.of("reference"))
    reference = reference_of(ledger)
    assert first is not None
    assert second is not None
    assert reference is not None
    assert reference.value == pytest.approx(math.sqrt(first * second))
    assert {rival.value for rival in _rivals(ledger)} >= {reference.value}
    tried = [trial["config"] for trial in document["trials"] if trial["value"] > reference.value]
    assert tried
    assert all(trial["value"] < first for trial in document["trials"])
    assert [start.config for start in lab.starts if start.phase == "best"] != []


def test_lanes_meet_an_slo_if_half_of_them_do(lab: LaneLab) -> None:
    asked = lab.study(parallel=4, trials=1, slo="ttft:p50<50ms")

    def world(start: Start) -> tuple[float, float]:
        late = start.device in {"cores 0-1", "cores 2-3", "cores 4-5"} and not start.config
        return 20.0, 60.0 if late else 20.0

    document = lab.run(world, asked)

    reference = reference_of(Ledger(lab.folder))
    assert reference is not None
    assert reference.slo_met is False  # lane 0, 1 and 2 miss it
    assert reference.device in {"cores 0-1", "cores 2-3", "cores 4-5"}
    assert document["slo_outcome"]["met_by_some"] is True
    lab.folder = lab.folder.with_name("t")
    lab.run(lambda s: (20.0, 60.0 if s.device == "cores 0-1" and not s.config else 20.0), asked)
    reference = reference_of(Ledger(lab.folder))
    assert reference is not None
    assert reference.slo_met is True  # lane 0 alone misses it
    assert reference.device != "cores 0-1"


def test_runs_of_two_lanes_or_of_two_places_are_no_noise_of_equal_runs(lab: LaneLab) -> None:
    lab.run(odd({"cores 4-7": 1.15}), lab.study(trials=1))
    ledger = Ledger(lab.folder)

    assert spreads_before(ledger) == []
    (lanes,) = spreads_before(ledger, across_lanes=True)
    first, second = (step.value or 0.0 for step in ledger.of("reference"))
    assert first > 1.1 * second
    assert lanes.variance == pytest.approx(math.log(first / second) ** 2 / 2)
    step = ledger.of("reference")[0]
    again = {"device": "", "beside": 0}
    ledger.append(msgspec.structs.replace(step, number=7, place=1, **again))
    ledger.append(msgspec.structs.replace(step, number=8, place=2, value=1.0, **again))
    assert spreads_before(ledger) == []
    ledger.append(msgspec.structs.replace(step, number=9, place=1, **again))
    assert [spread.freedom for spread in spreads_before(ledger)] == [1]


def test_an_engine_that_is_replaced_while_trials_run_leaves_the_lanes_told(
    lab: LaneLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_VERSION", "1.0")

    def world(start: Start) -> tuple[float, float]:
        if len(lab.in_lanes()) == 3:
            monkeypatch.setenv("FAULTY_VERSION", "2.0")
        return flat(start)

    document = lab.run(world, lab.study(parallel=3, trials=6), elsewhere=True)

    assert document["moves"] == ["the engine's version: 1.0 before, 2.0 after"]
    assert document["lanes"]["devices"] == ["cores 0-1", "cores 2-3", "cores 4-5"]
    reference = reference_of(Ledger(lab.folder))
    assert reference is not None
    assert (reference.place, reference.phase) == (0, "reference")


def test_a_lane_whose_process_was_stopped_is_begun_again(lab: LaneLab) -> None:
    first = {"cores 0-3"}

    def world(start: Start) -> tuple[float, float]:
        gap_ms, first_ms = flat(start)
        return (3 * gap_ms if start.device in first else gap_ms), first_ms

    def stands(start: Start) -> bool:
        found = start.device in first
        first.discard(start.device)
        return found

    lab.stand(stands)
    document = lab.run(world, lab.study(trials=2))

    devices = [start.device for start in lab.in_lanes("reference")]
    assert devices == ["cores 0-3", "cores 4-7", "cores 0-3"]
    assert [one["state"] for one in document["lanes"]["baselines"]] == ["measured"] * 2
    values = [one["value"] for one in document["lanes"]["baselines"]]
    assert values[0] / values[1] == pytest.approx(1.0, abs=0.02)
    assert document["stood"] == []
    (again,) = [step for step in lab.steps if step.phase == "reference" and step.dropped_s]
    assert again.device == "cores 0-3"
    assert again.charged_s == again.dropped_s + (again.wall_s or 0.0) > again.dropped_s
    assert "  reference on cores 0-3 is begun again." in lab.told


def test_the_third_time_a_lane_s_baseline_counts_and_is_a_doubt(lab: LaneLab) -> None:
    lab.stand(lambda start: start.phase == "reference" and start.device == "cores 4-7")
    document = lab.run(flat, lab.study(trials=2))

    devices = [start.device for start in lab.in_lanes("reference")]
    assert devices.count("cores 0-3") == 1
    assert devices.count("cores 4-7") == 3
    (doubt,) = [one["text"] for one in document["doubts"] if one["code"] == "dyno-stopped"]
    assert "reference on cores 4-7 (15 s)" in doubt
    assert doubt in remarks(document)  # nothing was better, by what it says
