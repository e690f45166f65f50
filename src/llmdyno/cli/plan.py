"""`dyno plan`: what a server will do, before there is one."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmdyno.cli.flags import Given, read_fields, spec_of
from llmdyno.cli.options import AsJson, Out, Sets, command, option
from llmdyno.cli.output import import_numpy, print_json, print_line, say
from llmdyno.errors import UsageError
from llmdyno.flag import all_fields
from llmdyno.predict.asked import Plan

PLAN = "plan.json"
STUDY_FILE = "study.toml"
_MISSED = 1


def plan_flags(*, in_file: bool = False) -> list:
    """Return the flags of `dyno plan`; in_file: the keys that its TOML file has."""
    return [one for one in all_fields(Plan) if in_file or one.flag.tune == "flag"]


@command(plan_flags())
def plan(
    given: Given,
    file: Annotated[
        Path | None, typer.Argument(help="TOML file with any of these flags.", show_default=False)
    ] = None,
    settings: Sets = None,
    out: Out = None,
    json: AsJson = False,
) -> int:
    """Predict what a server will do: no GPU, no engine and no network needed."""
