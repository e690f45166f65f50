"""`dyno runs`: what lies in the store: list, tag, compare, prune, export."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmdyno.cli.help import Command
from llmdyno.cli.options import AsJson, Text, command, option
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.errors import InterruptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmdyno.results.catalog import Entry, Filter

runs_app = typer.Typer(
    help="List the runs and studies in this folder.", add_completion=False, rich_markup_mode=None
)

Engine = Annotated[Text, option("--engine", help="Only those of this engine.", metavar="NAME")]
Model = Annotated[
    Text, option("--model", help="Only those of a model with this in its name.", metavar="TEXT")
]
Since = Annotated[
    Text, option("--since", help="Only those since a day, or so long ago: 7d.", metavar="WHEN")
]
Tag = Annotated[Text, option("--tag", help="Only those with this tag.", metavar="TAG")]


@runs_app.callback(invoke_without_command=True)
def runs_top(
    context: typer.Context,
    engine: Engine = None,
    model: Model = None,
    since: Since = None,
    tag: Tag = None,
    compare_last: Annotated[
        bool, option("--compare-last", help="Compare the last two, as `dyno compare` does.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the runs and studies in this folder."""
    if context.invoked_subcommand is not None:
        _refuse_before(context.invoked_subcommand, engine, model, since, tag, compare_last, json)
        return
    from llmdyno.results import catalog
    from llmdyno.terminal.lists import rows_of, show_runs, sizes

    found = catalog.entries(_filter(engine, model, since, tag))
    if compare_last:
        _compare_last(found)
        return
    rows = rows_of(found)
    if json:
        print_json(rows)
        return
    if not found and (all_here := catalog.entries(_filter(None, None, None, None))):
        print_line(f"None of what is here fits ({sizes(all_here)}).")
        return
    show_runs(rows, sys.stdout)
    if rows:
        say(sizes(found))


def _refuse_before(name: str, *given: str | bool | None) -> None:
    """Refuse flags before a command, which would not hear them: it might prune the whole store."""
    if any(given):
        raise UsageError(f"dyno runs {name}: write its flags after it: dyno runs {name} ...")


def _filter(engine: Text, model: Text, since: Text, tag: Text) -> "Filter":
    from llmdyno.results import catalog

    moment = None if since is None else catalog.since(since, datetime.now(UTC))
    return catalog.Filter(engine=engine or "", model=model or "", tag=tag or "", since=moment)


def _compare_last(found: "Sequence[Entry]") -> None:
    """Hand the last two runs that are done to `dyno compare`."""
    from llmdyno.cli.app import load

    done = [entry for entry in found if entry.kind == "run" and entry.document]
    if len(done) < 2:
        raise UsageError(
            f"--compare-last: needs two runs that are done; {len(done) or 'none'} fits. `dyno runs`"
            " lists them."
        )
    before, after = (str(entry.folder) for entry in done[-2:])
    say(shlex.join(["dyno", "compare", before, after]))
    status = load("compare").main([before, after], prog_name="dyno compare", standalone_mode=False)
    raise typer.Exit(status if isinstance(status, int) else 0)


@runs_app.command(cls=Command, name="tag")
@command()
def tag_(
    run: Annotated[str, typer.Argument(help="A run or study: its folder or id.")],
    name: Annotated[str, typer.Argument(help="The tag; what has one is never pruned.")],
    remove: Annotated[bool, option("--remove", help="Take the tag away.")] = False,
) -> None:
    """Give a run or study a tag, which keeps it from being pruned."""
    from llmdyno import store
    from llmdyno.results import catalog

    folder = store.find(run)
    tags = catalog.tag(folder, name, remove=remove)
    print_line(f"{folder.name}  {', '.join(tags) or 'no tag'}")


@runs_app.command(cls=Command)
@command()
def prune(
    keep: Annotated[
        int | None, option("--keep", help="Keep this many, the newest.", metavar="N")
    ] = None,
    older_than: Annotated[
        Text, option("--older-than", help="Remove only what is older, e.g. 30d.", metavar="TIME")
    ] = None,
    engine: Engine = None,
    model: Model = None,
    dry_run: Annotated[
        bool, option("--dry-run", help="Only say what would be removed, and what it frees.")
    ] = False,
    yes: Annotated[bool, option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove old runs and studies; never what is tagged, or runs."""
    from llmdyno import units
    from llmdyno.results import catalog
    from llmdyno.terminal.lists import rows_of, show_runs, sizes

    if keep is None and older_than is None:
        raise UsageError("dyno runs prune: say what may go, with --keep, --older-than or both.")
    if keep is not None and keep < 0:
        raise UsageError(f"--keep {keep}: must be at least 0.")
    found = catalog.entries(_filter(engine, model, None, None))
    age_s = None if older_than is None else units.seconds(older_than, "--older-than")
    chosen = catalog.prunable(found, datetime.now(UTC), keep=keep, older_than_s=age_s)
    show_runs(rows_of(chosen), sys.stdout if dry_run else sys.stderr, nothing="Nothing to remove.")
    if not chosen:
        return
    if dry_run:
        say(f"Would free {sizes(chosen)}; nothing was removed.")
        return
    if not yes:
        _ask(f"Remove {sizes(chosen)}? [y/N] ")
    gone = catalog.remove(chosen)
    for entry in gone:
        print_line(entry.id)
    say(f"Freed {sizes(gone)}.")


def _ask(question: str) -> None:
    """Ask a person, who must say yes.

    Raises:
        UsageError: nobody can be asked.
        InterruptError: the answer is another one.
    """
    if not sys.stdin.isatty():
        raise UsageError("dyno runs prune: nobody can be asked here; add --yes, or --dry-run.")
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise InterruptError("nothing was removed.")


@runs_app.command(cls=Command)
@command()
def export(
    file: Annotated[
        Path, typer.Argument(help="To write: .tar.gz (the folders) or .csv (a row a level).")
    ],
    engine: Engine = None,
    model: Model = None,
    since: Since = None,
    tag: Tag = None,
) -> None:
    """Write runs and studies to an archive, or a table."""
    from llmdyno.results import bundled, catalog
    from llmdyno.terminal.lists import sizes

    bundled.check(file)
    found = catalog.entries(_filter(engine, model, since, tag))
    if not found:
        raise UsageError(f"dyno runs export {file}: no run and no study fits.")
    bundled.write(file, found)
    say(f"{sizes(found)}.")
    print_line(str(file))
