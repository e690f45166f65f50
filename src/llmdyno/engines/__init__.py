"""Engines: what computes tokens. One file an engine; the file's name is the engine's.

The last line of the file binds `ENGINE`. An engine is stateless: it knows its knobs, checks a
config, says what commands build an artifact and what command starts a server with it. Running
builds is the work of artifacts.py; starting, waiting and stopping that of supervise.py, the same
for all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from llmdyno.knobs import Config, Knob


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a build."""

    what: str  # in a few words, e.g. "convert the checkpoint"
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}  # added to ours; secrets go here, never into argv
    runtime: str = ""  # as a launch's
    # What it says when it fails, as a launch's.
    symptoms: tuple[tuple[str, str], ...] = ()


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All that the supervisor needs to start a server and to know that it is ready."""

    argv: tuple[str, ...]
    url: str  # base URL, e.g. http://127.0.0.1:8000
    endpoint: str  # the wire protocol it speaks, e.g. "openai-chat"
    model: str  # the model's name in requests
    also: Mapping[str, str] = {}  # other wire protocols that it speaks, and where
    health_path: str = "/health"  # answers 200 when the server is up
    # A POST that makes one token, (path, JSON body): ready means that this has succeeded once.
    probe: tuple[str, Mapping[str, object]] | None = None
    metrics_url: str = ""  # its Prometheus page, where that is not url + "/metrics"
    environment: Mapping[str, str] = {}  # added to ours; secrets go here, never into argv
    # Written before the start, path → text, for engines that read settings from a file. The path
    # says what is in it, so that equal files are one and a launch can be repeated.
    files: Mapping[str, str] = {}
    doubts: tuple[str, ...] = ()  # what works but is seldom meant; said before the start
    runtime: str = ""  # docker or podman, if argv is its `run`; its container outlives argv itself
    gpus: int = 0  # how many it computes on; supervise.py picks the least used ones
    start_timeout_s: float = 600.0
    # What the engine says when it fails: (regular expression, failure class), first match wins.
    symptoms: tuple[tuple[str, str], ...] = ()


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
