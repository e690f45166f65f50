"""`dyno compare` and `dyno baseline`: what was measured set beside what was measured before."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno.cli.help import Command
from llmdyno.cli.options import AsJson, Text, command, option
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.errors import UsageError
from llmdyno.machine.blas import import_numpy

_TO_STDOUT = "-"


@command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Runs, folders of runs, studies, another tool's files, or baseline:NAME; the first"
            " is what the others are compared with.",
            metavar="NAME",
        ),
    ],
    fail_on: Annotated[
        Text,
        option(
            "--fail-on",
            help="End with status 1 if a metric is worse by more, e.g."
            " 'token_rate:-5%,ttft:p99:+10%'.",
            metavar="LIMITS",
        ),
    ] = None,
    fail_on_doubt: Annotated[
        bool,
        option(
            "--fail-on-doubt",
            help="Also if that cannot be excluded or compared, or a doubt spoils it.",
        ),
    ] = False,
    junit: Annotated[
        Path | None, option("--junit", help="Also write JUnit XML.", metavar="FILE")
    ] = None,
    markdown: Annotated[
        Text,
        option(
            "--markdown",
            help="Also write Markdown, for a pull request; without a file or with - to stdout.",
            metavar="FILE",
        ),
    ] = None,
    out: Annotated[str, option("--out", help="File of the page.", metavar="FILE")] = "compare.html",
    json: AsJson = False,
) -> None:
    """Compare runs: what differs, by how much, how sure that is, and whether it may."""
    import_numpy()
    from llmdyno import store
    from llmdyno.cli.sides import read_sides
    from llmdyno.report.comparison_markdown import comparison_markdown
    from llmdyno.results import comparison
    from llmdyno.results.comparison_junit import write_junit
    from llmdyno.results.fail_on import parse_limits
    from llmdyno.terminal.coloured import console
    from llmdyno.terminal.compare import show_comparison

    limits = parse_limits(fail_on)
    if fail_on_doubt and not limits:
        raise UsageError("--fail-on-doubt: needs --fail-on, whose limits it makes stricter.")
    files = {"--out": out, "--junit": junit, "--markdown": markdown}
    for flag, file in files.items():
        if file is not None and file != _TO_STDOUT:
            store.check_file(flag, Path(file))
    before, others, decided = read_sides(names)
    document = comparison.document(
        before, others, limits=limits, strict=fail_on_doubt, decided=decided
    )
    show_comparison(document, console(sys.stderr))
    if junit is not None:
        write_junit(document, junit)
    pages = _write_pages(Path(out), before, others, document)
    to_stdout = json or markdown == _TO_STDOUT
    for page in pages:
        if to_stdout:
            say(f"Page: {page}")
        else:
            print_line(str(page))
    if markdown is not None:
        written = comparison_markdown(document)
        if markdown == _TO_STDOUT:
            print_line(written.rstrip("\n"))
        else:
            store.write_atomically(Path(markdown), written.encode())
    if json:
        print_json(document)
    if document["gate"] is not None:
        raise typer.Exit(document["gate"]["status"])


def _write_pages(out: Path, before: Any, others: Sequence[Any], document: Any) -> list[Path]:
    """Write a page for each other side: compare.html, compare-2.html and so on."""
    from llmdyno import store
    from llmdyno.report import compare_page

    pages = []
    for place, (after, found) in enumerate(zip(others, document["comparisons"], strict=True), 1):
        path = out if place == 1 else out.with_stem(f"{out.stem}-{place}")
        page = compare_page(_named(before), _named(after), found)
        store.write_atomically(path, page.encode())
        pages.append(path)
    return pages


def _named(side: Any) -> Mapping[str, Any]:
    """Return the summary of a side's first run; one of another tool has its file's name."""
    summary = side.first.summary
    return summary if summary.get("run") else {**summary, "run": Path(side.name).name}


baseline_app = typer.Typer(
    help="Keep runs under a name, to compare others with.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@baseline_app.command(cls=Command, name="set")
@command()
def set_baseline(
    name: Annotated[str, typer.Argument(help="The name, e.g. main.", metavar="NAME")],
    run: Annotated[str, typer.Argument(help="A run, or a folder of equal runs.", metavar="RUN")],
) -> None:
    """Keep a run under a name, for its machine and workload."""
    import_numpy()
    from llmdyno.cli.sides import runs_of
    from llmdyno.results import baselines

    baselines.check_name(name)
    starts = runs_of(run)
    kept, replaced = baselines.keep(name, starts)
    if replaced is not None:
        say(f"Replaced {', '.join(replaced.runs)}, kept since {replaced.kept}.")
    say(f"baseline:{name} is {', '.join(kept.runs)}, for {kept.workload} on {kept.machine}.")
    for one in baselines.faults(starts):
        say(f"! {one}")
    print_line(kept.dir)


@baseline_app.command(cls=Command, name="show")
@command()
def show_baselines(
    name: Annotated[
        str | None, typer.Argument(help="A name; without it all are listed.", metavar="NAME")
    ] = None,
    json: AsJson = False,
) -> None:
    """List what is kept, each with its runs, machine and workload."""
    import_numpy()
    import msgspec

    from llmdyno.results import baselines
    from llmdyno.terminal.compare import show_kept

    kept = baselines.kept(name)
    if json:
        print_json([msgspec.to_builtins(one) for one in kept])
    else:
        show_kept(kept, sys.stdout)
