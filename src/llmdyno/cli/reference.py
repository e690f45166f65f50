"""docs/commands.md: every command and flag, as the command line has them.

python -m llmdyno.cli.reference > docs/commands.md
"""

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from llmdyno.cli.app import COMMANDS, load
from llmdyno.cli.flags import QUICK, Given, study_flags
from llmdyno.cli.help import argument_name, headed
from llmdyno.cli.options import divided
from llmdyno.cli.output import print_line
from llmdyno.flag import Field

_HEAD = """# Commands

This page is generated (`make docs`): the flags of `dyno bench` and `dyno tune` stand in
`src/llmdyno/spec` and `src/llmdyno/tune/spec.py`, each with its default.

Durations are written 20s, 5m, 250ms or 1h; a bare number is seconds. Results go to standard output,
everything else to standard error; with `--json` the last line of standard output is one JSON
document.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | done, but an SLO or a limit of `--fail-on` was missed |
| 2 | wrong usage or config; nothing was started |
| 3 | the server or an engine failed, or `--fail-on` could compare nothing |
| 70 | a fault of dyno itself, with its traceback: please report it |
| 130 | interrupted; the results so far are kept |
"""

_FILE = """A study's file, `dyno tune study.toml`, takes every flag from `--engine` to `--seed` as
a key: `--trial-duration 30s` is `trial_duration = "30s"`; the words of `--engine-arg` are a list,
`engine_args`. A flag wins over the file, the file over `--quick`. These keys have no flag:
"""

_HEADS = ("flag", "what it is for", "default")

_QUICK = "`--quick` is this file:"


def page() -> str:
    """Return docs/commands.md: every command with its usage, help and flags, as Markdown."""
    sections = [_HEAD, *(_section(f"dyno {name}", load(name)) for name in COMMANDS)]
    return "\n".join(sections)


def _section(name: str, command: Any) -> str:
    """Return what the page says of a command, or of a group and its commands."""
    usage = " ".join(command.collect_usage_pieces(typer.Context(command, info_name=name)))
    parts = [f"## {name}\n", f"{command.help}\n", f"    {name} {usage}\n", table(command.params)]
    parts += [
        _section(f"{name} {sub}", inner).replace("## ", "### ", 1)
        for sub, inner in getattr(command, "commands", {}).items()
    ]
    if name == "dyno tune":
        keys = [field for field in study_flags(in_file=True) if field.flag.tune == "file"]
        parts += [_FILE, file_table(keys), f"{_QUICK}\n", as_toml(QUICK)]
    return "\n".join(part for part in parts if part)


def table(parameters: Iterable[Any]) -> str:
    """Return the tables of a command's arguments and flags, as its help has them; empty: none."""
    known = [one for one in parameters if one.name != "help"]
    arguments = [one for one in known if one.param_type_name == "argument"]
    parts = [
        (heading, [*(() if place else arguments), *flags])
        for place, (heading, flags) in enumerate(headed(known))
    ]
    tables = []
    for heading, rows in parts:
        above = f"**{heading}**\n\n" if len(parts) > 1 else ""
        if rows:
            tables.append(above + markdown_table(_HEADS, [_row(one) for one in rows]))
    return "\n".join(tables)


def file_table(fields: Iterable[Field]) -> str:
    """Return the table of the keys that a study's file has, and the command line has not."""
    rows = [(f"`{one.name}`", one.help, one.shown_default) for one in fields]
    return markdown_table(("key", "what it is for", "default"), rows)


def _row(parameter: Any) -> tuple[str, str, str]:
    purpose, default = divided(parameter.help or "")
    if parameter.param_type_name == "argument":
        name = f"`{argument_name(parameter)}`"
    else:
        value = f" {parameter.metavar}" if parameter.metavar else ""
        name = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
        name = f"{name[:-1]}{value}`"
    return name, purpose, "must be given" if parameter.required else default


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown; bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    written = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return "\n".join(written) + "\n"


def as_toml(profile: Given) -> str:
    """Return a profile as the lines of a TOML file, indented as code."""
    written = {key: f'"{one}"' if isinstance(one, str) else one for key, one in profile.items()}
    return "".join(f"    {key} = {one}\n" for key, one in written.items())


if __name__ == "__main__":
    print_line(page().rstrip("\n"))
