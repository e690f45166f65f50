"""The Markdown of a page: the same sentences as the page, and charts that are there."""

import re
from pathlib import Path

import pytest

from llmdyno import report
from llmdyno.report import markdown, pages
from llmdyno.report.html import set_page
from report.page_text import words
from report_samples import GUIDE, study, summary

ESCAPED = re.compile(r"\\([\\`*_{}\[\]<>#|~])")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts as files of two bytes: to draw them takes seconds, and one test does."""
    monkeypatch.setattr("llmdyno.report.drawing.still", lambda _: ("<svg/>", b"PN"))


@pytest.mark.usefixtures("undrawn")
def test_every_sentence_of_the_page_is_in_the_markdown(tmp_path: Path) -> None:
    page = pages.of_study(study(), GUIDE)
    text = markdown.set_page(page, tmp_path / "a", "a")
    plain = " ".join(ESCAPED.sub(r"\1", text).replace("&amp;", "&").split())
    shown = words(set_page(page))
    for section in page.sections:
        said = [*section.steps, *section.lines, *(one.says for one in section.answers)]
        said += [figure.says for figure in section.figures]
        said += [row.says for table in section.tables if table for row in table.rows]
        said += [
            cell.text
            for table in section.tables
            if table
            for row in table.rows
            for cell in row.cells
        ]
        for one in said:
            assert " ".join(one.split()) in plain
            assert " ".join(one.split()) in shown


@pytest.mark.usefixtures("undrawn")
def test_every_chart_is_named_and_written_twice(tmp_path: Path) -> None:
    text = report.study_markdown(study(), GUIDE, tmp_path / "a b", "../a b")
    names = re.findall(r"\]\(\.\./a%20b/(\w+)\.svg\)", text)
    assert names == re.findall(r"\]\(\.\./a%20b/(\w+)\.png\)", text)
    assert {file.name for file in (tmp_path / "a b").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("svg", "png")
    }
    assert len(names) == 14


@pytest.mark.usefixtures("undrawn")
def test_every_row_of_a_table_has_all_its_columns(tmp_path: Path) -> None:
    for text in (
        report.study_markdown(study(), GUIDE, tmp_path, "a"),
        report.run_markdown(summary(), tmp_path, "a"),
    ):
        tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
        assert tables
        for table in tables:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table


@pytest.mark.usefixtures("undrawn")
def test_what_a_server_says_is_text(tmp_path: Path) -> None:
    document = study()
    document["trials"][4]["failure"]["why"] = "a | b\n# no <img src=x> *bold* `c`"
    document["best"]["config"]["x"] = "`|`"
    text = report.study_markdown(document, GUIDE, tmp_path, "a")
    assert "a \\| b \\# no \\<img src=x\\> \\*bold\\* \\`c\\`" in text
    assert not re.search(r"(?<!\\)<img", text)


def test_a_chart_is_an_image(tmp_path: Path) -> None:
    page = pages.of_run(summary())
    first = [section for section in page.sections if section.name == "measured"]
    alone = pages.Page(
        title="t", subtitle="s", verdict=page.verdict, sections=first, doubts=["a doubt"]
    )
    text = markdown.set_page(alone, tmp_path, ".")
    assert "- a doubt" in text
    assert (tmp_path / "token_rate_by_users.svg").read_text().startswith("<svg")
    assert (tmp_path / "ttft_by_users.png").read_bytes().startswith(b"\x89PNG")
