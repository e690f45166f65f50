"""`dyno deploy`: a config of the flags, or a study's winner."""

from pathlib import Path

import pytest

import lab
from llmdyno import store
from llmdyno.cli.deploy import _winner
from llmdyno.errors import UsageError
from llmdyno.tune.entries import Began
from llmdyno.tune.ledger import Ledger


def test_the_winner_of_a_study_is_what_it_confirmed(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)

    stack, config, document = _winner(lab.STUDY, alone=True)

    assert (stack.engine.name, config) == ("timed.engine", {"itl_ms": 20})
    assert document["confirmation"]["verdict"] == "better"


def test_a_study_stands_alone(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)

    with pytest.raises(UsageError, match=r"says engine, front, model and settings; leave out"):
        _winner(lab.STUDY, alone=False)


def test_a_study_without_a_measurement_has_no_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / store.STUDIES / "new"
    folder.mkdir(parents=True)
    Ledger(folder).append(Began(study="new", spec=lab.spec(), environment={}, engine_version="1.0"))

    with pytest.raises(UsageError, match="nothing was measured yet"):
        _winner("new", alone=True)
