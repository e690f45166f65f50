"""Engines: what computes tokens. One file an engine; the file's name is the engine's.

The last line of the file binds `ENGINE`. An engine is stateless: it knows its knobs, checks a
config, says what commands build an artifact and what command starts a server with it. Running
builds is the work of serve/build.py; starting, waiting and stopping that of processes/server.py,
the same for all.

An engine in somebody else's package is a module with `ENGINE`, named with its dots: `--engine
my_package.my_engine`. It must have what `Engine` lists; what `Facts` lists it may have.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from llmdyno import __version__
from llmdyno.engines._scheduling import Limit, Scheduling, Waking
from llmdyno.engines._starts import Circumstances, Sizes
from llmdyno.knobs import Config, Knob
from llmdyno.processes.launch import Launch, Step
from llmdyno.records.server_page import MetricsPage

__all__ = (
    "Circumstances",
    "Engine",
    "Facts",
    "Launch",
    "Limit",
    "Scheduling",
    "Sizes",
    "Step",
    "Waking",
    "facts",
    "pinned",
)


class Engine(Protocol):
    """The interface of an engine."""

    name: str  # as after --engine
    knobs: tuple[Knob, ...]
    install: str  # how a user gets it, to go on a sentence, e.g. "run: pip install vllm"
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
        An engine that names this class as its base need not say that it builds nothing.
        """
        del model, config, folder
        return ()

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return what starts the engine's own HTTP server with that config.

        `artifact` is the folder that `build` has filled, None where there was nothing to build.
        """


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Optional attributes of an engine, with their defaults."""

    packages: tuple[str, ...] = ()  # what pip must install for it; none: pip cannot, or need not
    distributions: tuple[str, ...] = ()  # pip's packages whose versions change an artifact
    build_distributions: tuple[str, ...] = ()  # ... and those that only a build uses
    # Whether /v1/completions gives the log-probabilities of a prompt's tokens; it is asked anyhow.
    scores_prompts: bool = True
    # The environment variable that names its Python, where it is installed apart; empty: none.
    python_variable: str = ""
    takes_arguments: bool = True  # its server has flags beside its knobs, for --engine-arg
    # Other spellings of a knob's flag, e.g. {"-tp": "tensor_parallel_size"}.
    flag_aliases: Mapping[str, str] = {}
    # The module with its Triton backend, see fronts/_triton/backends; empty: one of its own name.
    triton_backend: str = ""
    # The names on its server's page of metrics. The page of a server that `dyno bench` finds is
    # told by those of the engines that ship with llmdyno.
    metrics: MetricsPage | None = None
    # What its knobs mean to its scheduler; None: what it will do cannot be predicted.
    scheduling: Scheduling | None = None
    # Returns configs that are known to be good, for a study to try first; None: none are known.
    starts: Callable[[Circumstances], tuple[Config, ...]] | None = None
    # Returns about how long its server takes to start with a model, in s; None: it is not known.
    start_s: Callable[[str], float | None] = lambda _: None

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the processor, whatever GPUs the machine has."""
        return self.scheduling is not None and self.scheduling.on_cpu


def facts(engine: Engine) -> Facts:
    """Return an engine's optional attributes; those that it lacks have their defaults."""
    said = {
        name: getattr(engine, name) for name in Facts.__struct_fields__ if hasattr(engine, name)
    }
    return Facts(**said)


def pinned(engine: Engine) -> tuple[str, ...]:
    """Return pip's requirements for the engine in the version that is installed here."""
    requirements = []
    for package in facts(engine).packages:
        version = __version__ if package.startswith("llmdyno") else engine.version()
        requirements.append(f"{package}=={version}" if version else package)
    return tuple(requirements)
