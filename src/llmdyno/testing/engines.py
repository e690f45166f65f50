"""What every engine owes, as tests to inherit.

    from llmdyno.testing.engines import EngineContract
    from my_package.my_engine import ENGINE

    class TestMine(EngineContract):
        engine = ENGINE

Nothing is started: what an engine says is checked, not what its server does.
"""

import contextlib
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from llmdyno import plugins
from llmdyno.engines import Engine, Launch, Step, facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, accepts, at_least, check, default
from llmdyno.processes.diagnosis import FAILURES

__all__ = ("EngineContract",)

HOST, PORT = "127.0.0.1", 8123


class EngineContract:
    """The tests; a class that inherits them names the engine, and a model that it takes."""

    engine: Engine
    model: str = "org/name"  # one that `check` accepts, with all knobs at their defaults

    def test_its_name_loads_it(self) -> None:
        """`--engine NAME` must find it: a name of ours, or the module with its dots."""
        assert plugins.load("engines", self.engine.name) is self.engine

    def test_it_says_how_to_get_it(self) -> None:
        """Who has not installed it is told how."""
        version = self.engine.version()

        assert self.engine.install, "install is empty"
        assert version is None or version, "version() is '': return None if it is not installed"
        assert not self.engine.image or " " not in self.engine.image
        assert all(facts(self.engine).packages), "a package is empty"

    def test_knobs_have_names_of_their_own_and_say_what_they_do(self) -> None:
        """The guide shows all four texts of every knob."""
        names = [knob.name for knob in self.engine.knobs]

        assert len(names) == len(set(names)), "two knobs have one name"
        for knob in self.engine.knobs:
            texts = (knob.does, knob.turn, knob.trades, knob.source)
            assert all(texts), f"{knob.name}: a text is empty"
            assert knob.layer != "front", f"{knob.name}: an engine has no knobs of a front"

    def test_defaults_and_ranges_are_values_that_the_knob_takes(self) -> None:
        """What the tuner tries must not be refused."""
        for knob in self.engine.knobs:
            alone = msgspec.structs.replace(knob, needs=None)
            defaults = [value for _, value in knob.defaults if value is not None]
            for value in (*defaults, *knob.search):
                check({knob.name: value}, [alone])
            if knob.kind in {"int", "float"} and knob.search:
                low, high = map(float, knob.search)
                assert low < high, f"{knob.name}: search is (low, high)"
                assert low > 0 or not knob.search_log, f"{knob.name}: no ratio reaches {low}"
                multiple = knob.search_multiple
                whole = multiple == 1 or low % multiple == high % multiple == 0
                assert whole, f"{knob.name}: search holds no multiples of {multiple}"

    def test_the_search_can_turn_knobs_as_the_guide_says(self) -> None:
        """`when` names a bottleneck or "repeats", and a turn that the search may try."""
        for knob in self.engine.knobs:
            for trait, turn in knob.when:
                assert trait in {"queue", "prefill", "decode", "host", "kv", "repeats"}, knob.name
                is_number = knob.kind in {"int", "float"}
                values = ("raise", "lower") if is_number else (*knob.search, *knob.choices)
                assert turn in values, f"{knob.name}: {turn} is no turn of it"

    def test_newer_defaults_come_first(self) -> None:
        """The first row is the newest version's; each row holds from its version on."""
        for knob in self.engine.knobs:
            versions = [version for version, _ in knob.defaults]
            for newer, older in pairwise(versions):
                assert at_least(newer, older), f"{knob.name}: {older} stands below {newer}"
                assert not at_least(older, newer), f"{knob.name}: {newer} stands there twice"
            assert default(knob, None) == knob.defaults[0][1]

    def test_a_knob_that_needs_another_needs_one_that_is_there(self) -> None:
        """A knob that is named must exist and take the value."""
        by_name = {knob.name: knob for knob in self.engine.knobs}
        for knob in self.engine.knobs:
            if knob.needs is not None:
                other, value = knob.needs
                assert other in by_name, f"{knob.name} needs {other}, which is no knob"
                check({other: value}, [msgspec.structs.replace(by_name[other], needs=None)])
            assert not knob.instead or knob.instead in by_name, f"{knob.name}: {knob.instead}"

    def test_other_spellings_of_flags_are_those_of_knobs(self) -> None:
        """`--engine-arg` with such a flag is told which knob to set instead."""
        names = {knob.name for knob in self.engine.knobs}
        for flag, name in facts(self.engine).flag_aliases.items():
            assert flag.startswith("-"), f"{flag}: is no flag"
            assert name in names, f"{flag}: {name} is no knob"

    def test_wrong_names_and_values_are_refused_in_one_sentence(self) -> None:
        """A user mistypes; the sentence says what would be right."""
        for knob in self.engine.knobs[:1]:
            with pytest.raises(UsageError, match=f"{knob.name}x=1: no such knob"):
                check({f"{knob.name}x": 1}, self.engine.knobs)
            if knob.kind != "text":
                with pytest.raises(UsageError, match=f"{knob.name}=never: must be"):
                    check({knob.name: "never"}, self.engine.knobs)
            assert accepts(knob)

    def test_all_defaults_are_accepted(self) -> None:
        """A study begins with them. A refusal may only be a UsageError."""
        self.engine.check(self.model, {})
        for config in self._single_settings():
            with contextlib.suppress(UsageError):  # it may need another knob beside it
                self.engine.check(self.model, config)

    def test_a_build_only_says_what_to_run(self, tmp_path: Path) -> None:
        """The folder is filled by the commands, not by the question what they are."""
        for config in [{}, *self._single_settings("build")]:
            for step in self.engine.build(self.model, config, tmp_path):
                assert isinstance(step, Step)
                assert step.what, "a step must say what it does"
                assert step.argv, f"{step.what}: it runs nothing"
                _check_symptoms(step.symptoms)
        assert not list(tmp_path.iterdir()), "build() itself has written files"

    def test_a_launch_binds_where_it_is_told(self, tmp_path: Path) -> None:
        """Several servers share a machine; ours must be where it was sent."""
        built = tmp_path if self.engine.build(self.model, {}, tmp_path) else None
        launch = self.engine.launch(self.model, {}, artifact=built, host=HOST, port=PORT)

        assert isinstance(launch, Launch)
        assert any(HOST in word for word in launch.argv), f"{HOST} is not told to the server"
        assert any(str(PORT) in word for word in launch.argv), f"{PORT} is not told to the server"
        assert launch.url == f"http://{HOST}:{PORT}"
        assert launch.model, "requests must name a model"
        assert launch.health_path.startswith("/")
        assert launch.probe is None or launch.probe[0].startswith("/")
        for endpoint in (launch.endpoint, *launch.also):
            plugins.load("endpoints", endpoint)
        _check_symptoms(launch.symptoms)

    def test_a_launch_can_be_repeated(self, tmp_path: Path) -> None:
        """A server that is started again is the same server."""
        built = tmp_path if self.engine.build(self.model, {}, tmp_path) else None
        once, again = (
            self.engine.launch(self.model, {}, artifact=built, host=HOST, port=PORT)
            for _ in range(2)
        )

        assert once == again

    def _single_settings(self, layer: str = "") -> list[Config]:
        """Return a config for each value that the tuner may try alone."""
        return [
            {knob.name: value}
            for knob in self.engine.knobs
            if knob.needs is None and layer in {"", knob.layer}
            for value in _tried(knob)
        ]


def _tried(knob: Knob) -> tuple[bool | int | float | str, ...]:
    return knob.search or tuple(value for _, value in knob.defaults[:1] if value is not None)


def _check_symptoms(symptoms: tuple[tuple[str, str], ...]) -> None:
    for pattern, kind in symptoms:
        assert kind in FAILURES, f"{pattern}: '{kind}' is no class of failures"
