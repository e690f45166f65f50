"""What every engine of ours owes: the shipped contract, and more; found because its file exists."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.engines import Engine, Launch, Step
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, check
from llmdyno.testing.engines import EngineContract

ENGINES = plugins.names("engines")
MODELS = {"openvino": "tiny", "mlc-llm": "HF://org/name"}  # others take any name of the hub


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return plugins.load("engines", request.param)


class TestOurs(EngineContract):
    @pytest.fixture(autouse=True, params=ENGINES)
    def of_each(self, request: pytest.FixtureRequest) -> None:
        self.engine = plugins.load("engines", request.param)
        self.model = MODELS.get(request.param, "org/name")


class TestTimed(EngineContract):
    engine: Engine = plugins.load("engines", "timed.engine")


class TestBuilt(EngineContract):
    engine: Engine = plugins.load("engines", "built.scripted")


def leaves_a_file(_model: str, _config: Config, folder: Path) -> tuple[Step, ...]:
    (folder / "written").write_text("by the question what is to be run")
    return ()


def listens_elsewhere(model: str, config: Config, **given: Any) -> Launch:
    return TestTimed.engine.launch(model, config, **{**given, "port": 1})


@pytest.mark.parametrize(
    ("test", "broken"),
    [
        ("test_its_name_loads_it", {"name": "built.scripted"}),
        ("test_it_says_how_to_get_it", {"install": ""}),
        (
            "test_knobs_have_names_of_their_own_and_say_what_they_do",
            {"knobs": TestTimed.engine.knobs * 2},
        ),
        ("test_a_build_only_says_what_to_run", {"build": leaves_a_file}),
        ("test_a_launch_binds_where_it_is_told", {"launch": listens_elsewhere}),
    ],
)
def test_a_broken_engine_breaks_the_contract(
    test: str, broken: dict[str, Any], tmp_path: Path
) -> None:
    members = ("name", "knobs", "install", "image", "version", "check", "build", "launch")
    whole = {name: getattr(TestTimed.engine, name) for name in members}
    contract: Any = EngineContract()
    contract.engine = SimpleNamespace(**{**whole, **broken})
    takes_folder = test.startswith(("test_a_build", "test_a_launch"))

    with pytest.raises(AssertionError):
        getattr(contract, test)(*((tmp_path,) if takes_folder else ()))


def test_the_file_names_the_engine(engine: Any) -> None:
    assert engine.name in ENGINES


def test_knobs_are_many_and_explained_in_sentences(engine: Any) -> None:
    assert len(engine.knobs) > 5
    for knob in engine.knobs:
        for words in (knob.does, knob.turn, knob.trades, knob.source):
            assert len(words) > 10, f"{knob.name}: {words!r}"


def test_what_a_knob_conflicts_with_is_there(engine: Any) -> None:
    everywhere = {
        knob.name
        for name in plugins.names("engines")
        for knob in plugins.load("engines", name).knobs
    }
    here = {knob.name for knob in engine.knobs}
    for knob in engine.knobs:
        named = set(re.findall(r"\w+", knob.conflicts)) & everywhere
        assert {name for name in named if "_" in name} <= here, knob.name
        assert knob.name not in named, knob.name


def test_a_mistyped_knob_has_a_near_one(engine: Any) -> None:
    knob = engine.knobs[0]
    with pytest.raises(UsageError, match="Did you mean"):
        check({knob.name + "x": 1}, engine.knobs)


def test_a_launch_can_be_probed(engine: Any) -> None:
    launch = engine.launch("tiny", {}, artifact=None, host="127.0.0.1", port=8123)

    assert "127.0.0.1" in launch.argv
    assert launch.endpoint in plugins.names("endpoints")
    assert launch.probe is not None
