"""`dyno knobs` and `dyno env`: what can be set, and on what."""

import sys
from typing import Annotated

import typer

from llmdyno.cli.options import AsJson, Text, command
from llmdyno.cli.output import print_json


@command()
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
        from llmdyno.results import catalog
        from llmdyno.results.gave import gave

        known = gave(catalog.entries(), engine, knob)
        show_knob(found, knob, version, sys.stdout, gave=known)
    else:
        show_knobs(found, version, sys.stdout)


@command()
def env(json: AsJson = False) -> None:
    """Describe this machine: CPU, GPUs, memory, engines and versions found."""
    from llmdyno.machine import environment
    from llmdyno.terminal.lists import show_facts

    facts = environment.describe()
    if json:
        print_json(facts)
    else:
        show_facts(facts, environment.warnings(facts), sys.stdout)
