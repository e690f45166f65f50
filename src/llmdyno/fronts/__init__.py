"""Fronts: what serves an engine over the network. One file a front; `FRONT` is its last line.

A front in somebody else's package is a module with `FRONT`, named with its dots. It must have what
`Front` lists; what `Facts` lists, and methods `check_load`, `speaks_openai` and
`starts_server_of`, it may have.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from llmdyno.engines import Engine, Launch
from llmdyno.knobs import Config, Knob
from llmdyno.records.server_page import MetricsPage

__all__ = (
    "MODELS",
    "Facts",
    "Front",
    "Portable",
    "check_load",
    "facts",
    "model_link",
    "speaks_openai",
    "starts_server_of",
)

MODELS = Path("models")  # where local models lie below the folder of a bundle


def model_link(model: str) -> dict[str, Path]:
    """Return where a local model lies in a bundle, and what that stands for; else nothing."""
    path = Path(model).expanduser()
    return {str(MODELS / path.resolve().name): path.resolve()} if path.exists() else {}


class Portable(msgspec.Struct, frozen=True, kw_only=True):
    """What a front has written to be started elsewhere, from the folder that it lies in."""

    launch: Launch  # paths are relative to that folder, programs are names
    wrote: str = ""  # the folder below that one which its files are in; empty: it has none
    image: str = ""  # the container image that has what it needs; empty: the engine's own
    requirements: tuple[str, ...] = ()  # what pip must install there
    # Place in the folder → what it stands for on this machine.
    links: Mapping[str, Path] = {}
    prepare: str = ""  # a command for the shell that completes what is written, there


class Front(Protocol):
    """The interface of a front.

    All methods are given the whole config, that of the engine and of the front together.
    """

    name: str
    knobs: tuple[Knob, ...]

    def check(self, engine: Engine, model: str, config: Config) -> None:
        """Refuse an engine that it cannot serve, and what knobs.check and the engine cannot see.

        Raises:
            UsageError: one sentence that names what is wrong and what would be right.
        """

    def launch(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,
        host: str,
        port: int,
        says: Callable[[str], None],
    ) -> Launch:
        """Return what starts the front with that engine behind it.

        `folder` exists and belongs to this server alone: its files (a model repository, a service)
        are written there. `says` is called with a line before a long wait, such as an installation.

        Raises:
            UsageError: it cannot serve this engine.
            ServerError: a package that the front needs cannot be installed, or no port is free.
            StorageError: the folder cannot be written.
        """

    def bundle(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,
        host: str,
        port: int,
        says: Callable[[str], None],
    ) -> Portable:
        """Write into `folder` the files that serve the engine elsewhere; nothing is started.

        The launches of this `engine` are portable already, and `artifact` is relative to `folder`.

        Raises:
            UsageError: it cannot serve this elsewhere.
            ServerError: what is needed to write it cannot be installed.
            StorageError: it cannot be written.
        """


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Optional attributes of a front, with their defaults."""

    serves_by_engine: bool = True  # it starts the engine's own server, so that must be able to
    runs_in_container: bool = False  # it adds nothing that the engine's container image lacks
    has_image: bool = False  # its bundles name a container image of their own
    ports_beside: int = 2  # how many ports it may take after its own
    target: str = ""  # what `dyno deploy --target` calls its own files; empty: they are no target
    metrics: MetricsPage | None = None  # the names on its own page of metrics


def facts(front: Front) -> Facts:
    """Return a front's optional attributes; those that it lacks have their defaults."""
    return Facts(
        **{name: getattr(front, name) for name in Facts.__struct_fields__ if hasattr(front, name)}
    )


def starts_server_of(front: Front, engine: Engine) -> bool:
    """Return whether a front starts an engine's own server; a method of that name may say so."""
    asked = getattr(front, "starts_server_of", None)
    return facts(front).serves_by_engine if asked is None else bool(asked(engine))


def speaks_openai(front: Front, engine: Engine) -> bool | None:
    """Tell whether a front speaks OpenAI's protocol before an engine; None: as the engine does.

    A method of that name may say so.
    """
    asked = getattr(front, "speaks_openai", None)
    return None if asked is None else bool(asked(engine))


def check_load(front: Front, config: Config, *, streams: bool) -> None:
    """Refuse a config whose server cannot take a load, if the front has a `check_load` to ask.

    Args:
        front: the front.
        config: of engine and front.
        streams: the load asks for responses in pieces.

    Raises:
        UsageError: says which knob forbids it.
    """
    check = getattr(front, "check_load", None)
    if check is not None:
        check(config, streams=streams)
