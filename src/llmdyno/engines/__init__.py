"""Engines: what computes tokens. One file an engine; the file's name is the engine's.

The last line of the file binds `ENGINE`. An engine is stateless: it knows its knobs, checks a
config, says what commands build an artifact and what command starts a server with it. Running
builds is the work of serve/artifacts.py; starting, waiting and stopping that of
processes/server.py, the same for all.
"""

from pathlib import Path
from typing import Protocol

from llmdyno.knobs import Config, Knob
from llmdyno.processes.launch import Launch, Step

__all__ = ("Engine", "Launch", "Step")


class Engine(Protocol):
    """The interface of an engine."""

    name: str
    knobs: tuple[Knob, ...]
    install: str  # how a user installs it, e.g. "pip install vllm"
    image: str  # the container image that has it, with its tag; empty: there is none

    def version(self) -> str | None:
        """Return the installed version, or None if the engine is not installed here."""

    def check(self, model: str, config: Config) -> None:
        """Refuse what knobs.check cannot see: wrong combinations, a model that is not there.

        Whether the engine is installed is not its business: a config can be checked, and a bundle
        written, for another machine.

        Raises:
            UsageError: one sentence that names the knobs (or the model) and what would be right.
        """

    def build(self, model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        """Return the commands that make the artifact in `folder`; none if it needs no build.

        The folder exists and is empty when they run. It is moved when the artifact is whole, so
        nothing in it may hold its path. This only says what to run: it reads and writes nothing.
        """

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return what starts the engine's own HTTP server with that config.

        `artifact` is the folder that `build` has filled, None where there was nothing to build.
        """
