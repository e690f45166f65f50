"""An engine of known speed: the streamer behind the interface of engines, with faults as a knob.

Its numbers are known, so a study over it has a right answer. It is a plug-in from outside the
package, named on the command line as `--engine timed.engine`. While there is the file that
TIMED_HELD names, no server starts but that of the baseline.
"""

import os
import shlex
import sys
from pathlib import Path

from llmdyno.engines import Engine, Launch, Step
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="itl_ms",
        layer="engine",
        kind="int",
        defaults=(("1", 40),),
        low=1,
        high=100,
        search=(10, 40),
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
    Knob(
        name="mode",
        layer="engine",
        kind="choice",
        defaults=(("1", "good"),),
        choices=("good", "refuses", "dies", "hangs", "taken", "fades"),
        search=("good", "refuses", "dies", "hangs"),
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
    Knob(
        name="lossy",  # does nothing, but might
        layer="engine",
        kind="bool",
        defaults=(("1", False),),
        search=(False, True),
        alters_output=True,
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
    Knob(
        name="idle",  # does nothing
        layer="engine",
        kind="bool",
        defaults=(("1", False),),
        search=(False, True),
        does="-",
        turn="-",
        trades="-",
        source="-",
    ),
)

# The streamer, and what befalls it once the readiness probe has had its token.
SCRIPTS = {
    "good": "exec {streamer}",
    "refuses": "echo 'error: unrecognized arguments: --fast'; exit 2",
    "dies": "{streamer} & P=$!; sleep 1.5; kill -9 $P; exit 1",
    "taken": "mkdir taken || exec {streamer}; echo '[Errno 98] Address already in use'; exit 1",
    # Its engine dies before it does, as a server in two processes.
    "fades": "{streamer} & P=$!; sleep 1.5; kill -9 $P; sleep 1; echo 'is_all_free failed'; exit 1",
    "hangs": "{streamer} & P=$!; sleep 1.5; kill -STOP $P; wait $P",
}


_HELD_S = 300  # at most


class TimedEngine:
    name = "timed.engine"
    knobs = KNOBS
    install = "it is always there"
    image = ""

    def version(self) -> str | None:
        return "1.0"

    def check(self, _model: str, config: Config) -> None:
        if config.get("itl_ms") == 13:
            raise UsageError("itl_ms=13: brings bad luck; take 12 or 14.")

    def build(self, _model: str, _config: Config, _folder: Path) -> tuple[Step, ...]:
        return ()

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        del artifact
        mode = str(config.get("mode", "good"))
        streamer = (
            f"{sys.executable} -m llmdyno.streamer --host {host} --port {port}"
            f" --ttft 30ms --itl {config.get('itl_ms', 40)}ms"
        )
        held = os.environ.get("TIMED_HELD", "") if config else ""
        wait = f"while [ -e {shlex.quote(held)} ]; do sleep 0.1; done; " if held else ""
        return Launch(
            argv=("sh", "-c", wait + SCRIPTS[mode].format(streamer=streamer)),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            start_timeout_s=_HELD_S if held else 20,
        )


ENGINE: Engine = TimedEngine()
