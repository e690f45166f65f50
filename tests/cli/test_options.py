"""What typer is told of a command: own options and those of fields."""

from typing import Annotated

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from llmdyno.cli.options import BARE, Command, command, divided, option, with_values
from llmdyno.flag import TEXT, TRUTH, WHOLE, Flag, all_fields


class Spec(msgspec.Struct, kw_only=True):
    url: Annotated[str, Flag(TEXT, "Base URL.")]
    users: Annotated[int, Flag(WHOLE, "Users.", ("-c", "--concurrency"), metavar="N")] = 10
    scrape: Annotated[bool, Flag(TRUTH, "Read metrics.")] = True
    quiet: Annotated[bool, Flag(TRUTH, "Print nothing.")] = False


def app_of(called: Command) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(called)
    return app


@pytest.fixture
def heard() -> list[object]:
    return []


@pytest.fixture
def app(heard: list[object]) -> typer.Typer:
    @command(all_fields(Spec))
    def called(
        given: dict[str, object],
        host: Annotated[str, option("--host", help="Address.", metavar="ADDRESS")] = "127.0.0.1",
    ) -> None:
        """Do it."""
        heard.extend((given, host))

    return app_of(called)


def test_what_was_not_given_is_not_there(app: typer.Typer, heard: list[object]) -> None:
    assert CliRunner().invoke(app, ["--url", "u"]).exit_code == 0

    assert heard == [{"url": "u"}, "127.0.0.1"]


def test_what_was_given_comes_by_the_flags_name(app: typer.Typer, heard: list[object]) -> None:
    arguments = ["--url", "u", "--concurrency", "3", "--no-scrape", "--quiet", "--host", "h"]

    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert heard == [{"url": "u", "users": 3, "scrape": False, "quiet": True}, "h"]


def test_the_help_has_names_values_and_defaults_once(app: typer.Typer) -> None:
    output = CliRunner().invoke(app, ["--help"]).output

    assert "Do it." in output
    for line in (
        "--url NAME Base URL. [required]",
        "-c, --users, --concurrency N Users. [10]",
        "--scrape / --no-scrape Read metrics. [yes]",
        "--quiet Print nothing. --host ADDRESS Address. [127.0.0.1]",
    ):
        assert line in " ".join(output.split())


@pytest.mark.parametrize("arguments", [[], ["--url", "u", "-c", "many"], ["--url", "u", "--no"]])
def test_wrong_flags_do_not_reach_the_command(
    arguments: list[str], app: typer.Typer, heard: list[object]
) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert heard == []


def test_a_default_stands_at_the_end_of_a_help_text() -> None:
    assert divided("Text [of it] here. [5m]") == ("Text [of it] here.", "5m")
    assert divided("Text without.") == ("Text without.", "")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--may", "--trials", "3"], ["--may=true", "--trials", "3"]),
        (["--may", "0.5%", "study.toml"], ["--may=0.5%", "study.toml"]),
        (["--may", "0.5 %"], ["--may=0.5 %"]),
        (["--may", "study.toml"], ["--may=true", "study.toml"]),  # a file, no value
        (["--may", "0.5"], ["--may=true", "0.5"]),  # no percentage
        (["--may=2%", "1%"], ["--may=2%", "1%"]),  # it has its value
        (["--may", "--may"], ["--may=true", "--may=true"]),
        (["--out", "1%", "--may"], ["--out", "1%", "--may=true"]),
        ([], []),
    ],
)
def test_a_flag_that_may_stand_alone_gets_its_value(
    given: list[str], meant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BARE, "--may", "true")

    assert with_values(given) == meant
