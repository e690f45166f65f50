"""The first sentence of each page."""

import pytest

from llmdyno import report
from report.page_text import headline, sections, words
from report_samples import GUIDE, level, study, summary


@pytest.mark.parametrize(
    ("verdict", "opening"),
    [
        ("better", "Better: at 100 users the token rate is 3.1 times as high"),
        ("worse", "Worse: at 100 users the token rate is 3.1 times as high"),
        ("no difference", "No difference shown: at 100 users the token rate is 3.1 times"),
    ],
)
def test_the_verdict_is_the_studys_own(verdict: str, opening: str) -> None:
    document = study()
    document["confirmation"]["verdict"] = verdict
    assert headline(report.study_page(document, GUIDE)).startswith(opening)


def test_an_unconfirmed_gain_is_not_called_better() -> None:
    document = study()
    del document["confirmation"]
    page = report.study_page(document, GUIDE)
    assert headline(page).startswith(
        "Not confirmed: in one run each at 100 users, the token rate is 3.1 times as high"
    )
    assert "The winner was not confirmed by repeated pairs" in words(page)
    assert "confirmation" not in sections(page)


def test_pairs_that_do_not_decide_are_not_called_one_run_each() -> None:
    """Six pairs, and an SLO that the winner missed in one of them: neither better nor worse."""
    document = study()
    document["confirmation"]["verdict"] = "not confirmed"
    page = report.study_page(document, GUIDE)
    assert headline(page).startswith(
        "Not confirmed: in 6 interleaved pairs of runs at 100 users, the token rate is 3.1 times"
    )
    assert "These pairs do not decide." in headline(page)
    assert "one run each" not in words(page)


def test_a_baseline_that_stands_is_said_to_stand() -> None:
    document = study()
    document["best"] = document["baseline"]
    document["confirmation"] = {"pairs": 0, "ratio": {}, "verdict": "no difference", "runs": []}
    page = report.study_page(document, GUIDE)
    assert headline(page) == "No better settings were found: the baseline stands."
    assert "not confirmed" not in words(page)


def test_a_run_is_told_by_its_best_level() -> None:
    page = report.run_page(summary())
    assert headline(page) == (
        "525 [504, 551] tokens/s at 100 users, the highest of 3 levels, with a TTFT p50 of 4.30 s."
    )
    assert "ttft:p99<2s 100 12,900 ms missed" in words(page)


def test_failed_requests_stand_in_the_first_sentence() -> None:
    document = summary([level(7, rate=100, ttft_ms=100)])
    [only] = document["levels"]
    only["requests"] = {"completed": 210, "failed": 52, "cut": 1, "errors": {"timeout": 52}}
    assert headline(report.run_page(document)).endswith("; 52 of 263 requests failed.")
    only["token_rate"] = {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert headline(report.run_page(document)) == (
        "No token arrived at 7 users; 52 of 263 requests failed."
    )


def test_runs_without_a_common_level_are_not_compared() -> None:
    after = summary([level(7, rate=100, ttft_ms=100)])
    page = report.compare_page(summary(), after)
    assert headline(page) == "These two runs have no measured level in common."
    assert "7 users: measured in After only." in words(page)
    assert "After ÷ Before" not in words(page)
