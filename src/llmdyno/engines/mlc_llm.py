"""MLC-LLM: its OpenAI server, on a model compiled by MLC.

Run by us: no. Flags and defaults are those of its source at commit 78b6cdb9, which calls itself
0.20.0.dev0 (pyproject.toml; it publishes nightlies only): python/mlc_llm/cli/serve.py and
serve/config.py. tests/engines/arguments/ holds the table. Most settings go into one flag,
--overrides "name=value;name=value".

A model is a folder with mlc-chat-config.json, or HF://org/name of such a one; its library is
compiled at the first start, for settings among which are max_num_sequence and prefill_chunk_size,
so the first start with new ones takes minutes.
"""

from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.engines._checkpoint_server import flags, gpus
from llmdyno.engines._homes import home, required, variable
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, show
from llmdyno.records.server_page import MetricsPage, Series

_PROGRAM = ("mlc_llm", "mlc_llm")  # the package, and its program
START_TIMEOUT_S = 1800.0  # weights are fetched, the model's library is compiled
MODEL_FILE = "mlc-chat-config.json"
_SERVE = "MLC-LLM source at 78b6cdb9, python/mlc_llm/cli/serve.py"
_CONFIG = "MLC-LLM source, python/mlc_llm/serve/config.py"
_FLAGS = ("mode", "prefix_cache_mode", "prefill_mode")  # the others are overrides

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="mode",
        conflicts="interactive with max_num_sequence above 1",
        layer="engine",
        kind="choice",
        choices=("local", "interactive", "server"),
        defaults=(("0.20", "local"),),
        search=("local", "server"),
        does=(
            "What the unset limits become: local serves 4 sequences at once, interactive 1, server"
            " as many as the GPU's memory holds."
        ),
        turn="server for any load: the default is made for one person's computer.",
        trades="server takes all the GPU's memory within gpu_memory_utilization.",
        source=_CONFIG,
    ),
    Knob(
        name="max_num_sequence",
        means="sequences a step",
        conflicts="above 1 with mode=interactive",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        high=4096,
        search=(8, 512),
        search_log=True,
        unit="sequences",
        does="The most sequences in the KV cache at once. Unset: by mode, 4, 1 or what fits.",
        turn="Raise it above the number of users; lower it when decode must stay quick.",
        trades="More sequences: more tokens/s, slower decode for each; a new value is compiled.",
        source=_CONFIG,
    ),
    Knob(
        name="max_total_seq_length",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        unit="tokens",
        does="Tokens that the KV cache holds. Unset: by mode, the context window or what fits.",
        turn="Raise it with max_num_sequence when mode is local.",
        trades="A larger cache takes memory.",
        source=_CONFIG,
    ),
    Knob(
        name="prefill_chunk_size",
        means="tokens a step",
        but="it counts the tokens of prompts only",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        high=131_072,
        search=(512, 8192),
        search_log=True,
        unit="tokens",
        does="The most tokens of prompts that one prefill computes. Unset: as compiled.",
        turn="Raise it for TTFT of long prompts; lower it for memory.",
        trades="Large chunks hold up those who decode; a new value is compiled.",
        source=_CONFIG,
    ),
    Knob(
        name="gpu_memory_utilization",
        means="KV cache size",
        but="it is a share of all memory, weights included",
        layer="engine",
        kind="float",
        defaults=(("0.20", None),),
        low=0.05,
        high=0.99,
        search=(0.7, 0.95),
        does=(
            "The share of the GPU's memory for weights, activations and KV cache. Unset: 0.85. In"
            " the modes local and interactive much less may be used, in server slightly more."
        ),
        turn="Raise it in mode=server when the KV cache is the limit.",
        trades="A larger cache holds more sequences; too large, and the start fails.",
        source=_CONFIG,
    ),
    Knob(
        name="prefix_cache_mode",
        means="prefix cache",
        layer="engine",
        kind="choice",
        choices=("radix", "disable"),
        defaults=(("0.20", "radix"),),
        search=("radix", "disable"),
        when=(("repeats", "radix"),),
        does="Keeps the KV cache of finished prompts and skips what a new prompt shares with one.",
        turn="disable only where no two prompts share a beginning.",
        trades="Finished sequences hold places in the cache until they are recycled.",
        source=_SERVE,
    ),
    Knob(
        name="prefix_cache_max_num_recycling_seqs",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=-1,
        high=4096,
        unit="sequences",
        needs=("prefix_cache_mode", "radix"),
        does="Finished sequences that stay for later prompts; -1: no limit. Unset: as many as"
        " max_num_sequence.",
        turn="Raise it where many different prefixes come back.",
        trades="They take room in the KV cache from running sequences.",
        source=_CONFIG,
    ),
    Knob(
        name="prefill_mode",
        layer="engine",
        kind="choice",
        choices=("hybrid", "chunked"),
        defaults=(("0.20", "hybrid"),),
        search=("hybrid", "chunked"),
        does="hybrid computes a prefill and a step of decoding together; chunked, in turn.",
        turn="hybrid for an even ITL; chunked where prefills must be quick.",
        trades="TTFT of those who come against ITL of those who run.",
        source=_SERVE,
    ),
    Knob(
        name="context_window_size",
        means="longest sequence",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        unit="tokens",
        does="The longest prompt and answer together. Unset: the model's.",
        turn="Lower it to what you need when memory is short.",
        trades="Longer requests are refused; a new value is compiled.",
        source=_SERVE,
    ),
    Knob(
        name="sliding_window_size",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        unit="tokens",
        alters_output=True,
        does="Tokens that attention looks back, for models made so. Unset: the model's.",
        turn="Only for models with a sliding window.",
        trades="What is further back is forgotten.",
        source=_SERVE,
    ),
    Knob(
        name="attention_sink_size",
        conflicts="no sliding_window_size",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=0,
        unit="tokens",
        alters_output=True,
        does="First tokens that a sliding window keeps. Unset: the model's.",
        turn="Only together with sliding_window_size.",
        trades="They take room in the window.",
        source=_SERVE,
    ),
    Knob(
        name="tensor_parallel_shards",
        means="tensor parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer. Unset: as the model's config says.",
        turn="When the model does not fit one GPU, or one request must be quicker.",
        trades="Each layer waits for the links between GPUs; a new value is compiled.",
        source=_CONFIG,
    ),
    Knob(
        name="pipeline_parallel_stages",
        means="pipeline parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.20", None),),
        low=1,
        high=64,
        unit="stages",
        does="Groups of GPUs that have a part of the layers each. Unset: the model's.",
        turn="When the links between GPUs are slow.",
        trades="Each token passes all stages; a new value is compiled.",
        source=_SERVE,
    ),
    Knob(
        name="opt",
        layer="engine",
        kind="choice",
        choices=("O0", "O1", "O2", "O3"),
        defaults=(("0.20", None),),
        search=("O2", "O3"),
        does="How far the model's library is optimised. Unset: O2.",
        turn="O3 may use libraries that O2 leaves out; O0 to find a fault.",
        trades="Each level is compiled anew; O3 is the least tried one.",
        source=_SERVE,
    ),
)

SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Insufficient GPU memory error", "out-of-memory"),
    (r"Cannot find .*mlc-chat-config\.json in the model directory", "model-not-found"),
    (r"Cannot find model .*, directory does not exist", "model-not-found"),
)


METRICS = MetricsPage(
    # Its names have no prefix of their own, and it counts no requests.
    kind="mlc-llm",
    prefix="engine_prefill_time_sum",
    series={
        "output_tokens": Series(("completion_tokens_sum",)),
        "input_tokens": Series(("prompt_tokens_sum",)),
    },
)


class MlcLlmEngine(Engine):
    """`python -m mlc_llm serve` of the Python that has it."""

    name = "mlc-llm"
    knobs = KNOBS
    metrics = METRICS
    install = "see https://llm.mlc.ai/docs/install/mlc_llm.html: its packages are not on PyPI"
    image = ""
    python_variable = variable("mlc-llm")
    distributions = ("mlc-llm",)

    def version(self) -> str | None:
        """Return the installed version; "unknown" for a copy without its metadata.

        Raises:
            HomeError: its environment variable names no Python that has it, or that is not told.
        """
        found = home(self.name, *_PROGRAM, as_module=True)
        return found.version if found else None

    def check(self, model: str, config: Config) -> None:
        """Refuse a model that MLC did not compile, and what MLC-LLM would take and ignore.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        if not model.startswith("HF://"):
            folder = Path(model).expanduser()
            if not folder.is_dir():
                raise UsageError(
                    f"--model {model}: there is no such folder; give one, or HF://org/name of a"
                    " model in MLC's format."
                )
            if not (folder / MODEL_FILE).is_file():
                raise UsageError(
                    f"--model {model}: has no {MODEL_FILE}; convert it with `mlc_llm"
                    " convert_weight` and `mlc_llm gen_config`."
                )
        elif model.removeprefix("HF://").count("/") != 1:
            raise UsageError(f"--model {model}: write HF://org/name.")
        if "attention_sink_size" in config and "sliding_window_size" not in config:
            raise UsageError(
                f"attention_sink_size={show(config['attention_sink_size'])} has no effect without"
                " sliding_window_size: set that too or leave it out."
            )
        sequences = config.get("max_num_sequence")
        if config.get("mode") == "interactive" and isinstance(sequences, int) and sequences > 1:
            raise UsageError(
                f"max_num_sequence={sequences} contradicts mode=interactive, which serves one"
                " sequence: set mode=server."
            )

    def launch(
        self,
        model: str,
        config: Config,
        *,
        artifact: Path | None,  # noqa: ARG002 - nothing is built
        host: str,
        port: int,
    ) -> Launch:
        """Return `mlc_llm serve`; it has no health path, so its list of models stands for it."""
        flagged = {name: value for name, value in config.items() if name in _FLAGS}
        overrides = ";".join(
            f"{name}={show(value)}" for name, value in config.items() if name not in _FLAGS
        )
        there = required(self.name, *_PROGRAM, as_module=True)
        return Launch(
            argv=(
                *(there.python, "-m", "mlc_llm", "serve", model),
                *("--host", host, "--port", str(port)),
                *flags(flagged, KNOBS),
                *(("--overrides", overrides) if overrides else ()),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            health_path="/v1/models",
            probe=("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}),
            environment=there.environment,
            gpus=gpus(config, "tensor_parallel_shards", "pipeline_parallel_stages"),
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )


ENGINE: Engine = MlcLlmEngine()
