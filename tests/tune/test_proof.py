"""Which trials are confirmed at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmdyno.results.conclusions import NO_DIFFERENCE
from llmdyno.results.stats import Spread
from llmdyno.search.own import OwnSearch
from llmdyno.tune.entries import Step
from llmdyno.tune.proof import _is_worse
from study_lab import LaneLab, Start, StudyLab, fast


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def lucky_baseline(start: Start) -> tuple[float, float]:
    """Be 2.1 times as fast in the baseline's first run as it is in all later ones."""
    return (9.5, 9.5) if start.phase == "baseline" else fast(start)


@pytest.mark.parametrize(("fast_is", "confirmed"), [(1.0, True), (-1.0, False)])
def test_what_the_search_holds_for_better_is_confirmed_after_a_lucky_run_of_the_baseline(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch, fast_is: float, *, confirmed: bool
) -> None:
    def expected(_: Any, configs: Sequence[Mapping[str, Any]]) -> list[float]:
        return [fast_is if config.get("fast") else 0.0 for config in configs]

    monkeypatch.setattr(OwnSearch, "expected", expected)

    document = lab.run(lucky_baseline)

    (trial,) = document["trials"]
    assert trial["value"] < document["baseline"]["summary"]["levels"][-1]["token_rate"]["mean"]
    assert bool(document["confirmation"]["pairs"]) is confirmed
    assert document["best"]["config"] == ({"fast": True} if confirmed else {})
    assert document["outcome"]["said"].startswith("Better" if confirmed else NO_DIFFERENCE)
    assert lab.run(lucky_baseline)["outcome"] == document["outcome"]  # goes on: the same


def test_a_search_without_an_opinion_is_told_by_the_values(lab: StudyLab) -> None:
    document = lab.run(lucky_baseline, lab.study(sampler="random"))

    assert document["confirmation"]["pairs"] == 0
    assert document["outcome"]["said"].startswith(NO_DIFFERENCE)


def test_a_short_check_of_the_machine_is_no_run_of_the_baseline_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best dies alone, so the machine is checked, at one level; the next one is worse alone."""

    def world(start: Start) -> tuple[float, float] | str:
        if start.config.get("fast") and start.phase == "best":
            return "died"
        if start.config.get("idle") == "b":
            return (40.0, 40.0) if start.phase == "best" else (15.0, 15.0)
        return fast(start)

    lab = LaneLab(tmp_path / "s", monkeypatch)
    given = [{"fast": True}, {"idle": "b"}]
    asked = lab.study(search="fast,idle", trials=2, candidates=given, users="1,2")
    document = lab.run(world, asked)

    alone = [start for start in lab.starts if start.phase == "check" and not start.device]
    assert [(start.config, start.levels) for start in alone] == [({}, 1), ({}, 2)]
    assert (
        "once it runs alone"
        in {str(one["config"]): one["why"] for one in document["rejected"]}[str(given[1])]
    )
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


@pytest.mark.parametrize(
    ("value", "of_baseline", "is_worse"),
    [(None, None, False), (None, 1.0, True), (1.0, None, False), (1.0, 2.0, True)],
)
def test_a_run_without_a_value_is_worse_than_one_with_a_value_alone(
    value: float | None, of_baseline: float | None, *, is_worse: bool
) -> None:
    one, other = (
        Step(phase="best", number=0, config={}, state="measured", value=each)
        for each in (value, of_baseline)
    )

    assert _is_worse(one, other, Spread(0.001, 4.0), maximise=True) is is_worse


def test_a_study_that_stops_before_it_confirms_what_the_search_holds_for_better_is_unfinished(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expected(_: Any, configs: Sequence[Mapping[str, Any]]) -> list[float]:
        return [1.0 if config.get("fast") else 0.0 for config in configs]

    def world(start: Start) -> tuple[float, float]:
        if start.phase == "best":
            raise KeyboardInterrupt
        return lucky_baseline(start)

    monkeypatch.setattr(OwnSearch, "expected", expected)

    with pytest.raises(KeyboardInterrupt):
        lab.run(world)

    assert lab.document["outcome"]["state"] == "unfinished"
    assert lab.document["confirmation"]["verdict"] == "not confirmed"
    assert "--resume" in lab.document["outcome"]["said"]
    assert lab.run(lucky_baseline)["outcome"]["state"] == "confirmed"
    assert lab.document["best"]["config"] == {"fast": True}
