"""The generated parts of docs/ are what would be generated, and hold every row."""

from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.cli import flags, tables
from llmdyno.cli.plan import plan_flags
from llmdyno.results.metrics import BY_NAME

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return tables.pages()


def test_the_pages_are_what_would_be_generated(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        assert (DOCS / name).read_text() == text, f"{name}: run `make docs`"
    for path in DOCS.rglob("*.md"):
        assert tables.regions(path.read_text()) == path.read_text(), f"{path}: run `make docs`"


def test_no_page_is_left_of_an_engine_that_is_gone(pages: dict[str, str]) -> None:
    assert {f"knobs/{path.name}" for path in (DOCS / "knobs").glob("*.md")} <= set(pages)


def test_every_knob_has_a_heading_of_its_own(pages: dict[str, str]) -> None:
    for kind in ("engines", "fronts"):
        for name in plugins.names(kind):
            for knob in plugins.load(kind, name).knobs:
                assert pages[f"knobs/{name}.md"].count(f"\n## `{knob.name}`\n") == 1, knob.name


def test_every_metric_and_every_key_is_there(pages: dict[str, str]) -> None:
    metrics, keys = pages["metrics.md"], pages["keys.md"]

    for row in BY_NAME.values():
        assert f"\n`{row.name}`\n" in metrics
    for field in (*flags.study_flags(in_file=True), *plan_flags(in_file=True)):
        assert f"| `{field.key}` |" in keys


def test_the_regions_stand_in_the_pages_that_people_write() -> None:
    for page in ("bench", "faults", "doubts"):
        assert "<!-- generated: " in (DOCS / f"{page}.md").read_text()


def test_a_stale_region_is_written_anew(
    tmp_path: Path, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "pages", lambda: pages)
    page = tmp_path / "mine.md"
    page.write_text("before\n<!-- generated: faults -->\nold\n<!-- end -->\nafter\n")

    tables.write(tmp_path)

    text = page.read_text()
    assert text.startswith("before\n<!-- generated: faults -->\n| class |")
    assert text.endswith("|\n<!-- end -->\nafter\n")
    assert "old" not in text
    assert (tmp_path / "knobs" / "vllm.md").is_file()


def test_a_region_of_an_unknown_name_is_a_fault() -> None:
    with pytest.raises(KeyError):
        tables.regions("<!-- generated: nothing -->\n<!-- end -->")
