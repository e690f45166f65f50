"""What a worker finds out of a combination's copy: whether this machine can measure it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from llmdyno.errors import HomeError
from llmdyno.tune.copied import Copied
from llmdyno.tune.entries import Began
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    """A combination of vLLM's, whose lead has version 1.0."""
    spec = msgspec.structs.replace(Study(), engine="vllm", model="org/model")
    of_lead = tmp_path / "lead"
    of_lead.mkdir()
    ledger = Ledger(of_lead)
    ledger.append(Began(study="s", spec=spec, environment={}, engine_version="1.0"))
    (line,) = ledger.path.read_text().splitlines()
    team: Any = SimpleNamespace(
        lines=lambda after: [line][after:],
        summaries=lambda _: {},
        study="a-part",
        whole="the-whole",
    )
    return Copied(team, tmp_path / "copy")


def test_a_variable_that_is_wrong_ends_a_worker_and_is_no_reason_in_the_database(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNO_VLLM_PYTHON", "/no/such/python")

    with pytest.raises(HomeError, match="DYNO_VLLM_PYTHON=/no/such/python"):
        copied.lacks({}, ())


def test_an_engine_whose_environment_is_gone_meanwhile_is_here_no_more(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNO_VLLM_PYTHON", "/no/such/python")

    assert copied.replaced() == "it has vllm no more, the lead 1.0."
