"""The command line: arguments only. Each command builds a spec and calls the part that does it.

Everything heavy is imported inside the commands, so that `dyno --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llmdyno import __version__
from llmdyno.errors import DynoError

app = typer.Typer(
    name="dyno",
    help="Build an LLM server, put it under load, tune it, and prove the difference.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_SLO_MISSED = 1
EXIT_INTERRUPTED = 130

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Set a knob; repeat it.")
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document, last on stdout.")
]


def main() -> None:
    """Run `dyno`; every fault of the world ends in one sentence and an exit status."""
    try:
        app()
    except DynoError as error:
        print(f"dyno: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("dyno: interrupted.", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough; closing the pipe again must not complain.
        sys.stderr.close()
        sys.exit(0)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Hold what comes before the command."""
    if version:
        print(__version__)  # noqa: T201
        raise typer.Exit


@app.command()
def bench(
    url: Annotated[
        str, typer.Option("--url", "--base-url", "--target", help="Base URL of the server.")
    ],
    endpoint: Annotated[
        str, typer.Option("--endpoint", "--endpoint-type", help="Wire protocol; auto asks.")
    ] = "auto",
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name; default: the first one listed.")
    ] = "",
    users: Annotated[
        str,
        typer.Option(
            "-c", "--concurrency", "--users", metavar="N[,N...]", help="Users, a level each."
        ),
    ] = "10,50,100",
    ramp: Annotated[
        str,
        typer.Option(
            help="Users come within it; default 20s, or a quarter of --duration if shorter."
        ),
    ] = "",
    duration: Annotated[str, typer.Option(help="Of each level, its ramp included.")] = "5m",
    requests: Annotated[
        int | None,
        typer.Option("--requests", "--num-prompts", help="Per level, instead of a duration."),
    ] = None,
    interval: Annotated[str, typer.Option(help="Between samples of the time series.")] = "5s",
    workload: Annotated[
        str, typer.Option(help="chat, chat-system, synthetic (with --isl) or file.")
    ] = "",
    dataset: Annotated[
        str | None, typer.Option(help="JSONL or CSV file of prompts.", metavar="FILE")
    ] = None,
    isl: Annotated[
        str | None,
        typer.Option("--isl", "--input-len", help="Input tokens: 128, 64-256, normal:128,32."),
    ] = None,
    osl: Annotated[
        str | None,
        typer.Option("--osl", "--output-len", help="Output tokens, exact; else up to 512."),
    ] = None,
    system_prompt: Annotated[
        str | None, typer.Option(help="Text file put before every prompt.", metavar="FILE")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts drawn.")] = 0,
    think_time: Annotated[str, typer.Option(help="A user's pause between requests.")] = "10ms",
    timeout: Annotated[str, typer.Option(help="Of one request.")] = "600s",
    grace: Annotated[str, typer.Option(help="For requests in flight at the end.")] = "30s",
    slo: Annotated[
        str | None, typer.Option(help="Thresholds, e.g. 'ttft:p99<2s,tpot:p95<50ms'.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the server's API key.")
    ] = "LLMDYNO_API_KEY",
    out: Annotated[str | None, typer.Option(help="Folder of the results.", metavar="DIR")] = None,
    json: JsonFlag = False,
) -> None:
    """Put a server under load and measure it."""
    import os

    from llmdyno import spec, store, units
    from llmdyno.bench import JOURNAL, Watcher, bench, run_id
    from llmdyno.display import Live, console, show_summary

    asked = spec.Bench(
        url=url,
        endpoint=endpoint,
        model=model,
        workload=_workload(workload, dataset, isl, osl, system_prompt, seed),
        load=spec.Load(
            users=_users(users),
            ramp_s=units.seconds(ramp, "--ramp") if ramp else None,
            duration_s=units.seconds(duration, "--duration"),
            requests=requests,
            interval_s=units.seconds(interval, "--interval"),
            think_s=units.seconds(think_time, "--think-time"),
            timeout_s=units.seconds(timeout, "--timeout"),
            grace_s=units.seconds(grace, "--grace"),
        ),
        slos=spec.parse_slos(slo),
    )
    folder = store.choose_folder(out, store.RUNS, run_id(asked), JOURNAL)
    live = Live(asked.load.users, interval_s=asked.load.interval_s, stream=sys.stderr)
    outcome = bench(
        asked,
        folder,
        api_key=os.environ.get(api_key_env),
        watcher=Watcher(shows=live.show),
    )
    people = console()
    show_summary(outcome.summary, people)
    people.print(f"Results: {folder}", soft_wrap=True)
    if json:
        _print_json(outcome.summary)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not any(level["requests"]["completed"] for level in outcome.summary["levels"]):
        people.print("dyno: no request was completed.")
        raise typer.Exit(DynoError.exit_status)
    if not all(verdict["met"] for verdict in outcome.summary["slo"]):
        raise typer.Exit(EXIT_SLO_MISSED)


def _users(text: str) -> tuple[int, ...]:
    from llmdyno.errors import UsageError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"-c {text}: write whole numbers, e.g. 10,50,100.") from error


def _workload(
    name: str,
    dataset: str | None,
    isl: str | None,
    osl: str | None,
    system_prompt: str | None,
    seed: int,
) -> Any:
    from llmdyno import spec, units
    from llmdyno.errors import UsageError

    if not name:
        name = "file" if dataset else "synthetic" if isl else "chat"
    text = ""
    if system_prompt:
        try:
            text = Path(system_prompt).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--system-prompt {system_prompt}: cannot be read: {error}") from error
    return spec.Workload(
        name=name,
        dataset=dataset,
        isl=units.lengths(isl, "--isl") if isl else None,
        osl=units.lengths(osl, "--osl") if osl else None,
        system_prompt=text,
        seed=seed,
    )


def _print_json(document: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
