"""The ten questions, the size and the table of a page, by the page of a kept study."""

import re
from pathlib import Path

import pytest

import lab
from llmdyno import report
from llmdyno.cli.rebuild import rebuild
from report.page_text import words
from report_samples import GUIDE, level, study, summary

LIMIT_BYTES = 3_000_000


@pytest.fixture(scope="module")
def kept(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study that lies on disk, made again from its ledger and journals."""
    out = tmp_path_factory.mktemp("report")
    return rebuild(made / lab.STUDY, out / "study")[1].read_text()


made = lab.made


def answer(page: str, question: str) -> str:
    found = re.search(rf"<dt>[^\n]*{re.escape(question)}.*?<dd>(.*?)</dd>", page, flags=re.DOTALL)
    assert found, question
    return words(found[1])


def part(page: str, section: str) -> str:
    found = re.search(rf'<section id="{section}".*?</section>', page, flags=re.DOTALL)
    assert found, section
    return words(found[0])


def test_ten_questions_are_answered_by_the_page_alone(kept: str) -> None:
    ten = [
        ("What was run?", r"m on timed\.engine 1\.0 behind native\. Load: 2 users"),
        ("On what?", r"Not known: the machine was not written down"),
        ("What changed?", r"1 setting\. itl_ms: 40 \(default\) → 20"),
        ("By how much?", r"2 interleaved pairs .* the token rate is twice as high .* tok/s"),
        ("How sure is that?", r"Verdict: better\. 2 pairs of runs.*interval leaves out"),
        ("Which setting did it?", r"One setting differs, itl_ms, so whatever differs is its doing"),
        ("What did it cost?", r"Nothing that was measured got clearly worse\..*no --price"),
        ("How near is the limit?", r"How near it is to the machine's limit is not known"),
        ("What was not tested?", r"settings, which kept one value .*; other loads than 2 users"),
        ("How is it repeated?", r"dyno tune study\.toml, with timed\.engine 1\.0, seed 0\."),
    ]
    for question, expected in ten:
        assert re.search(expected, answer(kept, question)), (question, answer(kept, question))
    assert len(re.findall(r"<dt>.*\?", kept)) == len(ten)


def test_the_page_says_the_rest_of_each_answer(kept: str) -> None:
    assert "cat > study.toml <<'END' engine = \"timed.engine\"" in part(kept, "repeat")
    assert "dyno serve \\ --engine timed.engine" in part(kept, "repeat")
    assert "itl_ms 40 (default) 20 The token rate is twice as high" in part(kept, "settings")
    assert "in the order A B B A" in part(kept, "method")
    assert "2 users decode" in part(kept, "why")
    assert "Of 1 trial none failed." in part(kept, "failures")
    assert "itl_ms = 20" in part(kept, "trials")
    for chart in ("ttft_distribution", "confirmation_pairs"):
        assert f'id="chart-{chart}"' in kept


def test_every_question_leads_to_its_section(kept: str) -> None:
    targets = re.findall(r'href="#([\w-]+)"', kept)
    assert set(targets) <= set(re.findall(r'id="([\w-]+)"', kept))
    assert {"repeat", "untested", "why", "settings", "measured", "doubts"} <= set(targets)


def test_a_study_of_five_minutes_and_three_levels_is_below_three_megabytes() -> None:
    levels = [level(users, rate=9 * users, ttft_ms=500, duration_s=300) for users in (10, 50, 100)]
    document = study()
    for arm in ("baseline", "best"):
        document[arm]["summary"] = summary(levels)
    assert len(report.study_page(document, GUIDE).encode()) < LIMIT_BYTES


def test_settings_stand_below_their_trial_in_full(kept: str) -> None:
    long = "x" * 300
    document = study()
    document["trials"][0]["config"] = {"speculative_config": long}
    page = report.study_page(document, GUIDE)
    assert f"<code>speculative_config = {long}</code>" in page
    assert "…" not in words(kept)
