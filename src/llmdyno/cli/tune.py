"""`dyno tune`: a study, from flags or a file, or one that is gone on with."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmdyno.cli.dashboards import Dashboard, study_page
from llmdyno.cli.flags import QUICK, Given, over, read_toml, study_flags, study_spec, with_baseline
from llmdyno.cli.options import AsJson, Out, Text, command, option
from llmdyno.cli.output import (
    EXIT_THRESHOLD_MISSED,
    print_json,
    print_line,
    say,
    terminate_as_interrupt,
)
from llmdyno.cli.serve import read_stack
from llmdyno.errors import DynoError, InterruptError, StorageError, UsageError, shortage
from llmdyno.machine.blas import import_numpy
from llmdyno.units import counted, percent

if TYPE_CHECKING:
    from llmdyno.tune.hosts import Hosts
    from llmdyno.tune.spec import Study

_NOTHING = (
    "say what is tuned: --engine and --model, a study's file, or --quick, which tunes the built-in"
    " model on this CPU in about seven minutes. With --dry-run it shows the plan and starts"
    " nothing."
)


_STUDY = "Study"  # the heading of how it is begun


@command(study_flags())
def tune(
    given: Given,
    file: Annotated[
        Path | None, typer.Argument(help="TOML file with any of these flags.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            help="Set a knob of the baseline; may be repeated.",
            metavar="KNOB=VALUE",
            heading="Server",
        ),
    ] = None,
    quick: Annotated[
        bool,
        option(
            "--quick",
            help="Use a profile for two CPU cores and about seven minutes.",
            heading=_STUDY,
        ),
    ] = False,
    resume: Annotated[
        Text,
        option("--resume", help="Go on with a stopped study.", metavar="STUDY", heading=_STUDY),
    ] = None,
    elsewhere: Annotated[
        bool,
        option(
            "--elsewhere",
            help="Resume though the engine's version, a driver or the machine has changed.",
            heading=_STUDY,
        ),
    ] = False,
    store_url: Annotated[
        Text,
        option(
            "--store",
            help="Run the trials on other hosts, --parallel of them, that do `dyno worker` with"
            " the same URL; the password comes from PGPASSWORD or PGPASSFILE.",
            metavar="postgresql+psycopg://USER@HOST/DATABASE",
            heading=_STUDY,
        ),
    ] = None,
    dashboard: Dashboard = None,
    dry_run: Annotated[
        bool,
        option(
            "--dry-run",
            help="Show the plan and what it costs; start nothing, write nothing.",
            heading=_STUDY,
        ),
    ] = False,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Find better settings, and prove it; --engine a,b --front x,y compares what they name."""
    import_numpy()
    from llmdyno import store, workload
    from llmdyno.cli.told import key_findings
    from llmdyno.results.conclusions import misses_slo
    from llmdyno.store import LEDGER
    from llmdyno.terminal.study import narrator, show_study
    from llmdyno.tune import commands
    from llmdyno.tune.combined import Combined
    from llmdyno.tune.dry_run import dry_run as planned
    from llmdyno.tune.folder import open_study
    from llmdyno.tune.going_on import extended
    from llmdyno.tune.tuner import Tuner

    if not (given or file or settings or quick or resume or dry_run):
        raise UsageError(_NOTHING)
    if resume is not None:
        folder = store.find(resume)
        study = open_study(folder)
        _refuse_a_part(resume, folder)
        _refuse_beside_resume(resume, file=file, settings=settings, quick=quick, out=out)
        study = extended(study, study_spec({**_terms(study), **given}), given, resume)
    else:
        study = _asked(given, file, settings, quick=quick)
        engine = study.engine.replace(",", "+")
        name = store.new_id(f"{engine}-{Path(study.model).name}")
        folder = store.choose_folder(out, store.STUDIES, name, LEDGER)
    for note in workload.notes(study.workload):
        say(note)
    page = None if dry_run else dashboard  # a plan starts nothing
    with terminate_as_interrupt(), study_page(page, study, folder) as live:
        told = narrator(sys.stderr)
        told = told if live is None else live.narrator(told)
        hosts = _hosts(store_url, study, dry_run=dry_run)
        tuner: Combined | Tuner = (
            Combined(study, folder, told, elsewhere=elsewhere, here=not dry_run, hosts=hosts)
            if study.combines
            else Tuner(study, folder, told, elsewhere=elsewhere, here=not dry_run, hosts=hosts)
        )
        if dry_run:
            _show_plan(planned(study, tuner), as_json=json)
            return
        starts = _what_starts(study, folder, resumed=resume is not None)
        try:
            document = tuner.run(begins=lambda: told.notify(starts))
            if live is not None:
                live.end(document["outcome"]["said"])
        except (InterruptError, KeyboardInterrupt) as error:
            raise InterruptError(
                "interrupted; what was measured is kept. Go on with:"
                f" {commands.resume(folder)}{_with_store(hosts)}"
            ) from error
        except (StorageError, MemoryError, OSError, RuntimeError, ExceptionGroup) as error:
            if (fault := _with_the_way_on(error, folder, hosts)) is None:
                raise
            raise fault from error
    show_study(document, key_findings(document), sys.stderr)
    _show_end(_study_page(folder, document), document, as_json=json)
    if misses_slo(document):
        raise typer.Exit(EXIT_THRESHOLD_MISSED)


def _terms(study: "Study") -> dict[str, Any]:
    """Return what a study has that other flags of it are read by: budget, pairs and rates."""
    price, until = study.price_per_h, study.confirm_until
    terms: dict[str, Any] = {"objective": str(study.objective)}
    if study.slos:  # a goodput is of them
        terms["slo"] = [slo.expr for slo in study.slos]
    if price is not None:
        terms["price"] = f"{price}/h"
    return terms if until is None else {**terms, "confirm_until": percent(until)}


def _asked(
    given: Mapping[str, Any], file: Path | None, settings: list[str] | None, *, quick: bool
) -> "Study":
    """Return the study that the flags ask for; they win over the file, and it over --quick."""
    from llmdyno.tune.combinations import read_settings

    profile = QUICK if quick else {}
    study = study_spec(over(read_toml(file) if file else {}, given), profile=profile)
    if settings and study.combines:
        return with_baseline(study, read_settings(study, settings))
    if settings:
        _, config = read_stack(study, settings)  # the tuner checks the whole baseline
        return with_baseline(study, config)
    return study


def _what_starts(study: "Study", folder: Path, *, resumed: bool) -> str:
    """Say what a study does, where it writes, and how it is stopped."""
    from llmdyno.tune.spend import show_budget

    budget = study.budget_s
    spends = "" if budget is None else f", a budget of {show_budget(budget)}"
    return (
        f"{'Going on with' if resumed else 'Tuning'} {study.engine} behind {study.front},"
        f" {study.model}: {study.objective} at {study.compared_at}; at most"
        f" {counted(study.trials, 'trial')}{spends}. Results: {folder}. Ctrl-C ends it, and"
        " --resume goes on."
    )


def _show_end(page: Path, document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print where a study's page is, or with --json its document."""
    if as_json:
        say(f"Report: {page}")
        print_json(document)
    else:
        print_line(str(page))


def _hosts(url: str | None, study: "Study", *, dry_run: bool) -> "Hosts | None":
    """Return the hosts of a team's database; None: none are asked for.

    It must be there, but for a plan.

    Raises:
        UsageError: the URL is none, or what is asked for runs on no host.
        StorageError: the database cannot be reached.
    """
    if url is None:
        return None
    from llmdyno.tune.database import Database
    from llmdyno.tune.hosts import Hosts

    hosts = Hosts(Database(url, notify=say), study.parallel)
    if not dry_run:  # a plan asks nobody
        hosts.check()
    return hosts


def _with_the_way_on(error: Exception, folder: Path, hosts: "Hosts | None") -> DynoError | None:
    """Return a fault of the world with what is kept and the command that goes on.

    None: it is to be raised as it is, for it is ours, it says that itself, or no study has begun.
    """
    from llmdyno.store import LEDGER
    from llmdyno.tune import commands

    if "dyno tune --resume" in str(error) or not (folder / LEDGER).exists():
        return None
    goes_on = f"{commands.resume(folder)}{_with_store(hosts)}"
    kept = f"What was measured is kept in {folder}"
    if (lacks := shortage(error)) is not None:
        return DynoError(
            f"there is no {lacks} left for dyno itself. {kept}; where there is more, go on with:"
            f" {goes_on}"
        )
    if isinstance(error, StorageError):
        return StorageError(f"{error} {kept}; mend that, and go on with: {goes_on}")
    return None


def _with_store(hosts: "Hosts | None") -> str:
    """Return what goes on over the same hosts, to end a command with."""
    return "" if hosts is None else f" --store {shlex.quote(hosts.shown)}"


def _show_plan(document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a study would do, and what it costs."""
    from llmdyno.terminal.dry_run import show_dry_run

    if as_json:
        print_json(document)
    else:
        show_dry_run(document, sys.stdout)


def _refuse_a_part(resume: str, folder: Path) -> None:
    """Refuse to go on with one combination of a study over several engines or fronts alone.

    Raises:
        UsageError: names the whole.
    """
    from llmdyno.tune import commands

    if (whole := commands.whole_of(folder)) != folder:
        raise UsageError(
            f"--resume {resume}: is part of the study {whole}, which goes on as a whole:"
            f" {commands.resume(whole)}"
        )


def _refuse_beside_resume(resume: str, **given: Any) -> None:
    """Refuse what would make another study of one that goes on.

    Raises:
        UsageError: names it.
    """
    names = {"file": "a study's file", "settings": "--set", "quick": "--quick", "out": "--out"}
    for name, value in given.items():
        if value:
            said = " ".join(map(str, value)) if isinstance(value, list) else value
            shown = names[name] if value is True else f"{names[name]} {said}"
            raise UsageError(
                f"{shown}: the study {resume} goes on as it began, in its own folder; leave it"
                " out, or begin another study."
            )


def _study_page(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a study's page; what was measured must not be lost to a chart that cannot be drawn."""
    try:
        from llmdyno.cli.rebuild import write_study_page
    except ImportError as error:
        raise DynoError(
            f"the study is done, but its page cannot be drawn: {error}. Its document is"
            f" {folder / 'study.json'}; `dyno report {shlex.quote(str(folder))}` makes the page"
            " where it can be."
        ) from error
    return write_study_page(folder, document)
