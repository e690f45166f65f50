"""What a start costs, as an earlier study of the same stack has paid it."""

from pathlib import Path

import pytest

import lab
from llmdyno import store
from llmdyno.cli.flags import study_spec
from llmdyno.tune.earlier import known_costs
from llmdyno.tune.folder import stack_of
from llmdyno.tune.runner import Runner
from studies import unheard


def runner(model: str) -> Runner:
    study = study_spec({"engine": "timed.engine", "model": model, "users": "2"})
    return Runner(study, Path("s"), stack_of(study), unheard())


def test_a_start_costs_what_an_earlier_study_has_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lab.write_study(store.STUDIES / "earlier")
    ledger = store.STUDIES / "earlier" / store.LEDGER
    ledger.write_text(ledger.read_text().replace('"start_s":0.0', '"start_s":12.0'))

    known_from, found = known_costs(runner("m"))

    assert (known_from, found.start_s) == (str(store.STUDIES / "earlier"), 12.0)
    assert known_costs(runner("another"))[0] is None
