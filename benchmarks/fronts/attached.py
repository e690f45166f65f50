"""An engine that runs already: fronts are put before one server, which is started once.

    ATTACHED_URL=http://127.0.0.1:8000 PYTHONPATH=benchmarks \
        dyno serve --engine fronts.attached --front triton --model NAME --port 8100

NAME is the model as that server calls it. What a front starts in the engine's place is a process
that waits; the server itself is left alone, also when the front is stopped.
"""

import os
import sys
from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob

_WAIT = "import signal; signal.pause()"


class AttachedEngine(Engine):
    """A server with OpenAI's protocol that somebody else has started."""

    name = "attached"
    knobs: tuple[Knob, ...] = ()
    install = "start a server and name it in ATTACHED_URL"
    image = ""
    takes_arguments = False

    def version(self) -> str | None:
        """Return what stands for a version: there is nothing to be installed."""
        return "running"

    def check(self, model: str, config: Config) -> None:
        """Refuse to be used without a server.

        Raises:
            UsageError: ATTACHED_URL is not set.
        """
        del model, config
        if not os.environ.get("ATTACHED_URL"):
            raise UsageError(
                "--engine fronts.attached: set ATTACHED_URL, e.g. to http://127.0.0.1:8000."
            )

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return a process that waits, and where the server is."""
        del config, artifact, host, port
        return Launch(
            argv=(sys.executable, "-I", "-S", "-c", _WAIT),
            url=os.environ.get("ATTACHED_URL", "").rstrip("/"),
            endpoint="openai-completions",
            model=model,
            health_path="/health",
        )


ENGINE: Engine = AttachedEngine()
