"""What every engine owes, whichever it is: found because its file exists."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, accepts, at_least, check, default
from llmdyno.processes.diagnosis import FAILURES

ENGINES = plugins.names("engines")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return plugins.load("engines", request.param)


def test_the_file_names_the_engine(engine: Any) -> None:
    assert engine.name in ENGINES


def test_knobs_have_names_of_their_own_and_say_what_they_do(engine: Any) -> None:
    names = [knob.name for knob in engine.knobs]

    assert len(names) == len(set(names)) > 5
    for knob in engine.knobs:
        for words in (knob.does, knob.turn, knob.trades, knob.source):
            assert len(words) > 10, f"{knob.name}: {words!r}"


def test_defaults_and_ranges_are_values_that_the_knob_takes(engine: Any) -> None:
    for knob in engine.knobs:
        values = [value for _, value in knob.defaults if value is not None]
        for value in (*values, *knob.search):
            alone = Knob(**{**_fields(knob), "needs": None})
            check({knob.name: value}, [alone])
        if knob.kind in {"int", "float"} and knob.search:
            low, high = knob.search
            assert low < high, knob.name
        if knob.search_log:
            assert knob.search[0] > 0, knob.name


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


def test_newer_defaults_come_first(engine: Any) -> None:
    for knob in engine.knobs:
        versions = [version for version, _ in knob.defaults]
        for newer, older in pairwise(versions):
            assert at_least(newer, older), knob.name
            assert not at_least(older, newer), knob.name
        assert default(knob, None) == knob.defaults[0][1]


def test_a_knob_that_needs_another_needs_one_that_is_there(engine: Any) -> None:
    by_name = {knob.name: knob for knob in engine.knobs}
    for knob in engine.knobs:
        if knob.needs is not None:
            other, value = knob.needs
            check({other: value}, [by_name[other]])


def test_wrong_names_and_values_are_refused_in_one_sentence(engine: Any) -> None:
    knob = engine.knobs[0]
    with pytest.raises(UsageError, match="Did you mean"):
        check({knob.name + "x": 1}, engine.knobs)
    with pytest.raises(UsageError, match=f"{knob.name}=never: must be"):
        check({knob.name: "never"}, engine.knobs)
    assert accepts(knob)


def test_a_launch_binds_where_it_is_told_and_can_be_probed(engine: Any) -> None:
    launch = engine.launch("tiny", {}, artifact=None, host="127.0.0.1", port=8123)

    assert "127.0.0.1" in launch.argv
    assert any("8123" in word for word in launch.argv)
    assert launch.url == "http://127.0.0.1:8123"
    assert launch.endpoint in plugins.names("endpoints")
    assert launch.probe is not None
    assert {kind for _, kind in launch.symptoms} <= set(FAILURES)


def test_a_build_only_says_what_to_run(engine: Any, tmp_path: Path) -> None:
    configs = [{}] + [
        {knob.name: value}
        for knob in engine.knobs
        if knob.layer == "build" and knob.needs is None
        for value in knob.search
    ]
    for config in configs:
        for step in engine.build("tiny", config, tmp_path):
            assert step.what
            assert step.argv
            assert {kind for _, kind in step.symptoms} <= set(FAILURES)
    assert not list(tmp_path.iterdir())


def _fields(knob: Knob) -> dict[str, Any]:
    return {name: getattr(knob, name) for name in knob.__struct_fields__}
