"""What a study's steps last, and what is left of its budget."""

import math
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.serve.stack import load_stack
from llmdyno.tune import budgeted
from llmdyno.tune.budgeted import Budgeted
from llmdyno.tune.entries import Event
from llmdyno.tune.ledger import Ledger


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
