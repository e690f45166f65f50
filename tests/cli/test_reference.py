"""docs/commands.md is what the command line is."""

from pathlib import Path

from llmdyno.cli.app import COMMANDS, load
from llmdyno.cli.help import argument_name
from llmdyno.cli.reference import page

PAGE = Path(__file__).parent.parent.parent / "docs" / "commands.md"


def test_the_page_is_what_would_be_generated() -> None:
    assert PAGE.read_text() == page().rstrip("\n") + "\n", "run `make docs`"


def test_an_argument_stands_once_though_the_flags_have_headings() -> None:
    _, _, section = PAGE.read_text().partition("## dyno tune\n")
    section = section.partition("\n## ")[0]

    assert section.count("| `FILE` |") == 1
    assert section.count("**Load**") == 1


def test_the_page_has_every_command_and_every_flag() -> None:
    text = PAGE.read_text()

    for name in COMMANDS:
        _, _, section = text.partition(f"## dyno {name}\n")
        section = section.partition("\n## ")[0]
        for parameter in load(name).params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                shown = option if option[0] == "-" else argument_name(parameter)
                assert option == "--help" or shown in section, (name, option)
