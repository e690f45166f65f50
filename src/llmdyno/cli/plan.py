"""`dyno plan`: what a server will do, before there is one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llmdyno.cli.flags import Given, over, read_file, spec_of
from llmdyno.cli.options import AsJson, Out, command, option
from llmdyno.cli.output import EXIT_THRESHOLD_MISSED, print_json, say
from llmdyno.errors import UsageError
from llmdyno.flag import Field, all_fields
from llmdyno.machine.blas import import_numpy
from llmdyno.predict.asked import Plan

PLAN = "plan.json"
STUDY_FILE = "study.toml"


def plan_flags(*, in_file: bool = False) -> list[Field]:
    """Return the flags of `dyno plan`; in_file: the keys that its TOML file has."""
    return [field for field in all_fields(Plan) if in_file or field.flag.tune == "flag"]


@command(plan_flags())
def plan(
    given: Given,
    file: Annotated[
        Path | None, typer.Argument(help="TOML file with any of these flags.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            help="Set a knob of the config before; may be repeated.",
            metavar="KNOB=VALUE",
            heading="Server",
        ),
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Predict what a server will do; it needs no GPU, no engine and no network."""
    import_numpy()
    from llmdyno.predict.planning import make
    from llmdyno.terminal.plan import show_plan

    asked = spec_of(Plan, over(read_file(file, plan_flags(in_file=True)) if file else {}, given))
    made = make(asked, settings or [])
    trouble = made.does_not_fit or made.nothing_meets
    if out is not None and not made.does_not_fit:
        page = _write(Path(out), made.document, made.study)
        say(f"Report: {page}")
    if json:
        print_json(made.document)
    elif not trouble:
        show_plan(made.document, sys.stdout)
    if made.does_not_fit:
        raise UsageError(made.does_not_fit)
    if made.nothing_meets:
        say(f"dyno: {made.nothing_meets}")
        raise typer.Exit(EXIT_THRESHOLD_MISSED)


def _write(folder: Path, document: dict[str, object], study: str) -> Path:
    """Write the page, the document and the study's file into a folder; return the page's path."""
    from llmdyno import store
    from llmdyno.report.plan_page import of_plan

    store.make_folder(folder)
    store.write_json(folder / PLAN, document)
    if study:
        store.write_atomically(folder / STUDY_FILE, study.encode())
    page = folder / store.REPORT
    store.write_atomically(page, of_plan(document).encode())
    return page
