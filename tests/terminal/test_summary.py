"""The table of a run on terminals of two widths, and what is said under it."""

import io
from typing import Any

import pytest
from rich.console import Console

from llmdyno.terminal.summary import show_selftest, show_summary
from report_samples import summary


def printed(document: dict[str, Any], width: int = 200) -> str:
    out = io.StringIO()
    # The sample has its SLOs as the first version wrote them.
    show_summary({**document, "slo": []}, Console(file=out, width=width))
    return out.getvalue()


def headings(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith("load ")]
    return line.split()


def test_a_wide_terminal_shows_more_columns() -> None:
    narrow, wide = printed(summary(), 100), printed(summary(), 200)

    shared = ["load", "done", "failed", "TTFT", "p50", "p99", "ITL", "p50", "tok/s"]
    assert headings(narrow) == shared
    for heading in ("cut", "TPOT", "E2E", "req/s", "window", "client"):
        assert heading in headings(wide)


def test_a_metric_that_is_absent_is_a_dash() -> None:
    document = summary()
    for level in document["levels"]:
        del level["tpot_ms"]

    assert headings(printed(document)) == headings(printed(summary()))
    assert " -  " in printed(document)


@pytest.mark.parametrize(
    ("expr", "verdict", "said"),
    [
        ("ttft:p99<2s", {"value": 52.7}, "met (52.7 ms)"),
        ("goodput>2", {"value": 9.25}, "met (9.25 req/s)"),
        ("ttft:p99<2s", {"value": None, "at_least": 4831.0}, "met (at least 4,831 ms)"),
        ("ttft:p99<2s", {"value": None}, "met (no data)"),
        ("e2e:p50<2s", {"value": 9.0, "failed_share": 0.25}, "(9 ms, but 25 % of the requests"),
    ],
)
def test_what_an_slo_came_to_has_its_unit(expr: str, verdict: dict[str, Any], said: str) -> None:
    out = io.StringIO()
    slo = [{"expr": expr, "level": 10, "at": "10 users", "met": True, **verdict}]

    show_summary({**summary(), "slo": slo}, Console(file=out, width=200))

    assert f"SLO {expr} at 10 users: met" in out.getvalue()
    assert said in out.getvalue()


def test_what_the_client_spoilt_has_a_mark() -> None:
    document = summary()
    document["levels"][0]["doubtful"] = ["itl_ms"]

    text = printed(document)

    assert "? the client had a share in it: see below." in text
    assert text.count("? ") >= 2


def test_an_open_loop_shows_what_runs_from_due_first_and_says_what_it_means() -> None:
    document = summary()
    for level in document["levels"]:
        level |= {"users": None, "arrival": "poisson", "rate": 2.0}
        level |= {"ttft_due_ms": level["ttft_ms"], "e2e_due_ms": level["e2e_ms"]}

    text = printed(document)

    assert headings(text)[:8] == ["load", "done", "failed", "cut", "due", "TTFT", "p50", "due"]
    assert "TTFT from due =" in text
    assert "TTFT from due =" not in printed(summary())


def test_definitions_stand_under_the_table_but_those_of_requests_a_second() -> None:
    text = printed(summary())

    assert "TTFT = sent" in text
    assert "token_rate = output tokens" in text
    assert "request_rate =" not in text


def test_the_words_of_a_server_cannot_move_the_cursor() -> None:
    document = summary()
    document["levels"][0]["faults"] = {"http-500": {"meaning": "m", "example": "\x1b[2Jgone"}}

    assert "\x1b" not in printed(document)


def test_a_selftest_is_a_table_with_the_most_that_a_core_does() -> None:
    load = {
        "name": "8 users",
        "requests": 1000,
        "ttft_error_ms_p50": 0.1,
        "ttft_error_ms_p99": 0.2,
        "itl_error_ms_p50": 0.3,
        "itl_error_ms_p99": 0.4,
        "tokens_lost": 0,
        "events_per_s": 1234.0,
        "cpu_us_per_token": 5.5,
        "streamer_late_ms_p99": 0.7,
    }
    out = io.StringIO()

    show_selftest({"loads": [load], "events_per_s_max": 98765.0}, Console(file=out, width=120))

    assert "8 users" in out.getvalue()
    assert "late by up to 0.7 ms" in out.getvalue()
    assert "At most 98,765 events/s on one core" in out.getvalue()
