"""The native front: the engine's own HTTP server, with nothing in between."""

from collections.abc import Callable
from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.fronts import Front, Portable
from llmdyno.knobs import Config, Knob


class NativeFront:
    """Adds nothing and has no knobs of its own."""

    name = "native"
    knobs: tuple[Knob, ...] = ()
    runs_in_container = True
    ports_beside = 0

    def check(self, engine: Engine, model: str, config: Config) -> None:
        """Refuse nothing: every engine has a server."""

    def launch(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,  # noqa: ARG002 - it writes nothing
        host: str,
        port: int,
        says: Callable[[str], None],  # noqa: ARG002 - nothing takes long
    ) -> Launch:
        """Return the launch of the engine's own server, on that host and port."""
        return engine.launch(model, config, artifact=artifact, host=host, port=port)

    def bundle(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,  # noqa: ARG002 - it writes nothing
        host: str,
        port: int,
        says: Callable[[str], None],  # noqa: ARG002 - nothing takes long
    ) -> Portable:
        """Return the launch of the engine's own server; nothing is written."""
        launch = engine.launch(model, config, artifact=artifact, host=host, port=port)
        return Portable(launch=launch)


FRONT: Front = NativeFront()
