"""How many pairs a confirmation measures, over a measurement of known noise."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import lab
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.knobs import Value
from llmdyno.results import pairs as statistics
from llmdyno.results.stats import Spread
from llmdyno.tune import pair_runs, paired, pairs, rejected
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.folder import open_study, stack_of
from llmdyno.tune.going_on import extended
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.noise import spreads_before
from llmdyno.tune.pairs import Confirmation, Side, pairs_expected
from llmdyno.tune.proof import Proof
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from study_lab import Start, StudyLab, fast

AFTER: dict[str, Value] = {"itl_ms": 20}
BEST = Step(phase="best", number=0, config=AFTER, state="measured")


class Confirmed:
    """A confirmation of a winner that is 10 % better, by runs of this noise and drift."""

    def __init__(self, folder: Path, noise: float, *, seed: int = 0, **given: Any) -> None:
        asked = {"engine": lab.ENGINE, "model": "m", "users": "2", "trials": 1, **given}
        self.study = flags.study_spec(asked)
        self.folder = folder
        self.said: list[str] = []
        self.noise = noise
        self._rng = np.random.default_rng(seed)
        self.loads: list[Any] = []

    def measure(self, _stack: Any, config: Any, *, load: Any, **_: Any) -> Measurement:
        self.loads.append(load)
        drift = 0.01 * len(self.loads)
        log = 0.0953 * (config == AFTER) + drift + self._rng.normal(0, self.noise)
        rate = {"token_rate": {"mean": 100 * math.exp(log)}, "users": 2}
        return Measurement(summary={"levels": [rate], "slo": []}, start_s=100.0)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
        narrator = Narrator(
            notify=self.said.append, notify_waiting=print, display=lambda *_: lambda *_: None
        )
        monkeypatch.setattr("llmdyno.tune.runner.measure", self.measure)
        runner = Runner(self.study, self.folder, stack_of(self.study), narrator)
        self.folder.mkdir(exist_ok=True)
        with Presence(self.folder) as presence:
            runner.begin(presence)
            best = Step(phase="best", number=0, config=dict(AFTER), state="measured")
            Proof(runner).confirm(self.study.baseline, best)
        self.confirmation = Confirmation(
            Side(runner, self.study.baseline), Side(runner, AFTER), contender=0
        )
        self.paired = runner.ledger.has_its_pairs(0)
        return runner.ledger.of("confirm")


def values_only(_study: Study, steps: Sequence[Step]) -> float:
    """Stand in for pairs.half_width() where runs have no journals."""
    return statistics.compared(paired.value_runs(steps)).half_width


def test_pairs_that_are_given_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Confirmed(tmp_path / "s", 0.5, pairs=3)

    steps = asked.run(monkeypatch)

    assert [bool(step.config) for step in steps] == [False, True, True, False, True, False]
    assert asked.said[0].startswith("Confirmation: 3 interleaved pairs. With equal runs 5.0 %")
    assert "in 80 of 100 cases; one of 10 % would need 6 pairs." in asked.said[0]


def test_the_noise_that_the_pairs_show_asks_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = Confirmed(tmp_path / "quiet", 0.001).run(monkeypatch)
    loud = Confirmed(tmp_path / "loud", 0.3).run(monkeypatch)

    assert len(quiet) == 10
    assert len(loud) == 24
    more = Confirmed(tmp_path / "more", 0.3, max_pairs=15).run(monkeypatch)
    assert len(more) == 30


def test_the_first_three_pairs_decide_how_many_there_are() -> None:
    study = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2"})
    rng = np.random.default_rng(4)

    def steps(*noises: float) -> list[Step]:
        """Return the runs of pairs, each pair of its noise."""
        return [
            Step(
                phase="confirm",
                number=2 * pair + late,
                config={},
                state="measured",
                arm="after" if after else "before",
                value=math.exp(rng.normal(0, noise)),
            )
            for pair, noise in enumerate(noises)
            for late, after in enumerate(statistics.order(pair))
        ]

    first, loud = steps(0.001, 0.001, 0.001), steps(0.3, 0.3, 0.3)
    later = [step for step in steps(*[0.3] * 6) if step.number >= 6]
    assert not pairs.is_enough(study, 4, [*first, *later], [])
    assert pairs.is_enough(study, 5, [*first, *later], [])  # whatever the later ones show
    assert pairs_expected(study, 4, [*first, *later], []) == 5
    assert not pairs.is_enough(study, 11, [*loud, *later], [])
    assert not pairs.is_enough(study, 2, first, [])
    few = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2", "max_pairs": 5})
    assert not few.pairs_decided  # there are five in any case
    assert study.pairs_decided


def test_what_was_measured_twice_tells_the_noise_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for phase, value in (("baseline", 100.0), ("reference", 130.0)):
        ledger.append(
            Step(phase=phase, number=0, config={}, state="measured", value=value)  # type: ignore[arg-type]
        )

    (spread,) = spreads_before(ledger)
    assert spread.variance == pytest.approx(math.log(1.3) ** 2 / 2)
    assert statistics.pooled_noise([spread]) > 0.05


def test_a_study_that_goes_on_asks_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Confirmed(tmp_path / "s", 0.05).run(monkeypatch)
    for step in first:  # a run that is gone would be made again
        run = tmp_path / "s" / step.run
        run.mkdir(parents=True)
        for name in (store.JOURNAL, store.SUMMARY):
            (run / name).touch()
    again = Confirmed(tmp_path / "s", 0.05)

    assert again.run(monkeypatch) == first
    assert not again.loads


def test_pairs_until_the_interval_is_narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "half_width", values_only)
    narrow = Confirmed(tmp_path / "a", 0.02, confirm_until="3%", max_pairs=30)
    never = Confirmed(tmp_path / "b", 0.3, confirm_until="1%", max_pairs=6)

    steps = narrow.run(monkeypatch)

    assert pairs.UNTIL_PAIRS_MIN * 2 <= len(steps) < 60
    found = statistics.compared(paired.value_runs(narrow.confirmation.steps()))
    assert found.half_width <= 0.03
    assert len(never.run(monkeypatch)) == 12


def test_the_budget_ends_all_but_the_first_two_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Confirmed(tmp_path / "s", 0.3, budget="1s")

    assert len(asked.run(monkeypatch)) == 4
    assert asked.paired
    assert asked.said[-1] == (
        "The budget has no time for another pair; the confirmation ends with 2."
    )


@pytest.mark.parametrize(
    "given", [{"pairs": 4}, {"pairs": 4, "confirm_until": "0.1%", "max_pairs": 4}]
)
def test_the_budget_ends_pairs_that_were_asked_for_and_a_larger_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setattr(pairs, "half_width", values_only)
    asked = Confirmed(tmp_path / "s", 0.01, budget="1s", **given)

    assert len(asked.run(monkeypatch)) == 4
    of = "" if "confirm_until" in given else " of 4"
    assert asked.said[-1] == (
        f"The budget has no time for another pair; the confirmation ends with 2{of}."
    )
    ledger = Ledger(tmp_path / "s")
    assert rejected.has_its_pairs(ledger, 0, 2)  # the verdict is by what there is
    assert not rejected.has_its_pairs(ledger, 0, 1)
    told = pair_runs.planned(ledger, BEST, 2)
    assert told == {"pairs_asked": None if of == "" else 4, "pairs_ended_by": "budget"}
    for step in ledger.of("confirm"):  # a run that is gone would be made again
        run = tmp_path / "s" / step.run
        run.mkdir(parents=True)
        for name in (store.JOURNAL, store.SUMMARY):
            (run / name).touch()

    budget = Event(kind="extended", why="budget 9h", changes={"budget_s": 32400.0})
    ledger.events += [budget]
    assert not rejected.has_its_pairs(ledger, 0, 2)  # others are to come
    ledger.events.pop()

    more = Confirmed(tmp_path / "s", 0.01, budget="9h", **given)
    assert len(more.run(monkeypatch)) == 8
    ledger = Ledger(tmp_path / "s")
    assert ledger.pairs_ended(0) == "all pairs"
    assert pair_runs.planned(ledger, BEST, 4)["pairs_ended_by"] is None


def test_all_levels_are_confirmed_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"users": "1,2", "pairs": 2}
    every = Confirmed(tmp_path / "a", 0.01, **given, confirm_levels="all")
    last = Confirmed(tmp_path / "b", 0.01, **given)
    every.run(monkeypatch)
    last.run(monkeypatch)

    assert {load.users for load in every.loads} == {(1, 2)}
    assert {load.users for load in last.loads} == {(2,)}


@pytest.mark.parametrize(("wanted", "pairs"), [("20%", 4), ("3%", 23), ("1%", 40)])
def test_how_many_pairs_a_narrow_interval_takes_is_foreseen(wanted: str, pairs: int) -> None:
    asked = {"engine": lab.ENGINE, "model": "m", "users": "2", "max_pairs": 40}
    study = flags.study_spec({**asked, "confirm_until": wanted})

    assert pairs_expected(study, 0, [], []) == pairs


def test_a_pair_that_another_version_began_gets_its_other_arm(tmp_path: Path) -> None:
    study = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2", "pairs": 3})
    narrator = Narrator(notify=print, notify_waiting=print, display=lambda *_: lambda *_: None)
    runner = Runner(study, tmp_path, stack_of(study), narrator)
    runner.ledger.append(Step(phase="confirm", number=4, config={}, state="measured"))
    before, after = Side(runner, {}), Side(runner, AFTER)
    confirmation = Confirmation(before, after, contender=0)

    assert confirmation.arms(2) == (before, after)
    assert confirmation.arms(1) == (after, before)
    assert [step.arm for step in confirmation.steps()] == ["before"]


def test_sides_of_two_engines_are_told_apart_though_their_configs_are_equal(
    tmp_path: Path,
) -> None:
    study = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2", "pairs": 2})
    narrator = Narrator(notify=print, notify_waiting=print, display=lambda *_: lambda *_: None)
    sides = []
    for name, number in (("one", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        runner = Runner(study, tmp_path / name, stack_of(study), narrator)
        runner.ledger.append(
            Step(phase="confirm", number=number, config={}, state="measured", run=f"runs/{name}")
        )
        sides.append(Side(runner, {}))
    steps = Confirmation(sides[0], sides[1], contender=0).steps()

    assert [step.arm for step in steps] == ["before", "after"]
    assert steps[1].run == str(tmp_path / "other" / "runs" / "other")


def test_an_open_number_of_pairs_is_whole_once_its_plan_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Confirmed(tmp_path / "s", 0.001).run(monkeypatch)
    ledger = Ledger(tmp_path / "s")

    assert rejected.has_its_pairs(ledger, 0, 2)
    assert not rejected.has_its_pairs(ledger, 0, 1)
    assert not rejected.has_its_pairs(ledger, 1, 2)
    plan = Event(kind="extended", why="max-pairs 20", changes={"max_pairs": 20})
    ended = ledger.events[-1]
    ledger.events += [Event(kind="extended", why="trials 9", changes={"trials": 9})]
    assert rejected.has_its_pairs(ledger, 0, 2)  # the pairs' plan is as it was
    ledger.events += [plan]
    assert not rejected.has_its_pairs(ledger, 0, 2)
    ledger.events += [ended]
    assert rejected.has_its_pairs(ledger, 0, 2)
    ledger.events.clear()  # as if it had been killed between two pairs
    assert not rejected.has_its_pairs(ledger, 0, 2)


def test_the_noise_of_an_earlier_winners_pairs_is_known_before_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Confirmed(tmp_path / "s", 0.2).run(monkeypatch)
    study = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2", "trials": 1})
    narrator = Narrator(notify=print, notify_waiting=print, display=lambda *_: lambda *_: None)
    runner = Runner(study, tmp_path / "s", stack_of(study), narrator)
    other: dict[str, Value] = {"itl_ms": 30}

    def known(contender: int) -> list[Spread]:
        sides = Side(runner, {}), Side(runner, other)
        return Confirmation(*sides, contender)._spreads_before()

    assert known(0) == []  # its own pairs are none before it
    assert [spread.freedom for spread in known(1)] == [24 - 4]
    assert pairs_expected(study, 0, [], known(1)) == 12
    early = list(runner.ledger.steps)
    moved = [msgspec.structs.replace(step, place=1) for step in early]
    runner.ledger.steps[:] = moved  # of another machine
    assert known(1) == []

    own = msgspec.structs.replace(early[0], contender=1, config={}, run="runs/own")
    more = [
        msgspec.structs.replace(step, number=step.number + 24, run=f"{step.run}-late")
        for step in early
    ]
    runner.ledger.steps[:] = [*early, own, *more]
    assert [spread.freedom for spread in known(1)] == [24 - 4]  # what came later changes nothing
    runner.ledger.append(Event(kind="moved", why="another machine"))
    assert [spread.freedom for spread in known(1)] == [24 - 4]
    assert known(2) == []  # it begins there


def unlike(start: Start) -> tuple[float, float]:
    """Let the first candidate fall in its pairs; the second does less well in full than before."""
    if start.config.get("fast"):
        gap_ms = 25.0 if start.phase == "confirm" else 8.0
    elif start.config:
        gap_ms = 10.0 if start.phase == "trial" else 16.0
    else:
        gap_ms = 20.0
    return gap_ms, gap_ms


TWO = [{"fast": True}, {"itl_ms": 16}]


def test_a_finished_study_of_an_open_number_of_pairs_starts_nothing_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    asked = study.study(search="fast,itl_ms", pairs=None, trials=2, candidates=TWO)
    first = study.run(unlike, asked)
    assert [one["config"] for one in first["rejected"]] == [TWO[0]]
    made = [len(Ledger(study.folder).of("confirm", contender)) for contender in (0, 1)]
    assert made == [10, 24]  # the second one's runs before its pairs lay far apart

    again = study.run(unlike, asked)

    assert study.starts == []
    assert again["confirmation"] == first["confirmation"]


def test_how_many_pairs_there_are_is_decided_by_what_was_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    asked = study.study(search="fast,itl_ms", pairs=None, trials=2, candidates=TWO)
    study.run(unlike, asked)
    path = study.folder / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"kind":"paired"' not in line))

    study.run(unlike, asked)  # as if it had been killed before it wrote that the pairs had ended

    assert study.starts == []


def test_pairs_that_have_ended_are_filled_up_and_no_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    asked = study.study(pairs=None)
    study.run(fast, asked)
    path = study.folder / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    late = [f'"phase":"confirm","number":{number},' for number in (6, 7, 8, 9)]
    kept = [line for line in lines if not any(one in line for one in late)]
    assert len(lines) - len(kept) == 4
    path.write_text("".join(kept))  # as a version left it for which three pairs were enough

    assert study.run(fast, asked)["confirmation"]["pairs"] == 3
    assert study.starts == []
    ledger = Ledger(study.folder)
    shutil.rmtree(study.folder / ledger.of("confirm")[5].run)
    ledger.append(Step(phase="confirm", number=6, config={}, state="failed"))
    ledger.append(Event(kind="mended", why="no disk", void=(("confirm", 0, 6),)))
    assert study.run(fast, asked)["confirmation"]["pairs"] == 3
    assert len(study.starts) == 1
    given = {"max_pairs": 13}
    more = extended(open_study(study.folder), study.study(pairs=None, **given), given, "s")
    assert study.run(fast, more)["confirmation"]["pairs"] == 5


def test_what_decides_how_many_pairs_there_are_counts_in_what_they_find() -> None:
    asked = {"engine": lab.ENGINE, "model": "m", "users": "2"}
    whole = pairs.announcement(flags.study_spec(asked), 0.05)
    six = pairs.announcement(flags.study_spec({**asked, "max_pairs": 6}), 0.05)

    assert whole.startswith("Confirmation: about 7 interleaved pairs. With equal runs 5.0 % apart")
    assert whole.endswith("in 80 of 100 cases. The first three decide.")
    assert six.endswith("; one of 10 % would need 7 pairs. The first three decide.")
    twenty = flags.study_spec({**asked, "max_pairs": 20})
    said = pairs.announcement(twenty, 0.1)
    assert said.startswith("Confirmation: about 19 interleaved pairs.")
    assert pairs.pairs_needed(twenty, 0.1) == 19
    assert pairs.pairs_needed(flags.study_spec({**asked, "pairs": 3}), 0.1) == 12


def test_where_pairs_can_find_next_to_nothing_that_is_said_in_words() -> None:
    study = flags.study_spec({"engine": lab.ENGINE, "model": "m", "users": "2", "pairs": 3})

    assert "% in 80 of 100 cases" in pairs.announcement(study, 0.05)
    said = pairs.announcement(study, 1.5)

    assert "equal runs 150.0 % apart they miss even twice the speed in more than 20 of 100" in said
    assert "80 of 100" not in said
