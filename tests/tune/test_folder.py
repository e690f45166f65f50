"""A study's folder: opened to go on, written at the end."""

import json
from pathlib import Path

import pytest

import lab
from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.tune.folder import open_study, stack_of, write_study
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.study import study_document


def test_a_document_is_not_lost_to_a_bundle_that_cannot_be_written(results: Path) -> None:
    folder = results / lab.STUDY
    subject = stack_of(lab.spec())
    document = study_document(folder, Ledger(folder), subject)
    (folder / "bundle").write_text("in its way")

    with pytest.raises(StorageError, match=f"{folder}/bundle"):
        write_study(folder, document, subject)

    assert json.loads((folder / store.STUDY).read_text())["confirmation"]["verdict"] == "better"


def test_a_study_is_opened_as_it_was_begun(results: Path) -> None:
    assert open_study(results / lab.STUDY) == lab.spec()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_holds_no_study_is_not_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study; `dyno runs` lists them"):
        open_study(tmp_path / name)


def test_a_study_without_a_winner_has_no_bundle(tmp_path: Path) -> None:
    stack = stack_of(lab.spec())

    written = write_study(tmp_path, {"best": None}, stack)

    assert written == {"best": None, "bundle": None}
    assert json.loads((tmp_path / store.STUDY).read_text()) == written
    assert not (tmp_path / store.BUNDLE).exists()
