"""A comparison on the terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from compared_runs import SPEC, changed, side
from llmdyno.results.baselines import Kept
from llmdyno.results.comparison import document
from llmdyno.results.fail_on import parse_limits
from llmdyno.results.sides import Side
from llmdyno.terminal.compare import show_comparison, show_kept


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A run, made once."""
    return side(tmp_path_factory.mktemp("before"), "a")


def shown(found: dict[str, object], *, width: int | None = None) -> list[str]:
    stream = io.StringIO()
    terminal = width is not None
    out = Console(
        file=stream,
        width=width or 10_000,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
    )
    show_comparison(found, out)
    return [line.strip() for line in stream.getvalue().splitlines()]


def test_a_row_is_a_line_below_one_sentence(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", seed=1, slower=0.1)

    lines = shown(document(before, [after], limits=parse_limits("token_rate:-1%")))

    assert lines[0].startswith("Worse: token rate -9.")
    assert lines[1] == "Before: a (run); after: b (run)."
    (row,) = (line for line in lines if line.startswith("token rate, tok/s"))
    assert row.split()[-1] == "worse"
    assert any("One run each" in line for line in lines)
    assert lines[-1].startswith("--fail-on failed: token_rate:-1% at 2 users")


def test_where_columns_do_not_fit_each_row_has_lines_of_its_own(
    before: Side, tmp_path: Path
) -> None:
    after = side(tmp_path, "b", seed=1, slower=0.1)

    lines = shown(document(before, [after]), width=40)

    assert max(map(len, lines)) <= 40
    assert not any("…" in line for line in lines)
    at = lines.index("token rate, tok/s: worse")
    assert lines[at + 1].count("→") == 1
    assert lines[at + 1].endswith("]")


def test_it_fits_80_columns(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", seed=1)

    lines = shown(document(before, [after]), width=80)

    assert 70 < max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    (row,) = (line for line in lines if line.startswith("TTFT p50"))
    assert row.endswith("no difference")


def test_a_level_that_cannot_be_compared_has_its_reason_once(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", spec=changed(SPEC, workload__isl__a=99.0, url="http://other"))

    lines = shown(document(before, [after]))

    assert lines[0] == "Not comparable: workload.isl: 30 before, 99 after."
    reasons = [line for line in lines if "30 before, 99 after" in line]
    assert reasons[1:] == [
        "! 2 users: not comparable: workload.isl: 30 before, 99 after.",
        "! unlike workload: workload.isl: 30 before, 99 after",
    ]
    assert "setting url: http://127.0.0.1:8000 before, http://other after" in lines


def test_doubts_of_a_level_are_one_line(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", seconds=8, failing=9)

    lines = shown(document(before, [after]))

    (said,) = (line for line in lines if line.startswith("! Rows with ? at 2 users"))
    assert "spoilt by failed-requests, few-requests" in said
    assert any(line.startswith("TTFT p50 ?") for line in lines)


def test_each_other_side_has_its_own_table(before: Side, tmp_path: Path) -> None:
    others = [side(tmp_path, name, seed=seed) for name, seed in (("b", 1), ("c", 2))]

    lines = shown(document(before, others))

    assert sum(line.startswith("No difference shown") for line in lines) == 2
    assert "Before: a (run); after: c (run)." in lines


def test_baselines_are_listed() -> None:
    stream = io.StringIO()
    show_kept([], stream)
    show_kept(
        [Kept(name="main", machine="EPYC", workload="chat", runs=("r",), kept="2026")], stream
    )

    assert stream.getvalue() == ("No baselines in this folder.\nmain  r  chat on EPYC, kept 2026\n")
