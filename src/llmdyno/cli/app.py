"""The command line: arguments only. Each command builds a spec and calls the part that does it.

Everything heavy is imported inside the commands, so that `dyno --help` answers at once. A flag that
was not given is None here: its default is the spec's own.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno import __version__
from llmdyno.errors import DynoError, InterruptError, StorageError, UsageError

app = typer.Typer(
    name="dyno",
    help="Build an LLM server, put it under load, tune it, and prove the difference.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_THRESHOLD_MISSED = 1


def _option(*names: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002  # typer's own word
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


# What `bench` and `tune` both take.
Text = str | None
Users = Annotated[
    Text,
    _option(
        "-c",
        "--users",
        "--concurrency",
        help="Users, a level each. [10,50,100]",
        metavar="N[,N...]",
    ),
]
Ramp = Annotated[
    Text,
    _option("--ramp", help="Users come, a rate grows within it. [20s or --duration/4; rate: 0s]"),
]
Duration = Annotated[Text, _option("--duration", help="Of a level, its ramp included. [5m]")]
Interval = Annotated[Text, _option("--interval", help="Between samples of the time series. [5s]")]
WorkloadName = Annotated[
    Text, _option("--workload", help="chat, chat-system, synthetic, sessions, file. [chat]")
]
Dataset = Annotated[
    Text,
    _option("--dataset", help="Prompts or a trace: FILE or hf:ORG/NAME.", metavar="FILE"),
]
Isl = Annotated[
    Text, _option("--isl", "--input-len", help="Input tokens: 128, 64-256, normal:128,32.")
]
Osl = Annotated[
    Text, _option("--osl", "--output-len", help="Output tokens, exact. [the model's, up to 512]")
]
SystemPrompt = Annotated[
    Text, _option("--system-prompt", help="Text file put before every prompt.", metavar="FILE")
]
Seed = Annotated[int | None, _option("--seed", help="Of the prompts drawn. [0]")]
ThinkTime = Annotated[
    Text, _option("--think-time", help="A user's pause between requests; 1s-5s: uniform. [10ms]")
]
Timeout = Annotated[Text, _option("--timeout", help="Of one request. [600s]")]
Grace = Annotated[Text, _option("--grace", help="For requests in flight at the end. [30s]")]
Slo = Annotated[
    Text, _option("--slo", "--goodput", help="Thresholds, e.g. 'ttft:p99<2s,tpot:p95<50ms'.")
]
Out = Annotated[Text, _option("--out", help="Folder of the results.", metavar="DIR")]
AsJson = Annotated[
    bool, _option("--json", help="Print the result as one JSON document, last on stdout.")
]
Sets = Annotated[
    list[str] | None,
    _option("--set", help="Set a knob; may be repeated.", metavar="KNOB=VALUE"),
]
EngineName = Annotated[Text, _option("--engine", help="What computes tokens. [openvino]")]
FrontName = Annotated[Text, _option("--front", help="What serves it. [native]")]
ContainerName = Annotated[
    str,
    _option(
        "--container",
        help="Run the engine in its image: auto (if it is not installed), docker, podman,"
        " apptainer. [none]",
    ),
]
Port = Annotated[
    int, typer.Option("--port", help="To listen on. [8000]", min=1, max=65535, show_default=False)
]
ModelName = Annotated[
    Text, _option("--model", "-m", help="A built-in name (tiny, small), a path or a hub id.")
]


# What typer raises for a flag that it cannot read; it does not export it.
_FlagError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run `dyno`; every fault of the world ends in one sentence and an exit status."""
    try:
        ended = app(prog_name="dyno", standalone_mode=False)
        if ended == InterruptError.exit_status:  # what typer makes of Ctrl-C
            _say("dyno: interrupted.")
        sys.exit(ended if isinstance(ended, int) else 0)
    except _FlagError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no command at all: it carries the help
            error.show()
        else:
            command = error.ctx.command_path if error.ctx else "dyno"
            what = error.format_message().strip().rstrip(".")
            _say(f"dyno: {what}; `{command} --help` says what there is.")
        sys.exit(UsageError.exit_status)
    except DynoError as error:
        _say(f"dyno: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # Whoever read our output has had enough; closing the pipe again must not complain.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        sys.exit(0)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, _option("--version", help="Print the version.")] = False,
) -> None:
    """Hold what comes before the command."""
    if version:
        _print(__version__)
        raise typer.Exit


@app.command()
def bench(
    url: Annotated[str, _option("--url", "--base-url", "--target", help="Base URL of the server.")],
    endpoint: Annotated[
        Text, _option("--endpoint", "--endpoint-type", help="Wire protocol. [auto: it is asked]")
    ] = None,
    model: Annotated[
        Text, _option("--model", "-m", help="Model name. [the first that the server lists]")
    ] = None,
    tokenizer: Annotated[
        Text,
        _option(
            "--tokenizer",
            help="tokenizer.json or its folder, for servers that count no tokens.",
            metavar="FILE",
        ),
    ] = None,
    users: Users = None,
    request_rate: Annotated[
        Text,
        _option("--request-rate", help="Requests a second, a level each: open loop.", metavar="R"),
    ] = None,
    arrival: Annotated[
        Text,
        _option("--arrival", help="constant, poisson, gamma, trace. [poisson]"),
    ] = None,
    burstiness: Annotated[
        float | None, _option("--burstiness", help="Shape of gamma arrivals; below 1 is bursty.")
    ] = None,
    max_concurrency: Annotated[
        int | None,
        _option("--max-concurrency", help="Under an arrival rate: requests under way at once."),
    ] = None,
    time_scale: Annotated[
        float | None, _option("--time-scale", help="2 replays a trace twice as fast. [1]")
    ] = None,
    ramp: Ramp = None,
    duration: Duration = None,
    requests: Annotated[
        int | None,
        _option("--requests", "--num-prompts", help="Per level, instead of a duration."),
    ] = None,
    repeat: Annotated[
        int | None, _option("--repeat", help="Times all levels are run, in rounds. [1]")
    ] = None,
    repeat_until: Annotated[
        Text,
        _option(
            "--repeat-until",
            help="No further round once each token rate is known to this, e.g. 2%.",
        ),
    ] = None,
    interval: Interval = None,
    workload: WorkloadName = None,
    dataset: Dataset = None,
    isl: Isl = None,
    osl: Osl = None,
    dataset_osl: Annotated[
        bool | None, _option("--dataset-osl", help="Answers exactly as long as the data set's.")
    ] = None,
    unique: Annotated[
        bool | None,
        _option("--unique", help="No two prompts alike: no cache of prefixes helps."),
    ] = None,
    turns: Annotated[
        Text, _option("--turns", help="Of a session of our own prompts: 4, 2-6. [2-6]")
    ] = None,
    system_prompt: SystemPrompt = None,
    seed: Seed = None,
    think_time: ThinkTime = None,
    timeout: Timeout = None,
    grace: Grace = None,
    max_errors: Annotated[
        int | None, _option("--max-errors", help="So many failed requests end the run.")
    ] = None,
    max_error_rate: Annotated[
        float | None, _option("--max-error-rate", help="As does this share of the last 50.")
    ] = None,
    slo: Slo = None,
    ca_cert: Annotated[
        Text, _option("--ca-cert", help="PEM file of whom to trust.", metavar="FILE")
    ] = None,
    insecure: Annotated[
        bool | None, _option("--insecure", help="Do not check the server's certificate.")
    ] = None,
    proxy: Annotated[
        Text, _option("--proxy", help="HTTP proxy; variables of the environment are not read.")
    ] = None,
    calibration: Annotated[
        bool | None,
        _option("--calibration/--no-calibration", help="Measure the client first, 2 s. [yes]"),
    ] = None,
    scrape: Annotated[
        bool | None,
        _option("--scrape/--no-scrape", help="Cross-check with the server's /metrics. [yes]"),
    ] = None,
    workers: Annotated[
        Text, _option("--workers", help="Processes that a level is spread over: N, auto. [1]")
    ] = None,
    ray: Annotated[
        Text, _option("--ray", help="Workers on the machines of this Ray cluster.", metavar="ADDR")
    ] = None,
    metrics_url: Annotated[
        Text, _option("--metrics-url", help="The server's metrics page, where it is elsewhere.")
    ] = None,
    until: Annotated[
        bool | None, _option("--until", help="Search the highest load that meets the SLOs.")
    ] = None,
    until_budget: Annotated[
        Text, _option("--until-budget", help="Of the search, about 20 levels. [10m]")
    ] = None,
    api_key_env: Annotated[
        str, _option("--api-key-env", help="Variable with the API key. [LLMDYNO_API_KEY]")
    ] = "LLMDYNO_API_KEY",
    metrics_port: Annotated[
        int | None, _option("--metrics-port", help="Serve live Prometheus metrics on loopback.")
    ] = None,
    junit: Annotated[
        Path | None, _option("--junit", help="Also write the SLOs as JUnit XML.", metavar="FILE")
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Put a server under load and measure it."""
    _import_numpy()
    given = _given(locals(), without=("api_key_env", "metrics_port", "junit", "out", "json"))
    from llmdyno import store
    from llmdyno.bench.run import Watcher, run, run_id
    from llmdyno.cli.flags import bench_spec
    from llmdyno.results.junit import write_junit
    from llmdyno.results.summary import summarise
    from llmdyno.store import JOURNAL
    from llmdyno.terminal.summary import Live, console, show_summary

    spec = bench_spec(given)
    if junit is not None:
        store.check_file("--junit", junit)
    folder = store.choose_folder(out, store.RUNS, run_id(spec), JOURNAL)
    # A search does not know how many levels it will take.
    levels = () if spec.until else [load for _, load in spec.levels]
    live = Live(levels, interval_s=spec.load.interval_s, stream=sys.stderr)
    try:
        outcome = run(
            spec,
            folder,
            api_key=os.environ.get(api_key_env),
            watcher=Watcher(report_progress=live.show),
            metrics_port=metrics_port,
        )
    except StorageError:
        if (folder / JOURNAL).exists():
            kept = summarise(folder / JOURNAL)
            show_summary(kept, console())
            _say(f"Results: {folder}; with room again, `dyno report {folder}` writes their summary")
            if json:
                _print_json(kept)
        raise
    show_summary(outcome.summary, console())
    _say(f"Results: {folder}")
    if json:
        _print_json(outcome.summary)
    if junit is not None:
        write_junit(outcome.summary, junit)
    if outcome.interrupted:
        raise InterruptError("interrupted; what was measured until then is kept.")
    if outcome.stopped:
        raise DynoError(f"ended early: {outcome.stopped}; what was measured until then is kept.")
    if not any(level["requests"]["completed"] for level in outcome.summary["levels"]):
        raise DynoError(f"{url}: not one request was completed.")
    if spec.until:
        capacity = outcome.summary["capacity"]
        missed = capacity.get("users", capacity.get("rate")) is None
        raise typer.Exit(EXIT_THRESHOLD_MISSED if missed else 0)
    if not all(verdict["met"] for verdict in outcome.summary["slo"]):
        raise typer.Exit(EXIT_THRESHOLD_MISSED)


@app.command(short_help="Build what an engine serves, or find it built already.")
def build(
    engine: EngineName = "openvino",
    model: ModelName = "tiny",
    settings: Sets = None,
    dry_run: Annotated[bool, _option("--dry-run", help="Print the commands, run nothing.")] = False,
    script: Annotated[
        Path | None,
        _option("--script", help="Write a script that builds elsewhere.", metavar="FILE"),
    ] = None,
    container: ContainerName = "none",
    json: AsJson = False,
) -> None:
    """Build what an engine serves, or find it built already; print its folder."""
    from llmdyno import store
    from llmdyno.serve import build as build_of

    subject, config = _subject(engine, None, model, settings)
    if script is not None:
        store.check_file("--script", script)
    if container != "none":
        subject = subject.placed(container, here=not (dry_run or script))
    built = (subject.engine, subject.model, config, subject.container)
    document: dict[str, Any] = {"commands": build_of.commands(*built)}
    if not document["commands"]:
        _say(f"{subject.engine.name} serves '{subject.model}' as it is: nothing to build.")
    elif script is not None:
        build_of.write_script(script, *built)
        _print(str(script))
    elif dry_run:
        for command in document["commands"]:
            _print(command)
    else:
        if subject.container is None:
            subject.require_engine()
        with _terminate_as_interrupt():
            artifact = subject.build(config, notify=_say)
        how, size_mb = "Found" if artifact.cached else "Built", artifact.manifest.size_bytes / 1e6
        _say(f"{how} in {artifact.took_s:.1f} s, {size_mb:,.1f} MB.")
        document |= {"artifact": str(artifact.path), "cached": artifact.cached}
        document |= {"seconds": artifact.took_s, "manifest": artifact.manifest}
        if not json:
            _print(str(artifact.path))
    if json:
        _print_json(document)


artifacts_app = typer.Typer(
    help="List what was built, or remove it.", add_completion=False, rich_markup_mode=None
)
app.add_typer(artifacts_app, name="artifacts")


@artifacts_app.callback(invoke_without_command=True)
def artifacts_top(context: typer.Context, json: AsJson = False) -> None:
    """List what was built, or remove it."""
    if context.invoked_subcommand is None:
        artifacts_list(json)


@artifacts_app.command(name="list")
def artifacts_list(json: AsJson = False) -> None:
    """List what was built, last used first."""
    from llmdyno.terminal.lists import list_artifacts, show_artifacts

    rows = list_artifacts()
    if json:
        _print_json(rows)
    else:
        show_artifacts(rows, sys.stdout)


@artifacts_app.command()
def remove(ids: Annotated[list[str], typer.Argument(help="Ids, or beginnings of ids.")]) -> None:
    """Remove artifacts."""
    from llmdyno.serve import artifacts

    for name in artifacts.remove(ids):
        _print(name)


@artifacts_app.command(short_help="Remove damaged, left over and old artifacts.")
def prune(
    older_than: Annotated[
        Text, _option("--older-than", help="Also what was not used for so long, e.g. 30d.")
    ] = None,
    keep: Annotated[
        int | None, _option("--keep", help="Also all but so many, those last used.")
    ] = None,
    all_: Annotated[bool, _option("--all", help="Also everything else.")] = False,
) -> None:
    """Remove damaged artifacts and what is left of builds that were cut off."""
    from llmdyno.errors import UsageError
    from llmdyno.serve import artifacts
    from llmdyno.units import seconds

    if keep is not None and keep < 0:
        raise UsageError(f"--keep {keep}: must be at least 0.")
    removed = artifacts.prune(
        older_than_s=None if older_than is None else seconds(older_than, "--older-than"),
        keep=0 if all_ else keep,
    )
    for name in removed:
        _print(name)
    _say(f"{len(removed)} removed.")


@app.command()
def serve(
    engine: EngineName = "openvino",
    front: FrontName = "native",
    model: ModelName = "tiny",
    settings: Sets = None,
    host: Annotated[str, _option("--host", help="Address to listen on. [127.0.0.1]")] = "127.0.0.1",
    port: Port = 8000,
    container: ContainerName = "none",
) -> None:
    """Serve a model with an engine until it is told to stop."""
    from llmdyno import store
    from llmdyno.processes import ports, server

    subject, config = _subject(engine, front, model, settings)
    subject.check_served(config)
    subject = subject.placed(container)
    ports.require_free(host, port)
    with store.temporary_folder("dyno-serve") as folder:
        with _terminate_as_interrupt():
            launch = subject.launch(config, folder=folder, host=host, port=port, notify=_say)
        status = server.foreground(launch, announce=_say)
    raise typer.Exit(status)


@app.command(short_help="Write what serves a config, or a study's winner, elsewhere.")
def deploy(
    engine: EngineName = None,
    front: FrontName = None,
    model: ModelName = None,
    settings: Sets = None,
    study: Annotated[
        Text, _option("--study", help="Deploy the winner of this study.", metavar="STUDY")
    ] = None,
    target: Annotated[
        str, _option("--target", help="script, compose, kubernetes, triton, bento. [all]")
    ] = "all",
    port: Port = 8000,
    image: Annotated[str, _option("--image", help="Container image. [the engine's]")] = "",
    out: Annotated[
        str, _option("--out", help="Folder of the bundle. [bundle]", metavar="DIR")
    ] = "bundle",
    json: AsJson = False,
) -> None:
    """Write what serves a config elsewhere: script, compose file, Kubernetes manifests."""
    from llmdyno import deploy as bundle
    from llmdyno import store

    if not out:
        raise UsageError("--out: is empty; name a folder.")
    folder = Path(out)
    store.check_folder(folder)

    if study is None:
        document = None
        subject, config = _subject(engine, front, model, settings)
    else:
        subject, config, document = _winner(study, given=[engine, front, model, settings])
    files = bundle.write(
        folder,
        subject,
        config,
        target=target,
        port=port,
        image=image,
        study=document,
        notify=_say,
    )
    if json:
        _print_json({"bundle": str(folder), "files": files})
    else:
        _print(str(folder))


@app.command(short_help="Find better settings, and prove it.")
def tune(
    file: Annotated[
        Path | None, typer.Argument(help="TOML file with any of these flags.", show_default=False)
    ] = None,
    engine: EngineName = None,
    front: FrontName = None,
    model: ModelName = None,
    settings: Annotated[
        list[str] | None,
        _option("--set", help="Set a knob of the baseline; may be repeated.", metavar="KNOB=VALUE"),
    ] = None,
    objective: Annotated[Text, _option("--objective", help="What to better. [token_rate]")] = None,
    slo: Slo = None,
    search: Annotated[
        Text,
        _option("--search", help="Knobs to search. [all with a range]", metavar="KNOB[,KNOB...]"),
    ] = None,
    trials: Annotated[int | None, _option("--trials", help="Configs to try. [20]")] = None,
    budget: Annotated[Text, _option("--budget", help="No trial starts after it, e.g. 2h.")] = None,
    pairs: Annotated[int | None, _option("--pairs", help="Of the confirmation. [3]")] = None,
    trial_duration: Annotated[
        Text, _option("--trial-duration", help="Of a trial, its ramp included. [30s]")
    ] = None,
    warmup: Annotated[
        Text, _option("--warmup", help="Load on each fresh server that does not count. [5s]")
    ] = None,
    allow_altered_output: Annotated[
        bool | None,
        _option("--allow-altered-output", help="Also try knobs that may change the tokens."),
    ] = None,
    users: Users = None,
    ramp: Ramp = None,
    duration: Annotated[
        Text, _option("--duration", help="Of a level before and after. [60s]")
    ] = None,
    interval: Interval = None,
    workload: WorkloadName = None,
    dataset: Dataset = None,
    isl: Isl = None,
    osl: Osl = None,
    system_prompt: SystemPrompt = None,
    seed: Seed = None,
    quick: Annotated[
        bool, _option("--quick", help="A profile for two CPU cores and about six minutes.")
    ] = False,
    resume: Annotated[
        Text, _option("--resume", help="Go on with a stopped study.", metavar="STUDY")
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Find better settings, and prove it: before, search, after, interleaved pairs."""
    _import_numpy()
    given = _given(locals(), without=("file", "settings", "quick", "resume", "out", "json"))
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
            _, config = _subject(study.engine, study.front, study.model, settings)
            study = flags.with_baseline(study, config)
        name = store.new_id(f"{study.engine}-{Path(study.model).name}")
        folder = store.choose_folder(out, store.STUDIES, name, LEDGER)
    with _terminate_as_interrupt():
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
        _say(f"Report: {page}")
        _print_json(document)
    else:
        _print(str(page))


@app.command(short_help="Make summaries and reports again from what was measured.")
def report(
    names: Annotated[
        list[str], typer.Argument(help="Runs or studies: folders or ids.", metavar="NAME")
    ],
    out: Annotated[
        Text, _option("--out", help="Where to write. [the folder of the run]", metavar="DIR")
    ] = None,
    json: AsJson = False,
) -> None:
    """Make the summary and the report of runs or studies again from what was measured."""
    from llmdyno import store
    from llmdyno.cli.rebuild import rebuild

    if out == "":
        raise UsageError("--out: is empty; name a folder.")
    if out is not None and len(names) > 1:
        raise UsageError(f"--out {out}: takes the report of one run or study; name one at a time.")
    for folder in [store.find(name) for name in names]:
        document, page = rebuild(folder, None if out is None else Path(out))
        if json:
            _print_json(document)
        else:
            _print(str(page))


@app.command()
def compare(
    before: Annotated[str, typer.Argument(help="A run: its folder or id.")],
    after: Annotated[str, typer.Argument(help="Another run.")],
    out: Annotated[str, _option("--out", help="The page. [compare.html]")] = "compare.html",
) -> None:
    """Set two runs side by side."""
    from llmdyno import store
    from llmdyno.cli.rebuild import run_summary
    from llmdyno.report import compare_page

    store.check_file("--out", Path(out))
    first, second = (run_summary(store.find(name)) for name in (before, after))
    store.write_atomically(Path(out), compare_page(first, second).encode())
    _print(out)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A run: its folder or id.")],
    csv: Annotated[Path | None, _option("--csv", help="CSV file to write.", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, _option("--parquet", help="Parquet file to write.", metavar="FILE")
    ] = None,
) -> None:
    """Write a run's requests as a table, one row each."""
    from llmdyno import store
    from llmdyno.errors import UsageError
    from llmdyno.results.export import write_csv, write_parquet

    if csv is None and parquet is None:
        raise UsageError("dyno export: name a file with --csv or --parquet.")
    folder = store.find(name)
    for target, write in ((csv, write_csv), (parquet, write_parquet)):
        if target is not None:
            _say(f"{write(folder, target):,} requests")
            _print(str(target))


@app.command(name="import", short_help="Take in another tool's result as a run.")
def import_(
    file: Annotated[Path, typer.Argument(help="A result file of another load generator.")],
    tool: Annotated[
        Text, _option("--from", help="vllm, aiperf, guidellm or genai-perf. [told by its content]")
    ] = None,
    out: Out = None,
) -> None:
    """Take in another tool's result as a run, with notes on what it defines otherwise."""
    from llmdyno import store
    from llmdyno.errors import UsageError
    from llmdyno.importers import import_file, run_id, store_imported
    from llmdyno.results import doubts
    from llmdyno.store import SUMMARY

    if not file.is_file():
        raise UsageError(f"dyno import {file}: there is no such file.")
    document = import_file(file, tool)
    folder = store.choose_folder(out, store.RUNS, run_id(document), SUMMARY)
    stored = store_imported(document, folder)
    for meaning in stored["spec"]["definitions"].items():
        _say(": ".join(meaning))
    for doubt in doubts.of(stored):
        _say(f"! {doubt.sentence}")
    _print(str(folder))


@app.command()
def runs(json: AsJson = False) -> None:
    """List the runs and studies in this folder."""
    from llmdyno.terminal.lists import list_runs, show_runs

    rows = list_runs()
    if json:
        _print_json(rows)
    else:
        show_runs(rows, sys.stdout)


@app.command(short_help="Explain the settings of an engine or a front.")
def knobs(
    engine: Annotated[str, typer.Argument(help="The name of an engine or a front.")],
    knob: Annotated[Text, typer.Argument(help="One of its knobs.", show_default=False)] = None,
) -> None:
    """Explain what the settings of an engine or a front do, when to turn them, what they cost."""
    from llmdyno import plugins
    from llmdyno.terminal.lists import show_knob, show_knobs

    is_front = engine in plugins.names("fronts")
    found = plugins.load("fronts" if is_front else "engines", engine)
    version = None if is_front else found.version()
    if knob is not None:
        show_knob(found, knob, version, sys.stdout)
    else:
        show_knobs(found, version, sys.stdout)


@app.command(short_help="Describe this machine, and the engines on it.")
def env(json: AsJson = False) -> None:
    """Describe this machine: CPU, GPUs, memory, engines and versions found."""
    from llmdyno.machine import environment
    from llmdyno.terminal.lists import show_facts

    facts = environment.describe()
    if json:
        _print_json(facts)
    else:
        show_facts(facts, environment.warnings(facts), sys.stdout)


@app.command(short_help="Measure this client itself: how exact, how fast.")
def selftest(json: AsJson = False) -> None:
    """Measure this client itself, against a server of known timing: how exact, how fast."""
    _import_numpy()
    import uvloop

    from llmdyno.calibration.selftest import selftest as measure_client
    from llmdyno.terminal.summary import console, show_selftest

    document = uvloop.run(measure_client(_say))
    show_selftest(document, console())
    if json:
        _print_json(document)


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


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, so that servers are stopped and results kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _given(values: Mapping[str, Any], *, without: tuple[str, ...]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {
        name: value for name, value in values.items() if value is not None and name not in without
    }


def _winner(name: str, *, given: list[Any]) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return what won a study, its config and the study's document."""
    from llmdyno import store
    from llmdyno.errors import UsageError
    from llmdyno.tune.ledger import Ledger
    from llmdyno.tune.study import study_document
    from llmdyno.tune.tuner import open_study, subject_of

    if any(given):
        raise UsageError(
            f"--study {name}: says engine, front, model and settings; leave out --engine, --front,"
            " --model and --set."
        )
    folder = store.find(name)
    subject = subject_of(open_study(folder))
    document = study_document(folder, Ledger(folder), subject)
    if document["best"] is None:
        raise UsageError(
            f"--study {name}: nothing was measured yet; go on with dyno tune --resume."
        )
    config = document["best"]["config"]
    subject.check(config)
    return subject, config, document


def _import_numpy() -> None:
    """Import numpy without the threads of its BLAS, which measure nothing and spin as they start.

    The variable goes at once: servers that we start are not to inherit it.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy as np  # noqa: F401
    finally:
        del os.environ[name]


def _subject(engine: Text, front: Text, model: Text, settings: list[str] | None) -> Any:
    """Return what to serve and the checked config."""
    from llmdyno import plugins
    from llmdyno.knobs import parse_settings
    from llmdyno.serve.equivalents import refuse_others_knobs
    from llmdyno.serve.stack import Stack

    subject = Stack(
        engine=plugins.load("engines", "openvino" if engine is None else engine),
        front=plugins.load("fronts", "native" if front is None else front),
        model="tiny" if model is None else model,
    )
    knobs = (*subject.engine.knobs, *subject.front.knobs)
    refuse_others_knobs(settings or [], subject.engine, subject.front, knobs)
    config = parse_settings(settings or [], knobs)
    subject.check(config)
    return subject, config


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print_json(document: Any) -> None:
    import msgspec

    _print(msgspec.json.encode(document).decode())


if __name__ == "__main__":
    main()
