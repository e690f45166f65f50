"""A study that goes on with another version of its engine: which pairs its verdict rests on."""

from pathlib import Path

import pytest

from llmdyno.cli.rebuild import rebuild
from llmdyno.results import findings
from llmdyno.terminal.closing import closing_lines
from llmdyno.terminal.study import verdict_lines
from llmdyno.tune.folder import open_study
from llmdyno.tune.going_on import extended
from study_lab import StudyLab, fast

SINCE = "the engine's version: 1.0 before, 2.0 after"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    monkeypatch.setenv("FAULTY_VERSION", "1.0")
    return StudyLab(tmp_path / "s", monkeypatch)


def test_a_verdict_of_old_pairs_says_so_wherever_it_is_told(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lab.run(fast)
    assert before["confirmation"]["earlier_pairs"] == 0
    assert before["confirmation"]["moved_since"] == []
    assert "moved" not in before["outcome"]["said"]
    monkeypatch.setenv("FAULTY_VERSION", "2.0")

    document = lab.run(fast, elsewhere=True)

    assert lab.starts == []
    assert document["engine_version"] == "2.0"
    assert document["confirmation"]["earlier_pairs"] == 2
    assert document["confirmation"]["moved_since"] == [SINCE]
    words = f"all were measured before the study moved: {SINCE}"
    assert f"95 % intervals; {words})." in document["outcome"]["said"]
    assert words in verdict_lines(document)[0]
    assert f"; of 2 pairs {words}." in findings.verdict(document).sentence
    assert closing_lines(document)[-1] == f"Mind: of 2 pairs {words}"
    assert f"Confirmed in 2 interleaved pairs at 2 users ({words}): better" in lab.bundled()
    again, page = rebuild(lab.folder)
    assert again["confirmation"] == document["confirmation"]
    assert "of 2 pairs all were measured before the study moved" in page.read_text()


def test_pairs_of_two_places_are_told_apart(lab: StudyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.run(fast)
    monkeypatch.setenv("FAULTY_VERSION", "2.0")
    given = {"pairs": 3}

    more = extended(open_study(lab.folder), lab.study(**given), given, "s")
    document = lab.run(fast, more, elsewhere=True)

    assert document["confirmation"]["pairs"] == 3
    assert document["confirmation"]["earlier_pairs"] == 2
    assert (
        f"; 2 of them were measured before the study moved: {SINCE})"
        in (document["outcome"]["said"])
    )
