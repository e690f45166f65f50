"""The ledger: a line a config, on disk before the next one begins."""

from pathlib import Path

import pytest

import lab
from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.tune.ledger import Ledger, Step


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


def test_a_line_that_cannot_be_read_is_named(results: Path) -> None:
    ledger = results / lab.STUDY / store.LEDGER
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join([*lines[:2], "no JSON\n", *lines[2:]]))

    with pytest.raises(StorageError, match=r"ledger\.jsonl, line 3: cannot be read"):
        Ledger(results / lab.STUDY)
