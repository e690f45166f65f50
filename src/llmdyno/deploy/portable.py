"""Makes a launch work on another machine: without paths of this one, with programs by name.

Every launch of a bundle passes through here on its way from the engine to a front or into the
files. Paths become relative to the bundle's folder, from which everything is started.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmdyno.engines import Launch, Step
from llmdyno.engines._wrapped import WrappedEngine
from llmdyno.fronts import model_link
from llmdyno.knobs import Config
from llmdyno.processes.launch import elsewhere

PYTHON = "python3"
ARTIFACT = Path("artifact")  # where the bundle has what was built
FILES = Path("files")  # what the engine reads its settings from


class PortableEngine(WrappedEngine):
    """An engine whose launches are portable; everything else is the engine's own."""

    def build(self, model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        """Return the engine's steps, for a model that lies in the bundle."""
        places = dict(zip([model], model_link(model), strict=False))  # none for a hub's id
        return tuple(
            msgspec.structs.replace(
                step,
                argv=(elsewhere(step.argv), *(_moved(word, places) for word in step.argv[1:])),
            )
            for step in super().build(model, config, folder)
        )

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return the engine's launch, made portable."""
        launch = super().launch(model, config, artifact=artifact, host=host, port=port)
        return _portable(launch, model)


def _portable(launch: Launch, model: str) -> Launch:
    places = {
        **{path: str(FILES / Path(path).name) for path in launch.files},
        sys.executable: PYTHON,
        launch.argv[0]: elsewhere(launch.argv),
    }
    places |= zip([model], model_link(model), strict=False)  # none for a hub's id
    return msgspec.structs.replace(
        launch,
        argv=tuple(_moved(word, places) for word in launch.argv),
        model=_moved(launch.model, places),
        probe=launch.probe
        and (
            launch.probe[0],
            {
                name: _moved(value, places) if isinstance(value, str) else value
                for name, value in launch.probe[1].items()
            },
        ),
        environment={
            name: _moved(value, places)
            for name, value in launch.environment.items()
            if name != "PATH"  # it names folders of this machine
        },
        files={_moved(path, places): _moved(text, places) for path, text in launch.files.items()},
    )


def _moved(text: str, places: Mapping[str, str]) -> str:
    """Write a text with the paths of this machine as those of the bundle, the longest first."""
    for path in sorted(places, key=len, reverse=True):
        # A name without a folder may be part of any word; only a path is safe to look for within.
        if text == path or Path(path).is_absolute():
            text = text.replace(path, places[path])
    return text
