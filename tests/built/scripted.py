"""An engine that must be built: shell scripts make the artifact, the streamer serves it.

It is named on the command line as `--engine built.scripted`. What its build does is a knob; how
long it takes and where it counts itself, variables of the environment.
"""

import sys
from pathlib import Path

from llmdyno.engines import Engine, Launch, Step
from llmdyno.knobs import Config, Knob

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="itl_ms",
        layer="build",
        kind="int",
        defaults=(("1", 40),),
        low=1,
        high=100,
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
    Knob(
        name="build",
        layer="build",
        kind="choice",
        defaults=(("1", "good"),),
        choices=("good", "fast", "greedy", "full", "talks"),
        search=("good", "fast", "greedy"),
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
    Knob(
        name="idle",
        layer="engine",
        kind="int",
        defaults=(("1", 0),),
        low=0,
        high=9,
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
)

SCRIPTS = {
    "good": 'echo {itl_ms} > "$1/itl"',
    "fast": 'echo 10 > "$1/itl"',
    "greedy": "echo 'RuntimeError: CUDA out of memory. Tried to allocate 20 GiB'; exit 1",
    "full": "head -c 9 /dev/zero > /dev/full",
    "talks": 'echo "asked with $HUB_TOKEN"; exit 3',
}


class BuiltEngine:
    name = "built.scripted"
    knobs = KNOBS
    install = "it is always there"
    image = ""

    def version(self) -> str | None:
        return "1.0"

    def check(self, model: str, config: Config) -> None:
        pass

    def build(self, _model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        script = SCRIPTS[str(config.get("build", "good"))]
        itl_ms = config.get("itl_ms", 40)
        half = 'echo >> "${BUILDS:-/dev/null}"; echo 1 > "$1/half"; sleep "${SLEEP:-0}"'
        return (
            Step(what="half of it", argv=("sh", "-c", half, "sh", str(folder))),
            Step(
                what="the other half",
                argv=("sh", "-c", script.format(itl_ms=itl_ms), "sh", str(folder)),
                environment={"HUB_TOKEN": "hf_abcdefgh"},
            ),
        )

    def launch(
        self, model: str, _config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        assert artifact is not None
        # What was built is read when it is served: a launch may be written for another machine.
        streamer = (
            f"exec {sys.executable} -m llmdyno.streamer --host {host} --port {port} --ttft 30ms"
            ' --itl "$(cat "$1/itl")ms"'
        )
        return Launch(
            argv=("sh", "-c", streamer, "sh", str(artifact)),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            start_timeout_s=20,
        )


ENGINE: Engine = BuiltEngine()
