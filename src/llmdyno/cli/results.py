"""`dyno report`, `export` and `import`: what was measured before."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno import plugins
from llmdyno.cli.options import AsJson, Out, Text, command, option
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.errors import UsageError
from llmdyno.units import counted


@command()
def report(
    names: Annotated[
        list[str], typer.Argument(help="Runs or studies: folders or ids.", metavar="NAME")
    ],
    out: Annotated[
        Text, option("--out", help="Folder to write into. [the folder of the run]", metavar="DIR")
    ] = None,
    markdown: Annotated[
        bool, option("--markdown", help="Write report.md, too, for a blog or a pull request.")
    ] = False,
    assets: Annotated[
        Text,
        option(
            "--assets",
            help="Folder of its charts, as SVG and PNG. [assets beside it]",
            metavar="DIR",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make the summary and the report of runs or studies again from what was measured."""
    from llmdyno import store
    from llmdyno.cli.rebuild import rebuild, write_markdown

    if out == "":
        raise UsageError("--out: is empty; name a folder.")
    if assets is not None and not markdown:
        raise UsageError(f"--assets {assets}: are the charts of --markdown; add that.")
    if assets == "":
        raise UsageError("--assets: is empty; name a folder.")
    if assets is not None and len(names) > 1:
        raise UsageError(
            f"--assets {assets}: takes the charts of one run or study; name one at a time."
        )
    if out is not None and len(names) > 1:
        raise UsageError(f"--out {out}: takes the report of one run or study; name one at a time.")
    for folder in [store.find(name) for name in names]:
        document, page = rebuild(folder, None if out is None else Path(out))
        _tell(document)
        if markdown:
            page = write_markdown(page.parent, document, None if assets is None else Path(assets))
        if json:
            print_json(document)
        else:
            print_line(str(page))


def _tell(document: Mapping[str, Any]) -> None:
    """Print what the page begins with: its verdict, and the key findings of a study."""
    from llmdyno.cli.told import key_findings
    from llmdyno.report.verdict import of_run
    from llmdyno.results import findings
    from llmdyno.terminal.closing import show_findings
    from llmdyno.terminal.tables import line

    is_study = "trials" in document
    verdict = findings.verdict(document) if is_study else of_run(document)
    sys.stderr.write(line(verdict.sentence, sys.stderr))
    if is_study:
        sys.stderr.write("\n")
        show_findings(key_findings(document), sys.stderr)


@command()
def export(
    name: Annotated[str, typer.Argument(help="A run or study: its folder or id.")],
    csv: Annotated[Path | None, option("--csv", help="CSV file to write.", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, option("--parquet", help="Parquet file to write.", metavar="FILE")
    ] = None,
    optuna: Annotated[
        Text,
        option(
            "--optuna",
            help="Of a study: SQLite file for Optuna's dashboard, or the URL of a database.",
            metavar="FILE|URL",
        ),
    ] = None,
) -> None:
    """Write a run's requests as a table, one row each, or a study's trials for Optuna."""
    from llmdyno import store
    from llmdyno.results.export import write_csv, write_parquet

    if csv is None and parquet is None and optuna is None:
        raise UsageError("dyno export: name a file with --csv or --parquet; of a study, --optuna.")
    folder = store.find(name)
    if optuna is not None:
        _export_to_optuna(folder, optuna)
    written = [
        (target, write(folder, target))
        for target, write in ((csv, write_csv), (parquet, write_parquet))
        if target is not None
    ]
    for target, count in written:
        say(counted(count, "request"))
        print_line(str(target))


def _export_to_optuna(folder: Path, target: str) -> None:
    """Write a study's trials to an SQLite file, or to a database if the target is a URL."""
    from llmdyno import store
    from llmdyno.tune.database import without_password
    from llmdyno.tune.optuna_export import add_to_database, write_optuna

    if "://" in target:
        say(counted(add_to_database(folder, target), "trial"))
        print_line(without_password(target))
        return
    file = Path(target)
    store.check_file("--optuna", file)
    say(counted(write_optuna(folder, file), "trial"))
    print_line(str(file))


@command()
def import_(
    file: Annotated[Path, typer.Argument(help="A result file of another load generator.")],
    tool: Annotated[
        Text,
        option(
            "--from",
            help=f"The tool: {', '.join(plugins.names('importers'))}. [the one whose file it is]",
            metavar="NAME",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Take in another tool's result as a run, with notes on what it defines otherwise."""
    from llmdyno import store
    from llmdyno.importers import import_file, run_id, store_imported
    from llmdyno.results import doubts, grouping
    from llmdyno.store import SUMMARY

    if file.is_dir():
        raise UsageError(f"dyno import {file}: is a folder; name one of the files in it.")
    if not file.is_file():
        raise UsageError(f"dyno import {file}: there is no such file.")
    document = import_file(file, tool)
    folder = store.choose_folder(out, store.RUNS, run_id(document), SUMMARY)
    stored = store_imported(document, folder)
    for meaning in stored["spec"]["definitions"].items():
        say(": ".join(meaning))
    for said in grouping.sentences(doubts.of(stored)):
        say(f"! {said}")
    print_line(str(folder))
