"""A comparison for a pull request, and its table on the page."""

from pathlib import Path

import pytest

from compared_runs import side
from llmdyno.report import compare_page, comparison_table
from llmdyno.report.comparison_markdown import comparison_markdown
from llmdyno.results.comparison import document
from llmdyno.results.fail_on import parse_limits
from llmdyno.results.sides import Side
from report.page_text import headline, sections, words


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """A run, and one that is slower, of another URL."""
    folder: Path = tmp_path_factory.mktemp("runs")
    return side(folder, "a"), side(folder, "b|`x`", seed=1, slower=0.1)


def test_what_decides_comes_first_and_the_rest_is_folded(sides: tuple[Side, Side]) -> None:
    limits = parse_limits("token_rate:-5%")

    written = comparison_markdown(document(sides[0], [sides[1]], limits=limits))

    lines = written.splitlines()
    assert lines[0] == "## Benchmark against `a`"
    assert lines[2].startswith("❌ --fail-on failed: token\\_rate:-5% at 2 users")
    assert lines[4] == "### `b¦'x'`"
    assert lines[6].startswith("🔴 **Worse: token rate -9.")
    first = written.index("| 2 users | token rate |")
    assert first < written.index("<details><summary>All metrics</summary>")
    assert written.count("\n| --- ") == 2
    assert written.endswith("\n")


def test_every_row_of_a_table_has_as_many_cells(sides: tuple[Side, Side]) -> None:
    written = comparison_markdown(document(sides[0], [sides[1]]))

    rows = [line.replace("\\|", "") for line in written.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8}


def test_the_page_has_the_verdicts(sides: tuple[Side, Side]) -> None:
    (found,) = document(sides[0], [sides[1]])["comparisons"]

    page = compare_page(sides[0].first.summary, sides[1].first.summary, found)
    assert headline(page) == found["said"]
    assert "compared" in sections(page)
    assert "One run each: what differs between two starts" in words(page)
    assert "not alike" not in words(page)
    table = comparison_table.compared(found)
    verdict = comparison_table.verdict_of(found)

    assert (verdict.tone, verdict.sentence) == ("worse", found["said"])
    assert table.rows[0].heads == (("2 users", len(table.rows)), ("token rate", 1))
    assert table.rows[0].cells[-1].text == "worse"
    assert table.rows[1].heads[0][0] == "TTFT p50"
