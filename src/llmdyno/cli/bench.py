"""`dyno bench` and `dyno selftest`: what measures, a server or this client."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno.cli.dashboards import Dashboard, bench_page
from llmdyno.cli.flags import Given, bench_flags, bench_spec, secrets_of
from llmdyno.cli.options import RESULTS, ApiKeyEnv, AsJson, Out, command, option
from llmdyno.cli.output import EXIT_THRESHOLD_MISSED, print_json, print_line, say
from llmdyno.errors import DynoError, InterruptError, StorageError
from llmdyno.machine.blas import import_numpy
from llmdyno.spec import Bench


@command(bench_flags())
def bench(
    given: Given,
    api_key_env: ApiKeyEnv = None,
    metrics_port: Annotated[
        int | None,
        option(
            "--metrics-port",
            help="Port of 127.0.0.1 for live Prometheus metrics of the run.",
            metavar="PORT",
            heading=RESULTS,
        ),
    ] = None,
    dashboard: Dashboard = None,
    junit: Annotated[
        Path | None,
        option(
            "--junit", help="Also write the SLOs as JUnit XML.", metavar="FILE", heading=RESULTS
        ),
    ] = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Put a server under load and measure it."""
    if "slo" in given or dashboard is not None or metrics_port is not None:
        import_numpy()  # else it comes after the last level
    from llmdyno import store, workload
    from llmdyno.bench.run import Watcher, run, run_id
    from llmdyno.store import JOURNAL
    from llmdyno.terminal.live import Live

    spec = bench_spec(given)
    secrets = secrets_of(spec, api_key_env)
    if junit is not None:
        store.check_file("--junit", junit)
    folder = store.choose_folder(out, store.RUNS, run_id(spec), JOURNAL)
    for note in workload.notes(spec.workload):
        say(note)
    levels = () if spec.until else [load for _, load in spec.levels]  # a search cannot know them
    live = Live(levels, interval_s=spec.load.interval_s, stream=sys.stderr)
    try:
        with bench_page(dashboard, spec, folder, live.show) as (show, page):
            outcome = run(
                spec,
                folder,
                secrets=secrets,
                watcher=Watcher(report_progress=show),
                metrics_port=metrics_port,
            )
            if page is not None:
                page.show_summary(outcome.summary)
    except StorageError:
        if (folder / JOURNAL).exists():
            import_numpy()
            from llmdyno.results.summary import summarise
            from llmdyno.terminal.summary import console, show_summary

            kept = summarise(folder / JOURNAL)
            show_summary(kept, console())
            again = shlex.join(["dyno", "report", str(folder)])
            say(f"Results: {folder}; with room again, `{again}` writes their summary")
            if json:
                print_json(kept)
        raise
    # Imported now: a run begins without what shows its numbers, and without numpy.
    from llmdyno.predict.limits import run_with_limits
    from llmdyno.terminal.summary import console, show_summary

    show_summary(run_with_limits(outcome.summary), console())
    if junit is not None:
        from llmdyno.results.junit import write_junit  # imports an XML library

        write_junit(outcome.summary, junit)
    if json:
        say(f"Results: {folder}")
        print_json(outcome.summary)
    else:
        print_line(str(folder))
    if outcome.interrupted:
        raise InterruptError("interrupted; what was measured until then is kept.")
    if outcome.stopped:
        raise DynoError(f"ended early: {outcome.stopped}; what was measured until then is kept.")
    raise typer.Exit(_status(spec, outcome.summary))


def _status(spec: Bench, summary: Mapping[str, Any]) -> int:
    """Return the exit status of a benchmark that ran to its end: whether its thresholds were met.

    Raises:
        DynoError: not one request was completed.
    """
    if not any(level["requests"]["completed"] for level in summary["levels"]):
        raise DynoError(f"{spec.url}: not one request was completed.")
    if spec.until:
        capacity = summary["capacity"]
        missed = capacity.get("users", capacity.get("rate")) is None
    else:
        missed = not all(verdict["met"] for verdict in summary["slo"])
    return EXIT_THRESHOLD_MISSED if missed else 0


@command()
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
