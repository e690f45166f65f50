"""Fronts: what serves an engine over the network. One file a front; `FRONT` is its last line."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from llmdyno.engines import Engine, Launch
from llmdyno.knobs import Config, Knob


class Front(Protocol):
    """The interface of a front.

    Both methods are given the whole config, that of the engine and of the front together.
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
