"""Tables of three forms, by the width there is; files and pipes have none."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from llmdyno.terminal import summary, tables
from llmdyno.terminal.lists import show_facts, show_runs
from llmdyno.terminal.live import _folded
from llmdyno.terminal.study import show_study
from llmdyno.terminal.summary import show_summary
from llmdyno.terminal.tables import Cell, Heading, show_table, wrapped
from report_samples import study
from report_samples import summary as sample

HEADINGS = (Heading("load"), Heading("TTFT p50"), Heading("p99", "TTFT p99"))
ROWS = ((Cell("10 users"), Cell("510", r"\[479, 546]"), Cell("1,530")),)


class Terminal(io.StringIO):
    """A terminal of so many columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Terminal:
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def printed(width: int) -> list[str]:
    out = io.StringIO()
    show_table(Console(file=out, width=width), HEADINGS, ROWS, "In ms.")
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def test_a_row_is_a_line_where_there_is_room() -> None:
    heading, _rule, row, _caption = printed(60)

    assert heading.split() == ["load", "TTFT", "p50", "p99"]
    assert row.split() == ["10", "users", "510", "[479,", "546]", "1,530"]


def test_intervals_go_below_their_values_before_anything_is_cut() -> None:
    _heading, _rule, values, intervals, _caption = printed(30)

    assert values.split() == ["10", "users", "510", "1,530"]
    assert intervals.split() == ["[479,", "546]"]


def test_a_row_is_a_block_where_there_is_no_room_for_a_table() -> None:
    assert printed(26) == ["10 users", "  TTFT p50 510 [479, 546]", "  TTFT p99 1,530", "In ms."]


def everything(stream: Any) -> str:
    document = {**sample(), "slo": []}
    show_summary(document, tables.console(stream))
    show_study(study(), [], stream)
    show_runs([{"id": "20261128-1", "says": "10 users 420 tok/s, " * 8}], stream)
    show_facts({"cpu": {"model": "x" * 30, "flags": ["word"] * 30}}, ["It is busy. " * 9], stream)
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())  # without colours


@pytest.mark.parametrize("terminal", [40, 80], indirect=True)
def test_nothing_is_wider_than_the_terminal_and_nothing_is_cut(
    terminal: Terminal, request: pytest.FixtureRequest
) -> None:
    text = everything(terminal)

    width = request.node.callspec.params["terminal"]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for value in ("510", "[479, 546]", "12,900", "[504, 551]", "905 tok/s"):
        assert value in text, value


def test_a_file_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = everything(io.StringIO())

    (heading,) = [line for line in text.splitlines() if line.split()[:2] == ["load", "done"]]
    assert heading.split()[-1] == "client"  # the last of all columns
    assert "…" not in text
    assert summary.console().width > 1000  # a captured standard error is no terminal


def test_words_are_wrapped_for_a_page_where_no_terminal_says_how_wide() -> None:
    lines = wrapped("word " * 100, io.StringIO(), first="  ", rest="    ").splitlines()

    assert lines[1].startswith("    word")
    assert 70 < max(map(len, lines)) <= 78


def test_a_live_line_is_divided_between_its_parts() -> None:
    line = "users 50  in flight 50  done 1,234  failed 0  ~1,234 tok/s  TTFT p50 510 ms"

    assert _folded(line, 100) == [line]
    assert _folded(line, 39) == [
        "users 50  in flight 50  done 1,234",
        "failed 0  ~1,234 tok/s  TTFT p50 510 ms",
    ]


@pytest.mark.parametrize("terminal", [40], indirect=True)
def test_a_block_leaves_out_what_has_no_value(terminal: Terminal) -> None:
    headings = [tables.Heading(name) for name in ("step", "runs", "minutes")]

    tables.show_blocks(
        tables.console(terminal), headings, [[tables.Cell(one) for one in ("in all", "", "47.9")]]
    )

    assert "runs" not in terminal.getvalue()
    assert "minutes" in terminal.getvalue()
