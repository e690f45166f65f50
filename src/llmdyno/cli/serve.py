"""`dyno serve`, `dyno build` and `dyno artifacts`: what is served, and what is built for it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from llmdyno.cli.flags import Given, study_flags, study_spec
from llmdyno.cli.help import Command
from llmdyno.cli.options import AsJson, ContainerName, Port, Sets, Text, command, option
from llmdyno.cli.output import print_json, print_line, say, terminate_as_interrupt
from llmdyno.errors import UsageError
from llmdyno.flag import Field
from llmdyno.knobs import Config
from llmdyno.tune.spec import ENGINE_ARG, Study

if TYPE_CHECKING:
    from llmdyno.processes.launch import Launch
    from llmdyno.processes.presence import Served
    from llmdyno.serve.stack import Stack


_OF_ONE: dict[str, dict[str, Any]] = {
    "engine": {"metavar": "NAME"},
    "front": {"metavar": "NAME"},
    "engine_arg": {"help": ENGINE_ARG},
}


def stack_flags(*names: str) -> list[Field]:
    """Return the flags of these names that a command shares with `dyno tune`, which takes several.

    What serves takes one engine and one front, and its help speaks of no more.
    """
    return [
        msgspec.structs.replace(
            field, flag=msgspec.structs.replace(field.flag, **_OF_ONE.get(field.name, {}))
        )
        for field in study_flags()
        if field.name in names
    ]


@command(stack_flags("engine", "model"))
def build(
    given: Given,
    settings: Sets = None,
    dry_run: Annotated[bool, option("--dry-run", help="Print the commands, run none.")] = False,
    script: Annotated[
        Path | None,
        option("--script", help="Write a script that builds on another machine.", metavar="FILE"),
    ] = None,
    container: ContainerName = "none",
    json: AsJson = False,
) -> None:
    """Build what an engine serves, or find it built already; print its folder."""
    from llmdyno import store
    from llmdyno.serve import build as build_of

    stack, config = checked_stack(study_spec(given), settings)
    if script is not None:
        store.check_file("--script", script)
    if container != "none":
        stack = stack.placed(container, here=not (dry_run or script))
    built = (stack.engine, stack.model, config, stack.container)
    document: dict[str, Any] = {"commands": build_of.commands(*built)}
    if not document["commands"]:
        say(f"{stack.engine.name} serves '{stack.model}' as it is: nothing to build.")
    elif script is not None:
        build_of.write_script(script, *built)
        print_line(str(script))
    elif dry_run:
        for line in document["commands"]:
            print_line(line)
    else:
        if stack.container is None:
            stack.require_engine()
        with terminate_as_interrupt():
            artifact = stack.build(config, notify=say)
        how, size_mb = "Found" if artifact.cached else "Built", artifact.manifest.size_bytes / 1e6
        say(f"{how} in {artifact.took_s:.1f} s, {size_mb:,.1f} MB.")
        document |= {"artifact": str(artifact.path), "cached": artifact.cached}
        document |= {"seconds": artifact.took_s, "manifest": artifact.manifest}
        if not json:
            print_line(str(artifact.path))
    if json:
        print_json(document)


artifacts_app = typer.Typer(
    help="List what was built, or remove it.", add_completion=False, rich_markup_mode=None
)


@artifacts_app.callback(invoke_without_command=True)
def artifacts_top(context: typer.Context, json: AsJson = False) -> None:
    """List what was built, or remove it."""
    if context.invoked_subcommand is None:
        artifacts_list(json=json)


@artifacts_app.command(cls=Command, name="list")
@command()
def artifacts_list(json: AsJson = False) -> None:
    """List what was built, last used first."""
    from llmdyno.terminal.lists import list_artifacts, show_artifacts

    rows = list_artifacts()
    if json:
        print_json(rows)
    else:
        show_artifacts(rows, sys.stdout)


@artifacts_app.command(cls=Command)
@command()
def remove(ids: Annotated[list[str], typer.Argument(help="Ids, or beginnings of ids.")]) -> None:
    """Remove the artifacts of these ids."""
    from llmdyno.serve import artifacts

    for name in artifacts.remove(ids):
        print_line(name)


@artifacts_app.command(cls=Command, short_help="Remove damaged, left over and old artifacts.")
@command()
def prune(
    older_than: Annotated[
        Text,
        option(
            "--older-than",
            help="Also remove what was not used for this long, e.g. 30d.",
            metavar="TIME",
        ),
    ] = None,
    keep: Annotated[
        int | None,
        option("--keep", help="Also remove all but this many, those used last.", metavar="N"),
    ] = None,
    all_: Annotated[bool, option("--all", help="Remove everything.")] = False,
) -> None:
    """Remove damaged artifacts and what is left of builds that were cut off."""
    from llmdyno.serve import artifacts
    from llmdyno.units import seconds

    if keep is not None and keep < 0:
        raise UsageError(f"--keep {keep}: must be at least 0.")
    removed = artifacts.prune(
        older_than_s=None if older_than is None else seconds(older_than, "--older-than"),
        keep=0 if all_ else keep,
    )
    for name in removed:
        print_line(name)
    say(f"{len(removed)} removed.")


@command(stack_flags("engine", "front", "model", "engine_arg"))
def serve(
    given: Given,
    settings: Sets = None,
    host: Annotated[
        str, option("--host", help="Address to listen on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Port = 8000,
    container: ContainerName = "none",
) -> None:
    """Serve a model with an engine until it is told to stop."""
    from llmdyno import store
    from llmdyno.processes import ports, presence, server

    stack, config = checked_stack(study_spec(given), settings)
    stack.check_served(config)
    stack = stack.placed(container)
    ports.require_free(host, port)
    with store.temporary_folder("dyno-serve") as folder:
        with terminate_as_interrupt():
            artifact = stack.build(config, notify=say)
            launch = stack.launch(
                config, artifact=artifact, folder=folder, host=host, port=port, notify=say
            )
        with presence.serving(served(stack, config, launch, (host, port))):
            status = server.foreground(launch, announce=say)
    raise typer.Exit(status)


def served(stack: "Stack", config: Config, launch: "Launch", address: tuple[str, int]) -> "Served":
    """Return what `dyno bench` may know of the server that a stack is at a host and a port."""
    from llmdyno.processes.presence import Served

    host, port = address
    return Served(
        host=host,
        port=port,
        engine=stack.engine.name,
        front=stack.front.name,
        model=stack.model,
        names=(launch.model,),
        config=dict(config),
        engine_args=stack.engine_args,
    )


def checked_stack(asked: Study, settings: list[str] | None) -> tuple[Any, Config]:
    """Return what to serve and its config, checked, of what a study's fields and --set say.

    Raises:
        UsageError: there is no such engine, front or model, or the config cannot work.
    """
    stack, config = read_stack(asked, settings)
    stack.check(config)
    return stack, config


def read_stack(asked: Study, settings: list[str] | None) -> tuple[Any, Config]:
    """Return what to serve and its config, which is still to be checked.

    Raises:
        UsageError: there is no such engine, front or knob.
    """
    from llmdyno.knobs import parse_settings
    from llmdyno.serve.equivalents import refuse_others_knobs
    from llmdyno.serve.stack import load_stack

    stack = load_stack(asked.engine, asked.front, asked.model, asked.engine_args)
    knobs = stack.knobs
    refuse_others_knobs(settings or [], stack.engine, stack.front, knobs)
    return stack, parse_settings(settings or [], knobs, whole=False)
