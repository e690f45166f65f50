"""llama.cpp's server as an engine of your own package: `--engine llamacpp.engine`.

Put the folder above this one on PYTHONPATH:

    PYTHONPATH=examples dyno tune --engine llamacpp.engine --model model.gguf -c 4,16

Run by us: no. Flags and defaults are those of the server's README of build 7000 and later. It is an
example of a whole engine in one file; tests/test_examples.py proves it with the shipped contract.
"""

import shutil
import subprocess
from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, show

_PROGRAM = "llama-server"
_SOURCE = "llama.cpp, tools/server/README.md"

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="parallel",
        layer="engine",
        kind="int",
        defaults=(("1", None),),
        low=1,
        high=256,
        search=(1, 64),
        search_log=True,
        unit="slots",
        does="How many requests are computed at once. Unset: the server chooses.",
        turn="Raise it towards the number of users; the others wait in a queue.",
        trades="Each slot takes its share of the context, and makes each token slower.",
        source=_SOURCE,
    ),
    Knob(
        name="ctx_size",
        layer="engine",
        kind="int",
        defaults=(("1", None),),
        low=256,
        high=1_048_576,
        unit="tokens",
        does="Context of all slots together. Unset: the model's own.",
        turn="Raise it with `parallel`, so that each slot can hold a prompt and its answer.",
        trades="Memory of the KV cache.",
        source=_SOURCE,
    ),
    Knob(
        name="batch_size",
        layer="engine",
        kind="int",
        defaults=(("1", 2048),),
        low=1,
        high=65_536,
        search=(256, 8192),
        search_log=True,
        unit="tokens",
        does="The most tokens that one step may take, prompts and answers together.",
        turn="Raise it when prompts are long and time to first token matters.",
        trades="Longer steps make the tokens of others late.",
        source=_SOURCE,
    ),
    Knob(
        name="ubatch_size",
        layer="engine",
        kind="int",
        defaults=(("1", 512),),
        low=1,
        high=65_536,
        search=(128, 2048),
        search_log=True,
        unit="tokens",
        does="How many of a step's tokens are computed in one pass.",
        turn="Raise it until prompts are not processed faster any more.",
        trades="Memory for activations.",
        source=_SOURCE,
    ),
    Knob(
        name="flash_attn",
        layer="engine",
        kind="choice",
        choices=("on", "off", "auto"),
        defaults=(("1", "auto"),),
        search=("on", "off"),
        does="Whether attention is computed by the fused kernel.",
        turn="on, where the model and the device allow it.",
        trades="None where it works.",
        source=_SOURCE,
    ),
    Knob(
        name="cache_type_k",
        layer="engine",
        kind="choice",
        choices=("f16", "bf16", "q8_0", "q4_0"),
        defaults=(("1", "f16"),),
        search=("f16", "q8_0"),
        alters_output=True,
        does="Type of the keys in the KV cache.",
        turn="q8_0 when the cache does not fit.",
        trades="Precision.",
        source=_SOURCE,
    ),
)


class LlamaCpp(Engine):
    """`llama-server` on the PATH, with a GGUF file."""

    name = "llamacpp.engine"
    knobs = KNOBS
    install = "put llama-server of llama.cpp on the PATH"
    image = ""

    def version(self) -> str | None:
        """Return the build's number, None if there is no llama-server."""
        program = shutil.which(_PROGRAM)
        if program is None:
            return None
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        words = (done.stderr + done.stdout).split()
        return words[words.index("version:") + 1] if "version:" in words[:-1] else "unknown"

    def check(self, model: str, config: Config) -> None:
        """Refuse a pass that is larger than its step, which the server would take and cut.

        Raises:
            UsageError: names both knobs and what would be right.
        """
        del model
        step = config.get("batch_size", 2048)
        passed = config.get("ubatch_size", 512)
        if isinstance(step, int) and isinstance(passed, int) and passed > step:
            raise UsageError(
                f"ubatch_size={passed}: is more than batch_size={step}; set at most {step}."
            )

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return the server's command line; a knob is its flag with underscores."""
        del artifact
        flags = (
            word
            for name, value in config.items()
            for word in (f"--{name.replace('_', '-')}", show(value))
        )
        return Launch(
            argv=(
                *(_PROGRAM, "--model", model, "--metrics"),
                *("--host", host, "--port", str(port)),
                *flags,
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=Path(model).name,
            symptoms=(
                (r"error: invalid argument|error while handling argument", "bad-config"),
                (r"failed to allocate|out of memory", "out-of-memory"),
            ),
        )


ENGINE: Engine = LlamaCpp()
