"""How a command's help stands on the terminal."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from llmdyno.cli.app import COMMANDS, load
from llmdyno.cli.help import headed


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its name."""
    for name in COMMANDS:
        command = load(name)
        inner = getattr(command, "commands", {})
        yield from ((f"{name} {sub}", one) for sub, one in inner.items())
        if not inner:
            yield name, command


def help_of(name: str, command: Any) -> str:
    text: str = command.get_help(typer.Context(command, info_name=f"dyno {name}"))
    return text


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_a_value_is_called_by_what_it_is(name: str, command: Any) -> None:
    for one in command.params:
        if one.param_type_name == "option" and not one.is_flag:
            assert one.metavar, f"dyno {name} {one.opts[0]}: its help says <str> or <int>"


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("compare", "dyno compare [OPTIONS] NAME..."),
        ("report", "dyno report [OPTIONS] NAME..."),
        ("knobs", "dyno knobs [OPTIONS] [ENGINE] [KNOB]"),
        ("tune", "dyno tune [OPTIONS] [FILE]"),
        ("baseline set", "dyno baseline set [OPTIONS] NAME RUN"),
        ("artifacts remove", "dyno artifacts remove [OPTIONS] IDS..."),
    ],
)
def test_the_usage_says_what_may_be_left_out_and_what_may_be_several(name: str, usage: str) -> None:
    assert f"Usage: {usage}\n" in help_of(name, dict(commands())[name])


def test_a_long_help_has_headings() -> None:
    found = {name: [heading for heading, _ in headed(load(name).params)] for name in COMMANDS}

    assert (
        found["bench"] == "Server Load Workload Goal Repeats Client Connection Cost Results".split()
    )
    assert (
        found["tune"] == "Server Goal Answers Search Proof Cost Load Workload Study Results".split()
    )
    assert found["serve"] == ["Options"]


@pytest.mark.parametrize("name", ["bench", "tune", "plan"])
def test_no_flag_is_lost_under_a_heading(name: str) -> None:
    command = load(name)

    shown = {one.name for _, flags in headed(command.params) for one in flags}
    assert shown == {one.name for one in command.params if one.param_type_name == "option"}


def test_what_serves_takes_one_engine_and_a_study_several() -> None:
    metavar = {
        name: next(one.metavar for one in load(name).params if one.name == "engine")
        for name in ("serve", "build", "deploy", "tune")
    }

    assert metavar == {
        "serve": "NAME",
        "build": "NAME",
        "deploy": "NAME",
        "tune": "NAME[,NAME...]",
    }
