"""What goes to a file is what rich would write there, without rich."""

import io
import random
import subprocess
import sys

import pytest
from rich import markup
from rich.console import Console
from rich.errors import MarkupError

from llmdyno.terminal import plain, tables
from llmdyno.terminal.plain import Cell, Heading, Plain
from llmdyno.terminal.summary import show_summary
from report_samples import summary as sample


def test_markup_is_read_and_escaped_as_rich_does() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices("a[]\\/ #@b1", k=rng.randrange(12))) for _ in range(2_000)]

    for text in texts:
        assert plain.escape(text) == markup.escape(text)
        assert plain.unmarked(plain.escape(text)) == markup.render(markup.escape(text)).plain
        try:
            expected = markup.render(text).plain
        except MarkupError:  # it closes what was never opened
            continue
        assert plain.unmarked(text) == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_table_is_the_one_that_rich_draws(seed: int) -> None:
    rng = random.Random(seed)
    columns = rng.randrange(2, 6)
    headings = [Heading("h" * rng.randrange(6, 9)) for _ in range(columns)]
    rows = [
        [Cell(f"[red]{'x' * rng.randrange(9)}[/]", rng.choice(["", r"\[1, 2]"])) for _ in headings]
        for _ in range(rng.randrange(4))
    ]
    caption = rng.choice(["", "In ms.", "In ms,\nof all."])
    drawn, written = io.StringIO(), io.StringIO()

    tables.show_table(Console(file=drawn, width=500), headings, rows, caption)
    tables.show_table(Plain(written), headings, rows, caption)

    assert written.getvalue().splitlines() == [
        line.rstrip() for line in drawn.getvalue().splitlines()
    ]


def test_a_summary_is_the_same_by_both() -> None:
    document = {**sample(), "slo": []}
    drawn, written = io.StringIO(), io.StringIO()

    show_summary(document, Console(file=drawn, width=10_000, highlight=False))
    show_summary(document, Plain(written))

    assert written.getvalue().splitlines() == [
        line.rstrip() for line in drawn.getvalue().splitlines()
    ]


def test_lines_are_drawn_of_what_the_file_can_hold() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="latin-1", write_through=True)

    tables.show_table(Plain(out), [Heading("load")], [[Cell("10 users")]])

    assert raw.getvalue() == b"\n     load\n --------\n 10 users\n\n"


def test_a_block_has_its_values_below_each_other() -> None:
    out = io.StringIO()

    tables.show_blocks(
        Plain(out),
        [Heading("load"), Heading("p50"), Heading("p99", "TTFT p99")],
        [
            [Cell("10 users"), Cell("7"), Cell("9", r"\[8, 10]")],
        ],
    )

    assert out.getvalue() == "\n10 users\n  p50      7\n  TTFT p99 9 [8, 10]\n"


def test_colours_come_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(tables.console(io.StringIO()), Plain)

    monkeypatch.setenv("FORCE_COLOR", "1")
    assert tables.console(io.StringIO()).is_terminal


def test_what_writes_a_summary_imports_no_rich() -> None:
    code = (
        "import sys; import llmdyno.terminal.summary, llmdyno.terminal.live;"
        "sys.exit('rich' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
