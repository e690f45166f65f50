"""An engine around another one, whose launches differ."""

from pathlib import Path

from llmdyno.engines import Engine, Launch, Step
from llmdyno.knobs import Config, Knob


class WrappedEngine:
    """Everything is the inner engine's own; a subclass changes what it is there for.

    Args:
        engine: the inner engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name: str = engine.name
        self.knobs: tuple[Knob, ...] = engine.knobs
        self.install: str = engine.install
        self.image: str = engine.image

    def __getattr__(self, name: str) -> object:
        """Return one of the engine's Facts, or say that it has none of that name."""
        return getattr(self._engine, name)

    def version(self) -> str | None:
        """Return the version that is installed here."""
        return self._engine.version()

    def check(self, model: str, config: Config) -> None:
        """Refuse what the engine refuses.

        Raises:
            UsageError: as the engine's own.
        """
        self._engine.check(model, config)

    def build(self, model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        """Return the engine's steps."""
        return self._engine.build(model, config, folder)

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return the engine's launch."""
        return self._engine.launch(model, config, artifact=artifact, host=host, port=port)
