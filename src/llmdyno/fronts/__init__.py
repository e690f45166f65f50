"""Fronts: what serves an engine over the network. One file a front; `FRONT` is its last line."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from llmdyno.engines import Engine, Launch
from llmdyno.knobs import Config, Knob

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

        `folder` exists and is the server's own: what it reads (a model repository, a service) is
        written there. `says` is told what takes long, such as an installation.

        Raises:
            ServerError: what the front needs cannot be installed.
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
        """Write into `folder` what serves the engine elsewhere; nothing is started here.

        The launches of this `engine` are portable already, and `artifact` is relative to `folder`.

        Raises:
            UsageError: it cannot serve this elsewhere.
            ServerError: what is needed to write it cannot be installed.
            StorageError: it cannot be written.
        """
