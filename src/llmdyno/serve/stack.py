"""The stack: an engine behind a front with a model; it is served and measured as one thing.

`dyno serve`, the tuner, builds and bundles all go from (engine, front, model, config) to a Launch
through it: check the config, build the artifact that is missing, then return the launch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec

from llmdyno import plugins, store
from llmdyno.engines import Engine, Launch
from llmdyno.engines import facts as engine_facts
from llmdyno.errors import UsageError
from llmdyno.fronts import Front, facts, speaks_openai
from llmdyno.knobs import Config, Knob, check
from llmdyno.machine import hardware
from llmdyno.processes import containers
from llmdyno.serve.build import Artifact, ensure
from llmdyno.serve.engine_arguments import extended
from llmdyno.units import counted


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """An engine behind a front, with a model, and where the engine runs."""

    engine: Engine
    front: Front
    model: str
    engine_args: tuple[str, ...] = ()  # words that the engine has at the end of its command
    container: containers.Container | None = None  # where the engine runs; None: natively

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """What can be set: the engine's knobs, then the front's."""
        return (*self.engine.knobs, *self.front.knobs)

    def check(self, config: Config) -> None:
        """Refuse a config that cannot work; nothing is started or read but the model's folder.

        Raises:
            UsageError: names the knob, the value and what would be right.
        """
        if not self.model:
            raise UsageError("--model: is empty; give a built-in name, a path or a hub id.")
        check(config, self.knobs)
        self.engine.check(self.model, config)
        self.front.check(self.engine, self.model, config)

    def check_served(self, config: Config) -> None:
        """Refuse a checked config that can be built but not served by the engine's own server.

        Raises:
            UsageError: says what would be right.
        """
        if facts(self.front).serves_by_engine:
            self.gpus(config)

    def gpus(self, config: Config) -> int:
        """Return how many GPUs a checked config takes; 0: the engine does not compute on any.

        Raises:
            UsageError: the engine cannot serve it by itself, and does not tell.
        """
        return self._own_launch(config).gpus

    def require_openai(self, config: Config, field: str) -> None:
        """Refuse a checked config whose server does not speak OpenAI's protocol.

        Args:
            config: of engine and front.
            field: what needs it, as the user wrote it.

        Raises:
            UsageError: it does not, or the engine does not tell.
        """
        speaks = speaks_openai(self.front, self.engine)
        if speaks is None:
            launch = self._own_launch(config)
            speaks = any(name.startswith("openai") for name in (launch.endpoint, *launch.also))
        if not speaks:
            raise UsageError(
                f"{field}: needs OpenAI's protocol, which {self.engine.name} behind"
                f" {self.front.name} does not speak; leave it out, or take another front (--front)."
            )

    def _own_launch(self, config: Config) -> Launch:
        """Return the launch of the engine's own server; it is not to be started."""
        names = {knob.name for knob in self.engine.knobs}
        own = {name: value for name, value in config.items() if name in names}
        place = Path("artifact")  # any path will do
        built = place if self.engine.build(self.model, own, place) else None
        return self.engine.launch(self.model, own, artifact=built, host="127.0.0.1", port=1)

    def require_engine(self) -> None:
        """Refuse an engine that is not installed here.

        Raises:
            UsageError: says how to install it.
        """
        if self.engine.version() is None:
            apart = engine_facts(self.engine).python_variable
            named = f" If it has an environment of its own, name its Python in {apart}."
            raise UsageError(
                f"--engine {self.engine.name}: it is not installed here; {self.engine.install}."
                + named * bool(apart)
            )

    def placed(self, wanted: str, *, here: bool = True) -> Self:
        """Return the stack as it will run: natively, or in the engine's container.

        Args:
            wanted: "none": natively; "auto": in a container if the engine is not installed; or the
                name of a runtime: in a container of that runtime.
            here: it will run on this machine, so the engine or the runtime must be installed.

        Raises:
            UsageError: the engine is not installed, or cannot be run in a container.
        """
        if wanted == "none" or (wanted == "auto" and self.engine.version() is not None):
            if here:
                self.require_engine()
            return self
        if not self.engine.image:
            raise UsageError(f"--container {wanted}: {self.engine.name} has no container image.")
        if not facts(self.front).runs_in_container:
            raise UsageError(
                f"--container {wanted}: the front {self.front.name} runs natively; use"
                " --front native or --container none."
            )
        container = containers.choose(wanted, self.engine.image, here=here)
        return msgspec.structs.replace(self, container=container)

    def build(self, config: Config, *, notify: Callable[[str], None]) -> Artifact | None:
        """Return the artifact of a checked config, and wait for its build; None: none is needed.

        Raises:
            ServerError: a step of the build failed.
            StorageError: the folder of the artifacts cannot be written.
        """
        return ensure(self.engine, self.model, config, container=self.container, notify=notify)

    def launch(
        self,
        config: Config,
        *,
        artifact: Artifact | None,
        folder: Path,
        host: str,
        port: int,
        notify: Callable[[str], None],
    ) -> Launch:
        """Return the launch of the server, and wait for the installations that it needs.

        Args:
            config: of engine and front, checked.
            artifact: what build() returned for it.
            folder: for the files that the server reads; it is made.
            host: to listen on.
            port: to listen on.
            notify: called with a line while something takes long.

        Raises:
            UsageError: the front cannot serve this engine, or the config needs more GPUs than there
                are.
            ServerError: a package of the front cannot be installed.
            StorageError: a folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        launch = self.front.launch(
            self.engine,
            self.model,
            config,
            artifact=artifact.path if artifact else None,
            folder=folder,
            host=host,
            port=port,
            says=notify,
        )
        visible = hardware.gpus_visible()
        if visible is not None and launch.gpus > visible:
            raise UsageError(
                f"--engine {self.engine.name}: this config takes {counted(launch.gpus, 'GPU')}, and"
                f" {visible} can be seen here; let it share its layers among fewer."
            )
        for doubt in launch.doubts:
            notify(f"! {doubt}")
        if self.container is None:
            return launch
        notify(f"in {self.container.image}, by {self.container.runtime}")
        # docker would make a missing folder as root, so we make it.
        store.make_folder(containers.hub_cache())
        model = Path(self.model).expanduser()
        reads = [model] if model.is_dir() else []
        if artifact:
            reads.append(artifact.path)
        return containers.launch_in(self.container, launch, reads=reads)


def load_stack(engine: str, front: str, model: str, engine_args: tuple[str, ...] = ()) -> Stack:
    """Return the engine of that name behind the front of that name, with a model.

    Args:
        engine: its name.
        front: its name.
        model: as the user named it.
        engine_args: words for the engine's own command line.

    Raises:
        UsageError: there is no such engine or front, or it cannot have such a word.
    """
    found, served = plugins.load("engines", engine), plugins.load("fronts", front)
    return Stack(
        engine=extended(found, served, model, engine_args),
        front=served,
        model=model,
        engine_args=engine_args,
    )
