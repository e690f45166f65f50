"""A study that goes on with another version of its engine: which pairs its verdict rests on."""

from pathlib import Path

import msgspec
import pytest

from lab import write_study
from llmdyno.cli.rebuild import rebuild
from llmdyno.engines._wrapped import WrappedEngine
from llmdyno.errors import DynoError, HomeError, UsageError
from llmdyno.results import findings, verdicts
from llmdyno.store import LEDGER
from llmdyno.terminal.closing import closing_lines
from llmdyno.terminal.study import verdict_lines
from llmdyno.tune import going_on
from llmdyno.tune.entries import Out, Step
from llmdyno.tune.folder import open_study, stack_of
from llmdyno.tune.going_on import extended
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.runner import Runner
from studies import unheard
from study_lab import Start, StudyLab, fast

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
    pairs = f"both pairs were measured before the study moved: {SINCE}"
    assert f"; {pairs}." in findings.verdict(document).sentence
    assert closing_lines(document)[-1] == f"Mind: {pairs}"
    assert f"Confirmed in 2 interleaved pairs at 2 users ({words}): better" in lab.bundled()
    again, page = rebuild(lab.folder)
    assert again["confirmation"] == document["confirmation"]
    assert "Both pairs were measured before the study moved" in page.read_text()


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
    said = f"; 2 of 3 pairs were measured before the study moved: {SINCE}"
    assert said in findings.verdict(document).sentence


def test_a_study_that_may_not_go_on_has_not_moved(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(fast)
    rename_knob(lab.folder / LEDGER)
    before = (lab.folder / LEDGER).read_bytes()
    monkeypatch.setenv("FAULTY_VERSION", "2.0")

    assert "brisk=true was measured" in str(lab.fails(fast, open_study(lab.folder), elsewhere=True))

    assert (lab.folder / LEDGER).read_bytes() == before


def rename_knob(ledger: Path) -> None:
    """Let what was measured have another knob, as if the engine had no such one any more."""
    first, *steps = ledger.read_text().splitlines(keepends=True)
    ledger.write_text(first + "".join(one.replace('"fast":', '"brisk":') for one in steps))


def test_what_failed_with_a_knob_that_is_gone_keeps_no_study_from_going_on(lab: StudyLab) -> None:
    def dies(start: Start) -> tuple[float, float] | str:
        return "died" if start.config.get("fast") else (20.0 - len(start.config), 20.0)

    lab.run(dies, lab.study(search="fast,itl_ms", trials=4))
    rename_knob(lab.folder / LEDGER)
    failed = [one for one in lab.steps if one.config.get("brisk")]
    assert {one.state for one in failed} == {"failed"}

    document = lab.run(dies, open_study(lab.folder))

    assert document["outcome"]["state"] == "confirmed"
    assert lab.starts == []


@pytest.mark.parametrize(
    "again",
    [
        [
            Step(phase="trial", number=8, config={"brisk": True}, state="pruned"),
            Step(phase="trial", number=9, config={"brisk": True}, state="failed"),
        ],
        [Out(phase="trial", number=0, config={"brisk": True}, device="GPU 0")],
    ],
    ids=["worked", "begun"],
)
def test_what_is_to_be_measured_with_a_knob_that_is_gone_is_refused(
    lab: StudyLab, again: list[Step | Out]
) -> None:
    lab.run(fast)
    ledger = Ledger(lab.folder)
    going_on.check_knobs(ledger, stack_of(lab.study()).knobs, "1.0")
    for entry in again:
        ledger.append(entry)

    with pytest.raises(UsageError, match=r"brisk=true is to be measured, and .* no such knob"):
        going_on.check_knobs(ledger, stack_of(lab.study()).knobs, "1.0")


@pytest.mark.parametrize(
    ("earlier", "pairs", "moved", "pairs_moved"),
    [
        (0, 3, "", ""),
        (1, 1, "it was", "the only pair was"),
        (1, 3, "1 of them was", "1 of 3 pairs was"),
        (2, 2, "all were", "both pairs were"),
        (3, 3, "all were", "all 3 pairs were"),
    ],
)
def test_each_number_of_old_pairs_is_told_in_plain_words(
    earlier: int, pairs: int, moved: str, pairs_moved: str
) -> None:
    found = verdicts.confirmed(
        {"confirmation": {"pairs": pairs, "earlier_pairs": earlier, "moved_since": ["x"]}}
    )
    rest = " measured before the study moved: x" if earlier else ""
    assert (found.moved, found.pairs_moved) == (moved + rest, pairs_moved + rest)


class Gone(WrappedEngine):
    """An engine whose environment was removed while the study ran."""

    def version(self) -> str | None:
        raise HomeError("DYNO_IT_PYTHON=/gone: is no Python.")


def test_an_engine_whose_environment_is_gone_meanwhile_says_how_the_study_goes_on(
    tmp_path: Path,
) -> None:
    """Status 2 would say that nothing was started."""
    folder = tmp_path / "s"
    write_study(folder)
    study = open_study(folder)
    stack = stack_of(study)
    runner = Runner(
        study, folder, msgspec.structs.replace(stack, engine=Gone(stack.engine)), unheard()
    )

    with pytest.raises(DynoError, match=r"is no Python\. .* go on with: dyno tune --resume") as end:
        runner.look_around()

    assert end.value.exit_status == 3
