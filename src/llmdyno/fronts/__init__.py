"""Fronts: what serves an engine over the network. One file a front; `FRONT` is its last line."""

from typing import Protocol

from llmdyno.engines import Engine, Launch
from llmdyno.knobs import Config, Knob


class Front(Protocol):
    """The interface of a front."""

    name: str
    knobs: tuple[Knob, ...]

    def launch(self, engine: Engine, model: str, config: Config, *, host: str, port: int) -> Launch:
        """Return what starts the front with that engine behind it."""
