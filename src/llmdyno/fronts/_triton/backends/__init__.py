"""What Triton needs to know of an engine: one file an engine, named as the engine is.

The last line of the file binds `BACKEND`. An engine of somebody else's package has its backend
where its attribute `triton_backend` says: the dotted name of a module. Only the embedded engine's
was run by us; the names in the others are those of the backends' own templates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from llmdyno import plugins
from llmdyno.engines import Engine, facts
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config

KIND = "fronts._triton.backends"
_IMAGE = "nvcr.io/nvidia/tritonserver"
NEWEST_RELEASE = "25.12"  # of NVIDIA's containers, of those that were looked up


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository is to serve."""

    engine: Engine
    model: str  # as the user named it
    place: str  # where the server finds the model
    config: Config  # of the engine
    front: Config  # of the front, its defaults included
    artifact: Path | None  # the folder of what was built
    acknowledgements: str  # the path of a FIFO
    portable: bool = False  # written for another machine


class Backend(Protocol):
    """The interface of a backend.

    It may have `speaks_openai = True`: its repository names what speaks OpenAI's protocol.
    """

    requirements: tuple[str, ...]  # what its Python models import, for pip
    in_wheel: bool  # the tritonserver of PyTriton's wheel can serve it, which has Python alone
    # The name of a backend without which Triton passes requests on to the engine's own server;
    # empty: it never does.
    else_passes_on: str

    def place(self, model: str, artifact: Path | None) -> str:
        """Return where a server on this machine finds the model."""

    def portable_place(self, model: str, artifact: Path | None) -> tuple[str, Mapping[str, Path]]:
        """Return where a server in a bundle finds the model, and what links the bundle needs."""

    def repository(self, served: Served) -> Repository:
        """Return the models, their configs and files.

        Raises:
            ServerError: code that it needs is not on this machine.
        """

    def prepare(self, artifact: Path | None, models: Path) -> str:
        """Return the shell command that completes a bundle's models where it runs, or nothing."""

    def image(self, engine: Engine, config: Config) -> str:
        """Return NVIDIA's container image that has it."""

    def doubts(self, engine: Engine, config: Config) -> tuple[str, ...]:
        """Return what of a bundle works but may not be meant, a sentence each."""


def find(engine: Engine) -> Backend | None:
    """Return the backend of an engine; None: requests are passed on to the engine's own server."""
    name = facts(engine).triton_backend or engine.name
    if name not in plugins.names(KIND) and not facts(engine).triton_backend:
        return None
    backend: Backend = plugins.load(KIND, name)
    return backend


def image(flavour: str, release: str = NEWEST_RELEASE) -> str:
    """Return the name of NVIDIA's container of a release, e.g. 25.12, and a flavour, e.g. -py3."""
    return f"{_IMAGE}:{release}{flavour}"
