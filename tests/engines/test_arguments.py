"""What our launches say against the servers' own tables of arguments, version by version.

tests/engines/arguments/NAME-VERSION.json holds the arguments of one version as its source declares
them: flag, then type, default and, where it has them, choices. history.json holds the defaults of
the flags behind our knobs in older versions; a flag that is not in a version's row did not exist.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.engines.vllm import _RENAMED
from llmdyno.knobs import Knob, Value, default

FOLDER = Path(__file__).parent / "arguments"
TABLES = {path.stem: json.loads(path.read_text())["arguments"] for path in FOLDER.glob("*-*.json")}
HISTORY: dict[str, dict[str, dict[str, Any]]] = json.loads((FOLDER / "history.json").read_text())
# Declared as unset, then decided: vllm/config/cache.py has true, for all models that generate.
DECIDED = {("vllm", "enable_prefix_caching"): True}
VARIABLES = {("tgi", "attention"), ("tgi", "prefix_caching")}  # of the environment, not flags
TYPES = {"int": int, "float": float}


def engine_of(table: str) -> tuple[Engine, str]:
    """Return the engine of a table and the version it is of."""
    name, _, version = table.rpartition("-")
    return plugins.load("engines", name), version


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def values(knob: Knob) -> tuple[Value, ...]:
    """Return values that show how a knob is written: all choices, both ends of a range."""
    if knob.kind == "bool":
        return (True, False)
    if knob.kind == "choice":
        return knob.choices
    ends = [end for end in (knob.low, knob.high) if end is not None] or [1]
    return tuple(int(end) if knob.kind == "int" else float(end) for end in ends)


def said(argv: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Yield the flags of a command line, each with its value; MLC-LLM packs many into one."""
    start = next(at for at, word in enumerate(argv) if word.startswith("--"))
    for at in range(start, len(argv)):
        if not argv[at].startswith("--"):
            continue
        value = argv[at + 1] if at + 1 < len(argv) and not argv[at + 1].startswith("--") else None
        if argv[at] == "--overrides":
            assert value is not None
            for pair in value.split(";"):
                name, _, text = pair.partition("=")
                yield f"--overrides {name}", text
        else:
            yield argv[at], value


def fits(row: list[Any], value: str | None) -> bool:
    """Say whether an argument of a table takes the value."""
    kind, _, *choices = row
    if kind in {"bool", "switch"} or value is None:
        return kind in {"bool", "switch"} and value is None
    if choices:
        return value in map(str, choices[0])
    if kind in TYPES:
        TYPES[kind](value)
    return True


def test_there_is_a_table_for_each_engine_that_has_a_command_line_of_its_own() -> None:
    # TensorRT-LLM is told by a document: test_llm_args.py.
    of_documents = {path.stem.replace("_", "-") for path in FOLDER.glob("*_*.json")}
    told = {engine_of(table)[0].name for table in TABLES} | of_documents

    assert told == {*plugins.names("engines")} - {"openvino"}


@pytest.mark.parametrize("table", TABLES)
def test_the_server_takes_all_that_a_launch_can_say(table: str) -> None:
    engine, version = engine_of(table)
    arguments = TABLES[table]
    for knob in engine.knobs:
        if number(knob.defaults[-1][0]) > number(version):
            continue  # a later version's
        for value in values(knob):
            launch = engine.launch(
                "org/model", {knob.name: value}, artifact=None, host="127.0.0.1", port=8000
            )
            flags = dict(said(launch.argv))
            for flag, text in flags.items():
                positive = flag if flag in arguments else flag.replace("--no-", "--", 1)
                assert positive in arguments, f"{knob.name}={value}: {table} has no {flag}"
                assert flag == positive or arguments[positive][0] == "bool"
                assert fits(arguments[positive], text), f"{flag} {text}: {arguments[positive]}"


@pytest.mark.parametrize("table", TABLES)
def test_a_setting_changes_what_is_said(table: str) -> None:
    engine, _ = engine_of(table)
    plain = engine.launch("org/model", {}, artifact=None, host="127.0.0.1", port=8000)
    for knob in engine.knobs:
        changed = [
            engine.launch(
                "org/model", {knob.name: value}, artifact=None, host="127.0.0.1", port=8000
            )
            for value in values(knob)
        ]
        assert any(
            (launch.argv, launch.environment) != (plain.argv, plain.environment)
            for launch in changed
        ), knob.name


@pytest.mark.parametrize("table", TABLES)
def test_our_defaults_are_the_servers(table: str) -> None:
    engine, version = engine_of(table)
    for knob in engine.knobs:
        since = number(knob.defaults[-1][0])
        if (engine.name, knob.name) in VARIABLES or since > number(version):
            continue
        declared = TABLES[table][_flag(engine, knob, TABLES[table])][1]
        ours = default(knob, version)
        decided = DECIDED.get((engine.name, knob.name))
        assert ours in {declared, decided}, f"{knob.name}: ours {ours}, theirs {declared}"


@pytest.mark.parametrize(
    ("name", "version"), [(name, version) for name in HISTORY for version in HISTORY[name]]
)
def test_our_defaults_are_those_of_each_version(name: str, version: str) -> None:
    engine: Engine = plugins.load("engines", name)
    theirs = HISTORY[name][version]
    for knob in engine.knobs:
        flag = _flag(engine, knob, theirs)
        since = number(knob.defaults[-1][0])
        assert (flag in theirs) == (since <= number(version)), f"{knob.name} in {version}"
        if flag in theirs and (name, knob.name) not in DECIDED:
            ours = default(knob, version)
            assert ours == theirs[flag], f"{knob.name}: ours {ours}, theirs {theirs[flag]}"


def _flag(engine: Engine, knob: Knob, arguments: dict[str, Any]) -> str:
    """Return the flag behind a knob."""
    if engine.name == "vllm" and knob.name in _RENAMED:
        return _RENAMED[knob.name]
    packed = f"--overrides {knob.name}"
    return packed if packed in arguments else "--" + knob.name.replace("_", "-")
