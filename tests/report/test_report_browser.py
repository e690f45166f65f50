"""The pages in a real browser: charts are drawn, nothing is fetched, nothing hostile runs."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

import compared_runs
from browser import CHROMIUM, drawn, opened, violations
from llmdyno import report
from llmdyno.results import comparison
from report_samples import GUIDE, level, study, summary, tuned_summary

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

AXE = os.environ.get("LLMDYNO_AXE")
HOSTILE = (
    """</script><script>document.title="owned"</script><img src=x onerror='document.title="o"'>"""
)


def test_a_study_draws_every_chart(tmp_path: Path) -> None:
    dom, console = opened(report.study_page(study(), GUIDE), tmp_path)
    assert console == []
    assert "could not be drawn" not in dom.split("<script")[0]
    marks = drawn(dom)
    assert marks["token_rate_by_users"] >= 6  # a bar a level and run
    assert marks["ttft_by_users"] >= 18  # three statistics each
    assert marks["token_rate_over_time"] >= 2 * 3 * 24
    assert marks["trials"] >= 25
    assert marks["confirmation_pairs"] >= 12
    assert marks["confirmation"] >= 2
    assert marks["ablation"] >= 2
    assert all(marks.values())


def test_a_run_and_a_comparison_draw_every_chart(tmp_path: Path) -> None:
    for name, page in (
        ("run", report.run_page(summary())),
        ("comparison", report.compare_page(summary(), tuned_summary())),
    ):
        folder = tmp_path / name
        folder.mkdir()
        dom, console = opened(page, folder)
        assert console == []
        marks = drawn(dom)
        assert len(marks) == 9
        assert all(marks.values())


def test_charts_are_drawn_where_values_are_missing(tmp_path: Path) -> None:
    broken = level(10, rate=400, ttft_ms=500)
    broken["token_rate"] = {"mean": 400.0}
    broken["ttft_ms"] = {"p50": 500.0}
    for sample in broken["samples"][3:9]:
        sample["ttft_ms_p50"] = None
    broken["window"] = None
    partly = level(50, rate=500, ttft_ms=900)
    del partly["token_rate"]["ci95"]
    dom, console = opened(report.run_page(summary([broken, partly])), tmp_path)
    assert console == []
    assert all(drawn(dom).values())


def test_a_search_of_failures_alone_is_drawn(tmp_path: Path) -> None:
    document = study()
    document["trials"] = [trial for trial in document["trials"] if trial["value"] is None]
    dom, console = opened(report.study_page(document, GUIDE), tmp_path)
    assert console == []
    assert drawn(dom)["trials"] == 3


def hostile(value: Any) -> Any:
    """Return the document with a hostile text in place of, or added to, every text."""
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) else value


def test_hostile_texts_are_shown_and_do_not_run(tmp_path: Path) -> None:
    plain = study()
    document = hostile(plain) | {"schema": plain["schema"]}
    document["confirmation"]["verdict"] = "better"
    document["best"]["config"][HOSTILE] = HOSTILE
    for side in ("baseline", "best"):
        for each in document[side]["summary"]["levels"]:
            each["requests"] |= {"failed": 1, "errors": {HOSTILE: 1}}
    dom, console = opened(report.study_page(document, GUIDE), tmp_path)
    assert console == []
    assert "<title>Tuning study · llmdyno</title>" in dom
    assert "<img" not in dom.split("<script")[0]
    assert "&lt;img src=x onerror=" in dom
    assert all(drawn(dom).values())


def compared(folder: Path) -> str:
    """Return the page that `dyno compare` writes of two runs."""
    before, after = (compared_runs.side(folder, name, seed=seed) for seed, name in enumerate("ab"))
    (found,) = comparison.document(before, [after])["comparisons"]
    return report.compare_page(before.first.summary, after.first.summary, found)


@pytest.mark.parametrize(
    ("kind", "dark"),
    [("study", False), ("study", True), ("run", False), ("comparison", False), ("compared", False)],
)
@pytest.mark.skipif(AXE is None, reason="LLMDYNO_AXE names no axe.min.js; npm pack axe-core has it")
def test_axe_finds_nothing_serious(kind: str, tmp_path: Path, *, dark: bool) -> None:
    pages = {
        "study": lambda: report.study_page(study(), GUIDE),
        "run": lambda: report.run_page(summary()),
        "comparison": lambda: report.compare_page(summary(), tuned_summary()),
        "compared": lambda: compared(tmp_path),
    }
    assert AXE is not None
    assert violations(pages[kind](), Path(AXE).read_text(), tmp_path, dark=dark) == []


def test_a_page_names_no_other_place_to_fetch_from(tmp_path: Path) -> None:
    page = report.study_page(study(), GUIDE)
    written = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r'(?:src|href)="(?!#|data:)', written) == []
    assert "default-src 'none'" in written
    dom, _ = opened(page, tmp_path)
    assert 'href="https://' not in dom.split("<script")[0]
