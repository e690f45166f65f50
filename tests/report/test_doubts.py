"""The doubts that a page prints."""

from llmdyno import report
from report.page_text import words
from report_samples import GUIDE, level, study, summary


def test_each_doubt_is_printed() -> None:
    document = study()
    doubtful = level(100, rate=600, ttft_ms=900, duration_s=40)
    doubtful["requests"] = {
        "completed": 80,
        "failed": 20,
        "cut": 3,
        "errors": {"timeout": 15, "http-500": 5},
    }
    doubtful["tokens"] = {"input": 10, "output": 80 * 20, "source": "chunks"}
    doubtful["window"]["start_s"] = 30.0
    doubtful["client"] |= {"verdict": "client-bound", "reasons": ["the client used 97 % of a core"]}
    doubtful["interrupted"] = True
    document["best"]["summary"]["levels"][2] = doubtful
    document["best"]["config"]["kv_precision"] = "u8"
    document["confirmation"] |= {"pairs": 3}
    document["confirmation"]["ratio"]["token_rate"]["ci95"] = [0.97, 1.31]
    doubts = words(report.study_page(document, GUIDE)).rsplit("What is doubtful", maxsplit=1)[1]
    for said in (
        "rests on 3 pairs (fewer than 5)",
        "interval of the ratio of token rate includes 1",
        "kv_precision may alter the tokens themselves",
        "Tuned, 100 users: the load generator was the limit (client-bound; the client used 97 %",
        "Tuned, 100 users: 20 requests failed (20.0 %: timeout 15, http-500 5)",
        "Tuned, 100 users: 3 requests were cut off",
        "Tuned, 100 users: only 80 requests completed (fewer than 100)",
        "Tuned, 100 users: the window is short (10.0 s, less than 30 s)",
        "Tuned, 100 users: tokens were counted as chunks",
        "Tuned, 100 users: the level was interrupted",
        "100 users: answers differ in length, 48.0 against 20.0 output tokens a request",
    ):
        assert said in doubts


def test_a_doubtful_machine_is_told_once() -> None:
    document = study()
    for side in ("baseline", "best"):
        document[side]["summary"]["environment"]["load_average"] = [12.0, 9.0, 3.0]
    document["best"]["summary"]["environment"]["packages"] = {"openvino-genai": "2026.3.0"}
    text = words(report.study_page(document, GUIDE))
    assert text.count("The machine is busy: load average 12.0 on 16 cores.") == 1
    assert (
        "Baseline and tuned were not measured in the same place: openvino-genai: 2026.4.1.0 before,"
        " 2026.3.0 after"
    ) in text


def test_a_window_that_is_no_steady_state_is_doubted() -> None:
    document = summary([level(10, rate=400, ttft_ms=500)])
    document["levels"][0]["window"] |= {
        "steady": False,
        "method": "whole level: too short for a steady state",
    }
    assert "there is no steady window" in words(report.run_page(document))


def test_a_clean_run_has_no_doubts() -> None:
    page = report.run_page(summary())
    assert "None of the checks found a reason for doubt" in words(page)
    assert "What is doubtful (0)" in words(page)
