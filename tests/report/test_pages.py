"""What stands on the three pages, in which order, and how incomplete documents are read."""

import re
from typing import Any

import pytest

from llmdyno import report
from llmdyno.report import definitions
from llmdyno.results.metrics import BY_NAME
from report.page_text import charts, headline, sections, words
from report_samples import GUIDE, study, summary


def test_a_baseline_that_stands_is_shown_once() -> None:
    document = study()
    document["best"] = document["baseline"]
    document["confirmation"] = {"pairs": 0, "ratio": {}, "verdict": "no difference", "runs": []}
    text = words(report.study_page(document, GUIDE))
    assert "Tuned ÷ Baseline" not in text
    assert "Before and after" not in text
    assert "Why it is faster" not in text
    assert "What held the server back, and how near the limit is" in text
    assert "so was the best config" not in text


def test_a_study_is_told_in_order() -> None:
    page = report.study_page(study(), GUIDE)
    assert headline(page) == (
        "Better: at 100 users the token rate is 3.1 times as high (2.8 to 3.4)."
    )
    assert sections(page) == [
        "findings",
        "answers",
        "measured",
        "setup",
        "settings",
        "ablation",
        "why",
        "confirmation",
        "trials",
        "latency",
        "distribution",
        "time",
        "slo",
        "failures",
        "cost",
        "client",
        "untested",
        "asked",
        "environment",
        "method",
        "definitions",
        "doubts",
    ]
    assert charts(page) == [
        "token_rate_by_users",
        "ttft_by_users",
        "ablation",
        "confirmation",
        "confirmation_pairs",
        "pareto",
        "trials",
        "e2e_by_users",
        "latency_by_load",
        "tpot_by_users",
        "itl_distribution",
        "ttft_distribution",
        "token_rate_over_time",
        "ttft_over_time",
    ]


def test_a_study_of_which_nothing_was_measured_still_has_its_trials_and_machine() -> None:
    document = study() | {
        "baseline": None,
        "best": None,
        "confirmation": {"pairs": 0, "ratio": {}, "verdict": "no difference"},
        "ablation": [],
        "environment": {"cpu": {"model": "AMD EPYC"}},
    }
    page = report.study_page(document, GUIDE)
    assert headline(page) == "No comparison: there is no baseline measurement."
    assert charts(page) == ["pareto", "trials"]
    assert "cpu.model AMD EPYC" in words(page)


def test_no_table_is_empty() -> None:
    for page in (
        report.study_page(study(), GUIDE),
        report.run_page(summary()),
        report.compare_page(summary(), summary()),
    ):
        assert "<tbody" in page
        assert not re.search(r"<tbody[^>]*>\s*</tbody>", page)


def test_every_metric_is_defined() -> None:
    text = words(report.run_page(summary()))
    for metric in BY_NAME.values():
        assert metric.definition in text
    for rule in definitions.RULES:
        assert rule in text


@pytest.mark.parametrize(
    "missing",
    [
        "itl_ms",
        "tpot_ms",
        "ttft_ms",
        "token_rate",
        "goodput",
        "samples",
        "client",
        "window",
        "requests",
        "tokens",
        "users",
        "arrival",
        "whole",
    ],
)
def test_a_level_may_lack_any_part_or_have_null_there(missing: str) -> None:
    without, null = summary(), summary()
    for document in (without, null):
        del document["levels"][1:]
    del without["levels"][0][missing]
    null["levels"][0][missing] = None
    assert headline(report.run_page(without)) == headline(report.run_page(null))


@pytest.mark.parametrize("document", [{}, {"levels": []}, {"levels": None, "slo": None}])
def test_a_run_that_broke_off_at_once_has_a_page(document: dict[str, Any]) -> None:
    page = report.run_page({"schema": "llmdyno.summary/1", **document})
    assert headline(page) == "Nothing was measured: no level has a token rate."
    assert charts(page) == []


def test_a_study_of_nothing_has_a_page() -> None:
    page = report.study_page({"schema": "llmdyno.study/1"}, {})
    assert headline(page).startswith("No comparison")
