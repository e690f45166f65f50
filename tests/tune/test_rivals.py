"""Who is still looked at after a winner that misses the SLOs which it had met."""

from pathlib import Path
from typing import Any

import pytest

import lab
from llmdyno.cli import flags
from llmdyno.tune.entries import Step
from llmdyno.tune.folder import stack_of
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.rivals import Rivals
from llmdyno.tune.runner import Runner


def trial(itl_ms: int, *, met: bool | None) -> Step:
    return Step(
        phase="trial", number=itl_ms, config={"itl_ms": itl_ms}, state="measured", slo_met=met
    )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    asked: dict[str, Any] = {"engine": lab.ENGINE, "model": "m", "users": "2", "budget": "9h"}
    study = flags.study_spec(asked)
    narrator = Narrator(notify=print, notify_waiting=print, display=lambda *_: lambda *_: None)
    made = Runner(study, tmp_path, stack_of(study), narrator)
    made.left = lambda: 1e6  # of the budget, in s
    return made


def test_any_trial_is_looked_at_until_a_winner_misses_what_it_had_met(runner: Runner) -> None:
    rivals = Rivals()

    assert all(rivals.has(runner, trial(at, met=met)) for at, met in enumerate((True, False) * 3))


def test_after_it_two_are_that_have_met_the_slos(runner: Runner) -> None:
    rivals = Rivals()
    rivals.begin()

    assert not rivals.has(runner, trial(1, met=False))
    assert not rivals.has(runner, trial(2, met=None))
    assert rivals.has(runner, trial(3, met=True))
    rivals.begin()  # that one misses them, too
    assert rivals.has(runner, trial(4, met=True))
    assert not rivals.has(runner, trial(5, met=True))


def test_one_is_only_looked_at_if_the_budget_has_time_for_it_or_it_has_begun(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "left", lambda: 1.0)
    rivals = Rivals()
    rivals.begin()

    assert not rivals.has(runner, trial(1, met=True))
    runner.ledger.append(Step(phase="best", number=0, config={"itl_ms": 1}, state="measured"))
    assert rivals.has(runner, trial(1, met=True))
