"""The ledger: a line a config, on disk before the next one begins."""

import subprocess
from pathlib import Path

import msgspec
import pytest

import lab
from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.tune.entries import Began, Event, Out, Step
from llmdyno.tune.ledger import Ledger


def test_a_ledger_that_was_torn_is_read_without_mending(results: Path) -> None:
    folder = results / lab.STUDY
    with (folder / store.LEDGER).open("ab") as file:
        file.write(b'{"type":"st')
    before = lab.snapshot(folder)

    assert len(Ledger(folder).steps) == 9
    assert lab.snapshot(folder) == before


def test_an_append_after_a_torn_line_mends_it(results: Path) -> None:
    folder = results / lab.STUDY
    before = (folder / store.LEDGER).read_bytes()
    with (folder / store.LEDGER).open("ab") as file:
        file.write(b'{"type":"st')

    step = Step(phase="trial", number=1, config={"itl_ms": 7}, state="measured", value=2.0)
    Ledger(folder).append(step)

    again = Ledger(folder)
    assert (folder / store.LEDGER).read_bytes().startswith(before)
    assert again.steps[-1] == step
    assert again.find("trial", 1) == step
    assert len(again.of("trial")) == 2


def test_the_last_try_of_a_step_counts_and_the_winner_was_measured(results: Path) -> None:
    ledger = Ledger(results / lab.STUDY)
    ledger.append(Step(phase="best", number=1, config={"itl_ms": 9}, state="failed"))
    ledger.append(Step(phase="baseline", number=0, config={}, state="measured", value=9.0))

    winner, baseline = ledger.winner(), ledger.find("baseline", 0)

    assert winner is not None
    assert winner.config == {"itl_ms": 20}
    assert baseline is not None
    assert baseline.value == 9.0
    assert ledger.find("trial", 8) is None


@pytest.mark.parametrize("garbage", [b"no JSON", b"\0\0\0", b"{}", b"\xff", b'{"type":"step"}'])
def test_a_damaged_line_is_named_and_the_shown_command_goes_on_without_it(
    results: Path, garbage: bytes
) -> None:
    ledger = results / lab.STUDY / store.LEDGER
    whole = ledger.read_bytes()
    lines = whole.splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:2], garbage, b"\n", *lines[2:4], b"no\n", *lines[4:]]))

    with pytest.raises(StorageError, match=r"ledger\.jsonl, lines 3, 6: cannot be read") as failed:
        Ledger(results / lab.STUDY)

    said = str(failed.value)
    assert f"{len(lines)} other lines can be" in said
    mends, goes_on = said.rpartition("is lost: ")[2].split(" && ")
    subprocess.run(["sh", "-c", mends], check=True)
    assert ledger.read_bytes() == whole
    assert goes_on == f"dyno tune --resume {results / lab.STUDY}"


def test_a_study_whose_first_line_is_damaged_cannot_go_on(results: Path) -> None:
    ledger = results / lab.STUDY / store.LEDGER
    ledger.write_bytes(b"no JSON\n" + ledger.read_bytes().partition(b"\n")[2])

    with pytest.raises(StorageError, match=r"line 1: cannot be read: .* Begin another study\."):
        Ledger(results / lab.STUDY)


def test_what_was_begun_is_out_until_it_has_ended_and_again_once_its_failure_is_void(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Began(study="s", spec=lab.spec(), environment={}))
    for number in range(2):
        ledger.append(Out(phase="trial", number=number, config={"itl_ms": number}, device="GPU 0"))
    failed = Step(phase="trial", number=0, config={"itl_ms": 0}, state="failed")

    ledger.append(failed)
    assert [out.number for out in ledger.out] == [1]
    ledger.append(Out(phase="trial", number=0, config={"itl_ms": 0}, device="GPU 0", alone=True))
    assert [(out.number, out.alone) for out in ledger.out] == [(1, False), (0, True)]
    ledger.append(failed)
    ledger.append(Event(kind="machine", why="it broke", void=(("trial", 0, 0),)))

    assert [out.number for out in ledger.out] == [1, 0]
    assert [out.number for out in Ledger(tmp_path).out] == [1, 0]


def test_what_ran_at_once_is_charged_by_the_clock_and_not_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    step = Step(phase="trial", number=0, config={}, state="measured", start_s=5.0, measure_s=10.0)

    ledger.append(step)
    ledger.append(msgspec.structs.replace(step, number=1, wall_s=2.5))

    assert ledger.spent_s == 17.5


def test_lanes_are_those_of_the_place_where_the_study_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Event(kind="lane", why="it is slow", devices=("GPU 1",)))
    ledger.append(Event(kind="lanes", why="alike", devices=("GPU 0",)))
    assert list(ledger.lanes_left) == []  # what they measured is not there: its line was cut

    reference = Step(phase="reference", number=0, config={}, state="measured", device="GPU 0")
    ledger.append(reference)
    assert list(ledger.lanes_left) == ["GPU 0"]
    assert [event.why for event in ledger.lanes_left_out] == ["it is slow"]
    ledger.append(Event(kind="moved", why="another machine"))
    again = Ledger(tmp_path)
    assert (list(again.lanes_left), again.lanes_left_out) == ([], [])


def test_what_is_charged_counts_however_it_ends(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(results / lab.STUDY)
    before_s = ledger.spent_s
    seconds = iter([1.0, 8.5, 20.0, 21.0])
    monkeypatch.setattr("llmdyno.tune.ledger.monotonic", lambda: next(seconds))

    with ledger.charged("lm-eval asked it"):
        pass
    with pytest.raises(KeyboardInterrupt), ledger.charged("lm-eval asked it again"):
        raise KeyboardInterrupt

    assert ledger.spent_s - before_s == pytest.approx(8.5)
    again = Ledger(results / lab.STUDY)
    assert again.spent_s == pytest.approx(ledger.spent_s)
    assert [event.kind for event in again.events[-2:]] == ["asked", "asked"]
