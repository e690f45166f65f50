"""What a study tells on the terminal: a line a step, before and after, the verdict."""

import io
import re
from typing import Any

import pytest

from llmdyno.load.progress import Progress
from llmdyno.terminal.study import narrator, show_study, verdict_lines
from llmdyno.tune.entries import Step
from llmdyno.tune.outlook import Outlook, Proving
from llmdyno.wire.exchange import Meter
from report_samples import study

FINDINGS = ("The token rate is twice as high.", "What did it is one setting. " * 5)


def shown(document: dict[str, Any]) -> str:
    out = io.StringIO()
    show_study(document, FINDINGS, out)
    return out.getvalue()


def test_before_and_after_stand_under_each_other() -> None:
    document = study()
    document |= {"objective": "token_rate:mean"}

    lines = shown(document).splitlines()

    assert lines[1].startswith("One run of each at every load")
    assert lines[2].split() == ["users", "TTFT", "p50", "p99", "token", "rate"]
    assert [line.split()[1] for line in lines[3:9]] == ["before", "after"] * 3


def test_a_baseline_that_stands_has_one_line_a_level() -> None:
    document = study() | {"objective": "token_rate:mean"}
    document["best"] = document["baseline"]

    lines = shown(document).splitlines()

    assert lines[1] == "One run of the baseline at every load; the verdict is that of the pairs:"
    assert [line.split()[0] for line in lines[3:6]] == ["10", "50", "100"]
    assert not {"before", "after"} & set(" ".join(lines[3:7]).split())


def test_an_objective_that_is_no_column_stands_beside() -> None:
    document = study()
    document |= {"objective": "e2e:p95"}

    text = shown(document)

    assert "E2E p95" in text.splitlines()[2]
    assert " ms" in text.splitlines()[3].rsplit("tok/s", maxsplit=1)[1]


def test_an_objective_with_a_long_name_keeps_its_column() -> None:
    document = study() | {"objective": "cost_per_million_output:mean"}

    headings, *rows = shown(document).splitlines()[2:5]

    assert "token rate  cost per million output tokens" in headings
    assert {len(row) for row in rows} == {len(headings)}


def test_the_verdict_has_its_intervals() -> None:
    headline, rate, ttft = verdict_lines(study())

    assert headline == (
        "Tuned against baseline at 100 users: better (6 interleaved pairs, 95 % intervals)."
    )
    assert rate.split("  ")[1:] == ["token rate", "3.11x [2.79, 3.42]"]
    assert "TTFT p50" in ttft
    assert "0.212x [0.190, 0.240]" in ttft


def test_what_has_no_ratio_or_no_interval_says_why() -> None:
    document = study()
    document["confirmation"]["ratio"] = {
        "token_rate": {"mean": 1.5, "ci95": None},
        "ttft_ms_p50": {
            "mean": None,
            "ci95": None,
            "difference": {"mean": -2.0, "ci95": [-3.0, -1.0]},
        },
    }
    _, rate, ttft = verdict_lines(document)

    assert rate.endswith("1.50x (one pair: no interval)")
    assert ttft.endswith("-2.00 [-3.00, -1.00] ms (0 in some run: a difference, no ratio)")


def test_without_pairs_there_is_no_difference() -> None:
    document = study()
    document["confirmation"]["pairs"] = 0

    assert verdict_lines(document) == [
        "No config that was tried did better than the baseline, which stays."
    ]


def test_a_file_is_told_the_steps_and_no_waiting() -> None:
    out = io.StringIO()
    told = narrator(out)

    told.notify("trial 1: itl_ms=20")
    told.notify_waiting("still loading")
    told.display("trial 1", [4])(Progress(), Meter())

    assert out.getvalue() == "trial 1: itl_ms=20\n"


def outlook() -> Outlook:
    best = Step(phase="trial", number=2, config={"a": 64}, state="measured", value=812.3)
    return Outlook(
        number=4,
        trials=12,
        config="max_num_seqs=128, enable_prefix_caching=true",
        why="expected 3.1 % better than the best, 95 % to start",
        best=best,
        times=1.142,
        left_s=1500.0,
    )


def test_on_a_terminal_of_80_columns_no_line_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]

    narrator(out).foretell(outlook())

    lines = out.getvalue().replace("\r\x1b[2K", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("    ") for line in lines)
    assert "the best, 95 % to start)" in " ".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("level", "head", "first", "block"),
    [
        ({"arrival": "trace", "rate": None}, "users", "trace", "trace arrivals"),
        ({"arrival": "poisson", "rate": 2.5}, "requests/s", "2.5", "poisson 2.5/s"),
    ],
)
def test_levels_without_users_have_a_row_on_every_terminal(
    level: dict[str, Any], head: str, first: str, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = study() | {"objective": "ttft:p99"}
    for arm in ("baseline", "best"):
        levels = document[arm]["summary"]["levels"]
        document[arm]["summary"]["levels"] = [{**levels[0], **level, "users": None}]
    narrow = io.StringIO()
    narrow.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setenv("COLUMNS", "50")

    show_study(document, FINDINGS, narrow)

    wide = [line.split() for line in shown(document).splitlines()]
    assert (wide[2][0], wide[3][0]) == (head, first)
    assert f"{block}, before" in narrow.getvalue()


def test_a_step_of_the_proof_is_told_with_the_end_of_the_study() -> None:
    out = io.StringIO()

    narrator(out).foretell_proof(Proving(comes="pair 2 of 3", left_s=94.0))

    assert re.fullmatch(
        r"    next, pair 2 of 3; ends about .*\d\d:\d\d, in 94.0 s\n", out.getvalue()
    )


def test_the_key_findings_are_numbered_and_stand_below_the_verdict() -> None:
    verdict, _, told = shown(study()).partition("Key findings\n")
    lines = told.splitlines()

    assert "95 % intervals" in verdict
    assert lines[0] == f"1. {FINDINGS[0]}"
    assert lines[1].startswith("2. What did it")
    assert lines[2].startswith("   ")
    assert max(map(len, lines[:3])) <= 78
