"""`dyno tune`: a study, from flags or a file, or one that is gone on with."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno.cli.options import (
    AsJson,
    Dataset,
    EngineName,
    FrontName,
    Interval,
    Isl,
    ModelName,
    Osl,
    Out,
    Ramp,
    Seed,
    Slo,
    SystemPrompt,
    Text,
    Users,
    WorkloadName,
    given_flags,
    option,
)
from llmdyno.cli.output import import_numpy, print_json, print_line, say, terminate_as_interrupt
from llmdyno.cli.serve import checked_subject
from llmdyno.errors import DynoError, InterruptError


def tune(
    file: Annotated[
        Path | None, typer.Argument(help="TOML file with any of these flags.", show_default=False)
    ] = None,
    engine: EngineName = None,
    front: FrontName = None,
    model: ModelName = None,
    settings: Annotated[
        list[str] | None,
        option("--set", help="Set a knob of the baseline; may be repeated.", metavar="KNOB=VALUE"),
    ] = None,
    objective: Annotated[Text, option("--objective", help="What to better. [token_rate]")] = None,
    slo: Slo = None,
    search: Annotated[
        Text,
        option("--search", help="Knobs to search. [all with a range]", metavar="KNOB[,KNOB...]"),
    ] = None,
    trials: Annotated[int | None, option("--trials", help="Configs to try. [20]")] = None,
    budget: Annotated[Text, option("--budget", help="No trial starts after it, e.g. 2h.")] = None,
    pairs: Annotated[int | None, option("--pairs", help="Of the confirmation. [3]")] = None,
    trial_duration: Annotated[
        Text, option("--trial-duration", help="Of a trial, its ramp included. [30s]")
    ] = None,
    warmup: Annotated[
        Text, option("--warmup", help="Load on each fresh server that does not count. [5s]")
    ] = None,
    allow_altered_output: Annotated[
        bool | None,
        option("--allow-altered-output", help="Also try knobs that may change the tokens."),
    ] = None,
    users: Users = None,
    ramp: Ramp = None,
    duration: Annotated[
        Text, option("--duration", help="Of a level before and after. [60s]")
    ] = None,
    interval: Interval = None,
    workload: WorkloadName = None,
    dataset: Dataset = None,
    isl: Isl = None,
    osl: Osl = None,
    system_prompt: SystemPrompt = None,
    seed: Seed = None,
    quick: Annotated[
        bool, option("--quick", help="A profile for two CPU cores and about six minutes.")
    ] = False,
    resume: Annotated[
        Text, option("--resume", help="Go on with a stopped study.", metavar="STUDY")
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Find better settings, and prove it: before, search, after, interleaved pairs."""
    import_numpy()
    given = given_flags(locals(), without=("file", "settings", "quick", "resume", "out", "json"))
    from llmdyno import store
    from llmdyno.cli import flags
    from llmdyno.store import LEDGER
    from llmdyno.terminal.study import narrator, show_study
    from llmdyno.tune.tuner import Tuner, open_study

    if resume is not None:
        folder = store.find(resume)
        study = open_study(folder)
    else:
        profile = flags.QUICK if quick else {}
        study = flags.study_spec({**profile, **(flags.read_toml(file) if file else {}), **given})
        if settings:
            _, config = checked_subject(study.engine, study.front, study.model, settings)
            study = flags.with_baseline(study, config)
        name = store.new_id(f"{study.engine}-{Path(study.model).name}")
        folder = store.choose_folder(out, store.STUDIES, name, LEDGER)
    with terminate_as_interrupt():
        tuner = Tuner(study, folder, narrator(sys.stderr))
        try:
            document = tuner.run()
        except (InterruptError, KeyboardInterrupt) as error:
            raise InterruptError(
                f"interrupted; what was measured is kept. Go on with: dyno tune --resume {folder}"
            ) from error
    show_study(document, sys.stderr)
    page = _study_page(folder, document)
    if json:
        say(f"Report: {page}")
        print_json(document)
    else:
        print_line(str(page))


def _study_page(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a study's page; what was measured must not be lost to a chart that cannot be drawn."""
    try:
        from llmdyno.cli.rebuild import write_study_page
    except ImportError as error:
        raise DynoError(
            f"the study is done, but its page cannot be drawn: {error}. Its document is"
            f" {folder / 'study.json'}; `dyno report {folder}` makes the page where it can be."
        ) from error
    return write_study_page(folder, document)
