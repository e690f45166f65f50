"""An engine of known speed that fails at the starts that the environment names.

It is a plug-in from outside the package, named as `--engine faulty.engine`. Its variables:

FAULTY_STATE    a folder, in which starts are counted; its file "version" is the engine's version
FAULTY          what happens at which start: "3:lib" the third, "5-:lib" from the fifth on,
                "fast2-:lib" from the second with fast=true on, "fast:lib" from the confirmation on
FAULTY_EFFECT   how many times as fast fast=true is; 1.9 if it is not set
FAULTY_VERSION  the engine's version; empty: it is not installed
"""

import os
import sys
from pathlib import Path

from llmdyno.deploy.plan import HOST
from llmdyno.engines import Engine, Launch, Step
from llmdyno.knobs import Config, Knob


def _knob(
    name: str, kind: str, first: bool | int | str, search: tuple[bool | int | str, ...]
) -> Knob:
    choices = search if kind == "choice" else ()
    return Knob(
        name=name,
        layer="engine",
        kind=kind,  # type: ignore[arg-type]
        defaults=(("1", first),),
        search=search,
        choices=choices,
        low=1 if kind == "int" else None,
        high=1000 if kind == "int" else None,
        does="-",
        turn="-",
        trades="-",
        source="-",
    )


KNOBS: tuple[Knob, ...] = (
    _knob("itl_ms", "int", 20, (5, 40)),
    _knob("fast", "bool", False, (False, True)),
    _knob("idle", "choice", "a", ("a", "b", "c", "d")),
)

_FAST_STARTS = 2  # a trial and the run in full
_SLOWER = 2.5  # than it was

# The streamer, and what befalls it once the readiness probe has had its token.
SCRIPTS = {
    "good": "exec {streamer}",
    "lib": "echo 'libcudart.so.12: cannot open shared object file: No such file'; exit 127",
    "oom": "echo 'torch.OutOfMemoryError: CUDA out of memory.'; exit 1",
    "disk": "echo 'OSError: [Errno 28] No space left on device'; exit 1",
    "port": "echo '[Errno 98] Address already in use'; exit 1",
    "refuses": "echo 'error: unrecognized arguments: --fast'; exit 2",
    "dies": "{streamer} & P=$!; sleep 0.7; kill -9 $P; exit 1",
    "hangs": "{streamer} & P=$!; sleep 0.7; kill -STOP $P; wait $P",
    "errors": "exec {failing}",
    "slow": "exec {slower}",
    "renamed": "exec {renamed}",
}


class FaultyEngine:
    name = "faulty.engine"
    knobs: tuple[Knob, ...] = KNOBS
    install = "it is always there"
    image = ""

    def version(self) -> str | None:
        state = os.environ.get("FAULTY_STATE")
        if state is not None and (upgraded := Path(state, "version")).exists():
            return upgraded.read_text()
        return os.environ.get("FAULTY_VERSION", "1.0") or None

    def check(self, _model: str, _config: Config) -> None:
        pass

    def build(self, _model: str, _config: Config, _folder: Path) -> tuple[Step, ...]:
        return ()

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        del artifact
        effect = float(os.environ.get("FAULTY_EFFECT", "1.9")) if config.get("fast") else 1.0
        itl_ms = int(config.get("itl_ms", 20)) / effect

        def served(module: str, times: float = 1.0) -> str:
            timing = f"--ttft {30 * times / effect:.3f}ms --itl {itl_ms * times:.3f}ms"
            return f"{sys.executable} -m {module} --host {host} --port {port} {timing}"

        starts = host != HOST  # a bundle is written, and nothing started
        script = SCRIPTS[_befalls(config) if starts else "good"].format(
            streamer=served("llmdyno.streamer"),
            failing=served("faulty.failing"),
            slower=served("llmdyno.streamer", _SLOWER),
            renamed=served("faulty.renamed"),
        )
        return Launch(
            argv=("sh", "-c", script),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            start_timeout_s=10,
        )


def _befalls(config: Config) -> str:
    """Count a start, and return what is to happen at it."""
    state = os.environ.get("FAULTY_STATE")
    if state is None:
        return "good"
    number = _counted(Path(state, "starts"))
    fast = _counted(Path(state, "fast")) if config.get("fast") else 0
    mode = "good"
    for rule in filter(None, os.environ.get("FAULTY", "").split(",")):
        at, _, what = rule.partition(":")
        counted = number
        if at.startswith("fast"):
            at, counted = at.removeprefix("fast") or f"{_FAST_STARTS + 1}-", fast
        first = int(at.rstrip("-"))
        if counted == first or (at.endswith("-") and counted > first):
            mode = what
    return mode


def _counted(counter: Path) -> int:
    number = 1 + (int(counter.read_text()) if counter.exists() else 0)
    new = counter.with_suffix(".new")
    new.write_text(str(number))
    new.rename(counter)  # a kill in the middle of a write would leave an empty one
    return number


ENGINE: Engine = FaultyEngine()
