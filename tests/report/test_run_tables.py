"""The tables of runs: levels, errors, the client, the server."""

import html

from llmdyno import report
from llmdyno.report import documents
from report.page_text import charts, headline, words
from report_samples import GUIDE, level, study, summary


def test_both_runs_of_a_level_stand_with_their_ratio_and_what_they_rest_on() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "100 users Baseline 525 [504, 551] 10.9 4.30 s [4.04, 4.60] s 9.68 s 12.9 s" in text
    assert "Tuned 1,630 [1,560, 1,710] 34.0 910 ms [855, 974] ms" in text
    assert "Tuned ÷ Baseline 3.10x 3.10x 0.212x" in text
    assert "1,312 0 0 22.5 to 120 valid" in text
    assert "Numbers of the window (after the ramp, MSER-5 on the token rate)" in text


def test_the_ratio_of_unequal_work_or_load_is_marked_with_its_reason() -> None:
    before, after = summary(run="run-1"), summary(run="run-2")
    after["levels"][0]["tokens"]["output"] //= 2
    after["levels"][1]["delivered"] = {
        "in_flight": {"users": 50, "expected": 49.0, "peak": 12, "mean": 11.0}
    }

    text = words(report.compare_page(before, after))

    assert text.count("1.00x ? unequal-work") == text.count("1.00x ? unequal-load") >= 5
    assert "After ÷ Before 1.00x 1.00x" in text  # at 100 users all is equal
    assert "48.0 against 24.0 output tokens a request: the work was not the same" in text
    assert "of After, 50 users were asked, and never more than 12 requests" in text


def test_an_slo_beyond_all_that_was_seen_stands_with_its_bound() -> None:
    document = summary()
    document["slo"][0] |= {"value": None, "at_least": 4831.38}

    assert "ttft:p99<2s 100 ≥ 4,830 ms missed" in words(report.run_page(document))


def test_an_slo_that_failed_requests_miss_says_so() -> None:
    document = summary()
    document["slo"][0] |= {"value": 53.2, "met": False, "failed_share": 0.25}

    assert "53.2 ms, but 25 % of the requests failed missed" in words(report.run_page(document))


def test_levels_of_another_rate_are_no_pair() -> None:
    before, after = (
        summary(
            [level(10, rate=400, ttft_ms=500) | {"users": None, "arrival": arrival, "rate": rate}]
        )
        for arrival, rate in (("poisson", 2.0), ("poisson", 4.0))
    )
    constant = summary(
        [level(10, rate=400, ttft_ms=500) | {"users": None, "arrival": "constant", "rate": 2.0}]
    )

    for other in (after, constant):
        text = words(report.compare_page(before, other))
        assert "After ÷ Before" not in text
        assert "poisson 2/s: measured in Before only." in text


def test_errors_are_told_by_class() -> None:
    document = summary()
    document["levels"][1]["requests"] |= {"failed": 7, "errors": {"timeout": 4, "http-503": 3}}
    text = words(report.run_page(document))
    assert "50 users timeout 4" in text
    assert "50 users http-503 3" in text


def test_an_open_loop_level_is_named_by_its_arrivals() -> None:
    document = summary()
    document["levels"] = [level(10, rate=400, ttft_ms=500) | {"users": None, "arrival": "poisson"}]
    page = report.run_page(document)
    assert "tokens/s at poisson arrivals" in headline(page)


def test_a_level_that_was_run_twice_is_shown_twice() -> None:
    twice = [level(10, rate=400, ttft_ms=500), level(10, rate=410, ttft_ms=490, seed=2)]
    assert list(documents.levels(summary(twice))) == ["10 users", "10 users (2)"]


def test_unfinished_latencies_are_dashes_and_never_zeros() -> None:
    document = summary([level(10, rate=400, ttft_ms=500)])
    nothing = {"n": 0, "mean": None, "p50": None, "p95": None, "p99": None, "p50_ci95": None}
    document["levels"][0]["ttft_ms"] = nothing
    text = words(report.run_page(document))
    assert "10 users 400 [384, 420] 8.33 - - - 1,000 0 0" in text
    assert "ttft_by_users" not in charts(report.run_page(document))


def test_a_number_that_the_client_spoilt_is_marked_and_the_doubt_says_why() -> None:
    document = summary()
    spoilt = document["levels"][1]
    spoilt["client"] |= {"verdict": "client-bound", "reasons": ["the client was 200 ms late (p99)"]}
    spoilt["doubtful"] = ["ttft_ms"]

    page = report.run_page(document)

    assert "the client was 200 ms late (p99)" in page
    assert "Doubtful: TTFT." in page
    table = page[page.index("Numbers of the window") :]
    assert table.count(" ?<") == 3  # p50, p95 and p99 of that level


def test_the_servers_own_word_stands_beside_ours() -> None:
    document = summary()
    document["levels"][0]["server"] = {
        "kind": "vllm",
        "tokens": {"server": 1234, "client": 1230, "difference": -0.00324},
        "ttft_ms": {"server_mean": 500.0, "client_mean": 512.0},
        "queue_ms_mean": 321.0,
        "notes": ["requests waited 321 ms in the server's queue (mean)"],
    }

    page = html.unescape(report.run_page(document))

    assert "The server's own word" in page
    assert "requests waited 321 ms" in page
    assert "vllm" in page
    assert "The server's own word" not in html.unescape(report.run_page(summary()))


def test_a_study_says_that_its_levels_are_single_runs_and_the_pairs_decide() -> None:
    said = "One run of each; the pairs of the confirmation decide"

    assert said in report.study_page(study(), GUIDE)
    assert said not in report.run_page(summary())
