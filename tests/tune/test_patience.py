"""When another trial does not pay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli.flags import study_spec
from llmdyno.errors import UsageError
from llmdyno.results.conclusions import of_patience
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.patience import PAYS, Patience
from study_lab import StudyLab, fast


class Opinion:
    """A search that only says what it expects."""

    expected_gain: float | None = None


def step(number: int, value: float | None, *, slo_met: bool | None = None) -> Step:
    state: Any = "failed" if value is None else "measured"
    return Step(phase="trial", number=number, config={}, state=state, value=value, slo_met=slo_met)


def ends(gains: Sequence[float | None], most: int) -> int | None:
    """Return at which proposal the trials end."""
    patience, search = Patience(study_spec({"patience": most}), None), Opinion()
    for number, gain in enumerate(gains):
        search.expected_gain = gain
        if patience.ends(search, []):  # type: ignore[arg-type]
            assert patience.gain == gain
            return number
    return None


def test_the_trials_end_when_so_many_proposals_in_a_row_promise_too_little() -> None:
    low, high = PAYS / 2, PAYS * 2

    assert ends([high, low, low, high, low, low, low], most=3) == 6
    assert ends([high, low, None, low, None, low], most=2) is None  # it cannot be said
    assert ends([low], most=1) == 0
    assert Patience(study_spec({}), None).ends(Opinion(), []) is False  # type: ignore[arg-type]


def test_a_search_without_an_opinion_is_judged_by_its_trials() -> None:
    def ended(values: Sequence[float | None], most: int = 2) -> bool:
        tried = [step(number, value) for number, value in enumerate(values)]
        reference = step(0, 100.0)
        patience = Patience(study_spec({"patience": most}), reference)
        return patience.ends(object(), tried)  # type: ignore[arg-type]

    assert not ended([120.0, 110.0])
    assert ended([120.0, 110.0, None])
    assert ended([90.0, 80.0])  # neither is better than the baseline
    assert not ended([90.0, 130.0])


def test_a_study_ends_early_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    asked = lab.study(search="itl_ms", trials=12, patience=2, sampler="random")
    document = lab.run(fast, asked)
    tried = document["outcome"]["tried"]

    assert document["outcome"]["ended_by"] == "patience"
    assert 2 <= tried < 12
    assert f"The trials ended after {tried} of 12: the last ones were no better." in of_patience(
        document
    )
    assert document["outcome"]["state"] != "unfinished"
    # It goes on as it ended, and with more patience it goes on for longer.
    assert lab.run(fast, asked)["outcome"]["tried"] == tried
    more = lab.study(search="itl_ms", trials=12, patience=11, sampler="random")
    assert lab.run(fast, more)["outcome"]["tried"] > tried
    assert Ledger(lab.folder).spec.patience == 11


def test_our_own_search_expects_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    document = lab.run(fast, lab.study(search="itl_ms", trials=30, patience=1))

    assert document["outcome"]["ended_by"] == "patience"
    assert 0 <= document["outcome"]["expected_gain"] < PAYS
    assert "the next one was expected to gain 0." in of_patience(document)


def test_patience_is_at_least_one_trial() -> None:
    with pytest.raises(UsageError, match="--patience 0: must be at least 1"):
        study_spec({"patience": 0})
