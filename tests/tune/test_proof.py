"""Which trials are confirmed at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmdyno.results.stats import Spread
from llmdyno.search.own import OwnSearch
from llmdyno.tune.entries import Step
from llmdyno.tune.proof import _is_worse
from study_lab import LaneLab, Start, StudyLab, fast


def test_the_search_is_asked_once_whom_it_expects_to_be_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the best has died in the ablation the order is that of before, as a resume has it."""
    asked: list[int] = []

    def expected(_: Any, configs: Sequence[Mapping[str, Any]]) -> list[float]:
        asked.append(len(configs))
        return [float(len(config)) for config in configs]

    def world(start: Start) -> tuple[float, float] | str:
        if start.phase == "ablation" and len(start.config) == 2:
            return "died"
        return (10.0, 10.0) if start.config.get("fast") else (18.0 if start.config else 20.0, 10.0)

    monkeypatch.setattr(OwnSearch, "expected", expected)
    lab = StudyLab(tmp_path / "s", monkeypatch)
    given = [{"fast": True, "idle": "b"}, {"fast": True}, {"idle": "c"}]
    document = lab.run(world, lab.study(search="fast,idle", trials=3, candidates=given))

    assert [one["config"] for one in document["rejected"]] == given[:1]
    assert document["best"]["config"] == given[1]
    assert asked == [3]


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
