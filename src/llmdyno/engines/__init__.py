"""Engines: what computes tokens. One file an engine; the file's name is the engine's.

The last line of the file binds `ENGINE`. An engine is stateless: it knows its knobs, checks a
config, and says what command starts a server with it. Starting, waiting and stopping are the
supervisor's work (supervise.py), the same for all.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from llmdyno.knobs import Config, Knob


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All that the supervisor needs to start a server and to know that it is ready."""

    argv: tuple[str, ...]
    url: str  # base URL, e.g. http://127.0.0.1:8000
    endpoint: str  # the wire protocol it speaks, e.g. "openai-chat"
    model: str  # the model's name in requests
    health_path: str = "/health"  # answers 200 when the server is up
    # A POST that makes one token, (path, JSON body): ready means that this has succeeded once.
    probe: tuple[str, Mapping[str, object]] | None = None
    environment: Mapping[str, str] = {}  # added to ours; secrets go here, never into argv
    start_timeout_s: float = 600.0
    # What the engine says when it fails: (regular expression, failure class), first match wins.
    symptoms: tuple[tuple[str, str], ...] = ()


class Engine(Protocol):
    """The interface of an engine."""

    name: str
    knobs: tuple[Knob, ...]

    def version(self) -> str | None:
        """Return the installed version, or None if the engine is not installed here."""

    def check(self, model: str, config: Config) -> None:
        """Refuse what knobs.check cannot see: wrong combinations, a model that is not there.

        Raises:
            UsageError: one sentence that names the knobs (or the model) and what would be right.
        """

    def launch(self, model: str, config: Config, *, host: str, port: int) -> Launch:
        """Return what starts the engine's own HTTP server with that config."""
