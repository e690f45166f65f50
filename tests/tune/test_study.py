"""The document that is derived of a ledger and its runs."""

from pathlib import Path

import pytest

import lab
from llmdyno.results.verdicts import verdict
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.study import study_document


def test_a_study_is_derived_without_writing(results: Path) -> None:
    folder = results / lab.STUDY
    before = lab.snapshot(folder)

    document = study_document(folder, Ledger(folder), stack_of(lab.spec()))

    assert lab.snapshot(folder) == before
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] == pytest.approx(2, rel=0.05)
    assert [row["knob"] for row in document["ablation"]] == ["itl_ms"]
    assert document["bundle"] is None


@pytest.mark.parametrize(
    ("ratio", "maximise", "word"),
    [
        ({"mean": 1.5, "ci95": [1.2, 1.8]}, True, "better"),
        ({"mean": 1.5, "ci95": [1.2, 1.8]}, False, "worse"),
        ({"mean": 0.5, "ci95": [0.4, 0.6]}, False, "better"),
        ({"mean": 1.5, "ci95": [0.9, 2.5]}, True, "no difference"),
        ({"mean": 1.5, "ci95": None}, True, "not confirmed"),
        ({"mean": None, "ci95": None}, True, "not confirmed"),
        (
            {"mean": None, "ci95": None, "difference": {"mean": 2.0, "ci95": [1.0, 3.0]}},
            True,
            "better",
        ),
    ],
)
def test_a_verdict_needs_an_interval_without_1(
    ratio: dict[str, object], maximise: bool, word: str
) -> None:
    assert verdict(ratio, maximise=maximise) == word
