"""`dyno knobs` and `dyno env`: what can be set, and on what."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmdyno.cli.options import AsJson, Text, command
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.errors import HomeError, UsageError, nearest

if TYPE_CHECKING:
    from llmdyno.engines import Engine


@command()
def knobs(
    engine: Annotated[
        Text,
        typer.Argument(
            help="The name of an engine or a front; without it all are named.", show_default=False
        ),
    ] = None,
    knob: Annotated[Text, typer.Argument(help="One of its knobs.", show_default=False)] = None,
) -> None:
    """Explain what the settings of an engine or a front do, when to turn them, what they cost."""
    from llmdyno import plugins
    from llmdyno.terminal.lists import show_knob, show_knobs

    engines, fronts = plugins.names("engines"), plugins.names("fronts")
    if engine is None:
        print_line(f"engines: {', '.join(engines)}")
        print_line(f"fronts: {', '.join(fronts)}")
        say("`dyno knobs NAME` lists the settings of one.")
        return
    if "." not in engine and engine not in {*engines, *fronts}:
        raise UsageError(f"{engine}: is no engine and no front.{nearest(engine, engines + fronts)}")
    is_front = engine in fronts
    found = plugins.load("fronts" if is_front else "engines", engine)
    version, wrong = (None, "") if is_front else _version(found)
    if wrong:
        say(f"! {wrong}")
    if knob is not None:
        from llmdyno.results import catalog
        from llmdyno.results.gave import gave

        known = gave(catalog.entries(), engine, knob)
        show_knob(found, knob, version, sys.stdout, gave=known)
    else:
        show_knobs(found, version, sys.stdout)


@command()
def env(json: AsJson = False) -> None:
    """Describe this machine: CPU, GPUs, memory, engines and versions found."""
    from llmdyno import plugins
    from llmdyno.machine import environment
    from llmdyno.terminal.lists import show_facts

    facts = environment.describe()
    asked = {name: _version(plugins.load("engines", name)) for name in plugins.names("engines")}
    engines = {name: version for name, (version, _) in asked.items()}
    wrong = [why for _, why in asked.values() if why]
    if json:
        for why in wrong:
            say(f"! {why}")
        print_json({**facts, "engines": engines})
    else:
        found = {name: version for name, version in engines.items() if version is not None}
        missing = [name for name in engines if name not in found]
        rows = {"engines": found, "engines not installed here": missing}
        # How packages were listed is for whoever compares two documents.
        told = {name: fact for name, fact in facts.items() if name != "packages_listed_by"}
        show_facts({**told, **rows}, [*wrong, *environment.warnings(facts)], sys.stdout)


def _version(engine: "Engine") -> tuple[str | None, str]:
    """Return an engine's version here, and why it cannot be told; None: it is not known here."""
    try:
        return engine.version(), ""
    except HomeError as error:
        return None, str(error)
