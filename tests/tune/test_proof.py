"""Which trials are confirmed at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmdyno.results.conclusions import NO_DIFFERENCE
from llmdyno.search.own import OwnSearch
from study_lab import Start, StudyLab, fast


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
