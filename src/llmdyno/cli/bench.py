"""`dyno bench` and `dyno selftest`: what measures, a server or this client."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmdyno.cli.options import (
    AsJson,
    Dataset,
    Duration,
    Grace,
    Interval,
    Isl,
    Osl,
    Out,
    Ramp,
    Seed,
    Slo,
    SystemPrompt,
    Text,
    ThinkTime,
    Timeout,
    Users,
    WorkloadName,
    given_flags,
    option,
)
from llmdyno.cli.output import import_numpy, print_json, say
from llmdyno.errors import DynoError, InterruptError, StorageError

EXIT_THRESHOLD_MISSED = 1


def bench(
    url: Annotated[str, option("--url", "--base-url", "--target", help="Base URL of the server.")],
    endpoint: Annotated[
        Text, option("--endpoint", "--endpoint-type", help="Wire protocol. [auto: it is asked]")
    ] = None,
    model: Annotated[
        Text, option("--model", "-m", help="Model name. [the first that the server lists]")
    ] = None,
    tokenizer: Annotated[
        Text,
        option(
            "--tokenizer",
            help="tokenizer.json or its folder, for servers that count no tokens.",
            metavar="FILE",
        ),
    ] = None,
    users: Users = None,
    request_rate: Annotated[
        Text,
        option("--request-rate", help="Requests a second, a level each: open loop.", metavar="R"),
    ] = None,
    arrival: Annotated[
        Text,
        option("--arrival", help="constant, poisson, gamma, trace. [poisson]"),
    ] = None,
    burstiness: Annotated[
        float | None, option("--burstiness", help="Shape of gamma arrivals; below 1 is bursty.")
    ] = None,
    max_concurrency: Annotated[
        int | None,
        option("--max-concurrency", help="Under an arrival rate: requests under way at once."),
    ] = None,
    time_scale: Annotated[
        float | None, option("--time-scale", help="2 replays a trace twice as fast. [1]")
    ] = None,
    ramp: Ramp = None,
    duration: Duration = None,
    requests: Annotated[
        int | None,
        option("--requests", "--num-prompts", help="Per level, instead of a duration."),
    ] = None,
    repeat: Annotated[
        int | None, option("--repeat", help="Times all levels are run, in rounds. [1]")
    ] = None,
    repeat_until: Annotated[
        Text,
        option(
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
        bool | None, option("--dataset-osl", help="Answers exactly as long as the data set's.")
    ] = None,
    unique: Annotated[
        bool | None,
        option("--unique", help="No two prompts alike: no cache of prefixes helps."),
    ] = None,
    turns: Annotated[
        Text, option("--turns", help="Of a session of our own prompts: 4, 2-6. [2-6]")
    ] = None,
    system_prompt: SystemPrompt = None,
    seed: Seed = None,
    think_time: ThinkTime = None,
    timeout: Timeout = None,
    grace: Grace = None,
    max_errors: Annotated[
        int | None, option("--max-errors", help="So many failed requests end the run.")
    ] = None,
    max_error_rate: Annotated[
        float | None, option("--max-error-rate", help="As does this share of the last 50.")
    ] = None,
    slo: Slo = None,
    ca_cert: Annotated[
        Text, option("--ca-cert", help="PEM file of whom to trust.", metavar="FILE")
    ] = None,
    insecure: Annotated[
        bool | None, option("--insecure", help="Do not check the server's certificate.")
    ] = None,
    proxy: Annotated[
        Text, option("--proxy", help="HTTP proxy; variables of the environment are not read.")
    ] = None,
    calibration: Annotated[
        bool | None,
        option("--calibration/--no-calibration", help="Measure the client first, 2 s. [yes]"),
    ] = None,
    scrape: Annotated[
        bool | None,
        option("--scrape/--no-scrape", help="Cross-check with the server's /metrics. [yes]"),
    ] = None,
    workers: Annotated[
        Text, option("--workers", help="Processes that a level is spread over: N, auto. [1]")
    ] = None,
    ray: Annotated[
        Text, option("--ray", help="Workers on the machines of this Ray cluster.", metavar="ADDR")
    ] = None,
    metrics_url: Annotated[
        Text, option("--metrics-url", help="The server's metrics page, where it is elsewhere.")
    ] = None,
    until: Annotated[
        bool | None, option("--until", help="Search the highest load that meets the SLOs.")
    ] = None,
    until_budget: Annotated[
        Text, option("--until-budget", help="Of the search, about 20 levels. [10m]")
    ] = None,
    api_key_env: Annotated[
        str, option("--api-key-env", help="Variable with the API key. [LLMDYNO_API_KEY]")
    ] = "LLMDYNO_API_KEY",
    metrics_port: Annotated[
        int | None, option("--metrics-port", help="Serve live Prometheus metrics on loopback.")
    ] = None,
    junit: Annotated[
        Path | None, option("--junit", help="Also write the SLOs as JUnit XML.", metavar="FILE")
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Put a server under load and measure it."""
    import_numpy()
    given = given_flags(locals(), without=("api_key_env", "metrics_port", "junit", "out", "json"))
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
            watcher=Watcher(shows=live.show),
            metrics_port=metrics_port,
        )
    except StorageError:
        if (folder / JOURNAL).exists():
            kept = summarise(folder / JOURNAL)
            show_summary(kept, console())
            say(f"Results: {folder}; with room again, `dyno report {folder}` writes their summary")
            if json:
                print_json(kept)
        raise
    show_summary(outcome.summary, console())
    say(f"Results: {folder}")
    if json:
        print_json(outcome.summary)
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


def selftest(json: AsJson = False) -> None:
    """Measure this client itself, against a server of known timing: how exact, how fast."""
    import_numpy()
    import uvloop

    from llmdyno.calibration.selftest import selftest as measure_client
    from llmdyno.terminal.summary import console, show_selftest

    document = uvloop.run(measure_client(say))
    show_selftest(document, console())
    if json:
        print_json(document)
