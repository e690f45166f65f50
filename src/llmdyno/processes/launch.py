"""Commands as data: a step of a build, and the start of a server.

Engines and fronts return these; the modules that run them need no other knowledge of an engine.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_PYTHON = re.compile(r"python[\d.]*")  # as an environment names it: python, python3.12


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a build, to be run by child.run_step."""

    what: str  # in a few words, e.g. "convert the checkpoint"
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}  # added to ours; secrets go here, never into argv
    runtime: str = ""  # as in Launch
    # Its messages when it fails, as in Launch.
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
    doubts: tuple[str, ...] = ()  # settings that work but are seldom meant; shown before the start
    runtime: str = ""  # docker or podman, if argv is its `run`; its container outlives argv itself
    gpus: int = 0  # the number it computes on; child.py chooses the least used ones
    start_timeout_s: float = 600.0
    # The engine's messages when it fails: (regular expression, failure class), first match wins.
    symptoms: tuple[tuple[str, str], ...] = ()


def elsewhere(argv: Sequence[str]) -> str:
    """Return what a command's program is called on another machine, which has it on its path."""
    name = Path(argv[0]).name
    is_python = argv[0] == sys.executable or argv[1:2] == ("-m",) or _PYTHON.fullmatch(name)
    return "python3" if is_python else name  # whatever Python it is here
