"""What a study's steps last, and what is left of its budget."""

import math
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.serve.stack import load_stack
from llmdyno.tune import budgeted
from llmdyno.tune.budgeted import Budgeted, Shared
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.ledger import Ledger
from study_lab import StudyLab, flat


def with_steps(one: Budgeted, **took_s: float) -> Budgeted:
    one.ledger.path.parent.mkdir(exist_ok=True)
    for name, measure_s in took_s.items():
        phase: Any = name
        step = Step(phase=phase, number=0, config={}, state="measured", measure_s=measure_s)
        one.ledger.append(step)
    return one


def budgeted_study(folder: Path, **given: Any) -> Budgeted:
    asked = {"engine": "openvino", "model": "tiny", "users": "2,8", "duration": "20s"}
    asked |= {"trial_duration": "5s", **given}
    study = flags.study_spec(asked)
    return Budgeted(study, Ledger(folder), load_stack("openvino", "native", "tiny"))


def test_a_trial_is_measured_at_the_level_that_decides_for_its_own_duration(tmp_path: Path) -> None:
    found = budgeted_study(tmp_path)

    assert (found.whole_load().users, found.whole_load().duration_s) == ((2, 8), 20.0)
    assert (found.trial_load().users, found.trial_load().duration_s) == ((8,), 5.0)
    confirms = found.trial_load(confirm=True)
    assert (confirms.users, confirms.duration_s) == ((8,), 20.0)


def test_all_levels_are_confirmed_if_that_is_asked(tmp_path: Path) -> None:
    found = budgeted_study(tmp_path, confirm_levels="all")

    assert found.trial_load(confirm=True) == found.whole_load()
    assert found.trial_load().users == (8,)


def test_what_was_spent_before_a_stop_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(budgeted, "monotonic", lambda: now_s[0])
    found = budgeted_study(tmp_path, budget="100s")
    found.ledger.append(Event(kind="asked", why="a test", charged_s=30.0))
    found.begin_budget()
    now_s[0] += 20.0

    assert found.left_s() == pytest.approx(50.0)
    assert (found.over_budget(0.45), found.over_budget(0.55)) == (True, False)


def test_a_budget_that_is_shared_is_asked_of_who_shares_it(tmp_path: Path) -> None:
    found = budgeted_study(tmp_path)
    assert (found.left_s(), found.over_budget(1.0)) == (math.inf, False)

    found.left, found.over = lambda: 7.0, lambda share: share > 0.5

    assert (found.left_s(), found.over_budget(0.6), found.over_budget(0.4)) == (7.0, True, False)


def test_trials_leave_what_the_proof_takes_at_least_but_a_third_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budgeted, "lasts_s", lambda _, load: load.duration_s * len(load.users))

    assert budgeted_study(tmp_path).kept_s() == 0.0
    # Two levels of 20 s in full, and two pairs of 20 s a run.
    assert budgeted_study(tmp_path, budget="10m").kept_s() == 2 * 20 + 2 * 2 * 20
    assert budgeted_study(tmp_path, budget="10m", pairs=4).kept_s() == 2 * 20 + 2 * 4 * 20
    assert budgeted_study(tmp_path, budget="1m").kept_s() == pytest.approx(20)


@pytest.mark.parametrize("given", [{}, {"budget": "1m"}, {"budget": "10m"}])
def test_the_least_proof_takes_as_long_whatever_the_budget_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setattr(Budgeted, "lasts_s", lambda _, load: load.duration_s * len(load.users))

    found = budgeted_study(tmp_path, pairs=4, **given)

    assert found.least_proof_s() == 2 * 20 + 2 * 2 * 20  # the budget ends all but two pairs


@pytest.mark.parametrize(("left_s", "trials"), [(109.0, 1), (110.0, 3)])
def test_no_trial_but_the_first_takes_the_time_of_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_s: float, trials: int
) -> None:
    monkeypatch.setattr(Budgeted, "left_s", lambda _: left_s)
    monkeypatch.setattr(Budgeted, "trial_s", lambda _: 30.0)
    monkeypatch.setattr(Budgeted, "kept_s", lambda _: 80.0)
    lab = StudyLab(tmp_path / "s", monkeypatch)

    document = lab.run(flat, lab.study(trials=3, search="itl_ms", budget="300s"))

    assert len(document["trials"]) == trials
    ended = "takes 30 s; 80 s are kept for the proof." in " ".join(lab.told)
    assert ended == (trials == 1)


def test_of_a_shared_budget_each_has_a_first_trial_and_the_rest_is_divided_beside_the_proof(
    tmp_path: Path,
) -> None:
    first = with_steps(budgeted_study(tmp_path / "a"), baseline=50.0)
    dear = with_steps(budgeted_study(tmp_path / "b"), baseline=70.0)
    dead = budgeted_study(tmp_path / "c")  # its baseline was not measured
    whole = budgeted_study(tmp_path / "s", budget="1000s").study
    shared = Shared(whole, lambda: [first, dear, dead])
    shared.for_trials(first, 0.5)
    assert first.left_s() == 1000 - 120
    with_steps(first, trial=15.0)

    # Beside their load, of 40 s in full and of 20 s in a pair, runs take 10 s and 30 s. So the
    # dearest winner takes 70 s in full and 80 s a pair with the first, of which two are kept.
    assert first.left_s() == pytest.approx((1000 - 120 - 70 - 2 * 80) / 2 - 15)
    assert not first.over_budget(1.0)
    shared.for_trials(first, 0.01)
    assert first.over_budget(1.0)
    shared.for_proof(first)
    assert (first.left_s(), first.over_budget(0.13), first.over_budget(0.14)) == (865, True, False)


def test_a_shared_budget_without_a_limit_ends_nothing(tmp_path: Path) -> None:
    one = with_steps(budgeted_study(tmp_path / "a"), baseline=50.0, trial=15.0)
    shared = Shared(budgeted_study(tmp_path / "s").study, lambda: [one])

    shared.for_trials(one, 0.5)
    assert (one.left_s(), one.over_budget(1.0), shared.over()) == (math.inf, False, False)
    shared.for_proof(one)
    assert (one.left_s(), one.over_budget(1.0)) == (math.inf, False)
