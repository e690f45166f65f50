"""The engine's own HTTP server, nothing in between."""

from llmdyno.engines import Engine, Launch
from llmdyno.fronts import Front
from llmdyno.knobs import Config, Knob


class NativeFront:
    """Adds nothing and has no knobs of its own."""

    name = "native"
    knobs: tuple[Knob, ...] = ()

    def launch(self, engine: Engine, model: str, config: Config, *, host: str, port: int) -> Launch:
        """Return the engine's own launch."""
        return engine.launch(model, config, host=host, port=port)


FRONT: Front = NativeFront()
