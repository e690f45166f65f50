"""Text Generation Inference: its launcher, a program of its own that comes as a container.

Run by us: no. Flags and defaults are those of the published reference of the launcher, 3.x
(docs/source/reference/launcher.md at commit 032fc4c4); tests/engines/arguments/ holds the table.
The two knobs without a flag, `attention` and `prefix_caching`, are variables that the launcher
reads (launcher/src/main.rs, resolve_attention).
"""

import functools
import shutil
import subprocess
from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.engines._checkpoint_server import check_model, flags, gpus
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, show
from llmdyno.records.server_page import MetricsPage, Series, counter, histogram

START_TIMEOUT_S = 900.0  # weights are fetched and read, the largest batch is tried, graphs captured
VERSION_TIMEOUT_S = 10.0
PROGRAM = "text-generation-launcher"
_REFERENCE = "TGI 3.x, docs/source/reference/launcher.md"
_VARIABLES = {"attention": "ATTENTION", "prefix_caching": "PREFIX_CACHING"}

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="max_concurrent_requests",
        means="queue limit",
        layer="engine",
        kind="int",
        defaults=(("3.0", 128),),
        low=1,
        high=65536,
        search=(64, 2048),
        search_log=True,
        unit="requests",
        does="The most requests in the server, running and waiting; further ones get status 429.",
        turn="Raise it above the number of users, or some of them measure only refusals.",
        trades="A short queue refuses early; a long one answers late.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_batch_size",
        means="sequences a step",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=1,
        high=16384,
        search=(32, 1024),
        search_log=True,
        unit="requests",
        does="The most requests in a batch. Unset: as many as max_batch_total_tokens allows.",
        turn="Lower it when decode must stay quick for those who have a place.",
        trades="More requests: more tokens/s, slower decode for each.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_batch_prefill_tokens",
        means="tokens a step",
        but="it counts the tokens of prompts only",
        conflicts="a larger max_input_tokens, a smaller max_batch_total_tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=1,
        high=1_048_576,
        search=(2048, 32768),
        search_log=True,
        unit="tokens",
        does="The most tokens of prompts that one prefill computes. Unset: max_input_tokens + 50.",
        turn="Raise it for TTFT under many prompts; lower it when the start runs out of memory.",
        trades="Larger prefills hold up those who decode, and take memory from the KV cache.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_batch_total_tokens",
        conflicts="a larger max_total_tokens or max_batch_prefill_tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=1,
        unit="tokens",
        does="Tokens of all requests of a batch, prompts and the most they may answer: the KV"
        " cache's size. Unset: what a trial at the start shows to fit.",
        turn="Leave it to TGI, or lower it when something else is on the GPU.",
        trades="Smaller: fewer requests at once.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_input_tokens",
        conflicts="a max_total_tokens that is not larger, a smaller max_batch_prefill_tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=1,
        unit="tokens",
        does="The longest prompt. Unset: what fits, less than the model's limit.",
        turn="Set it to what you need, so that the start does not try longer ones.",
        trades="Longer prompts are refused.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_total_tokens",
        means="longest sequence",
        conflicts="a max_input_tokens that is not smaller, a smaller max_batch_total_tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=2,
        unit="tokens",
        does="The longest prompt and answer together. Unset: what fits, up to the model's limit.",
        turn="Lower it to what you need: room is kept for each request's longest answer.",
        trades="Longer requests are refused.",
        source=_REFERENCE,
    ),
    Knob(
        name="waiting_served_ratio",
        layer="engine",
        kind="float",
        defaults=(("3.0", 0.3),),
        low=0.0,
        high=100.0,
        search=(0.1, 2.0),
        does="Waiting requests per running one from which on decoding stops for their prefill.",
        turn="Lower it for TTFT; raise it for an even ITL.",
        trades="TTFT of those who wait against ITL of those who run.",
        source=_REFERENCE,
    ),
    Knob(
        name="max_waiting_tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", 20),),
        low=0,
        high=65536,
        search=(1, 100),
        search_log=True,
        unit="steps",
        does="Steps of decoding after which those who wait are let in, whatever the ratio says.",
        turn="Lower it for TTFT; raise it when prefills interrupt too often.",
        trades="TTFT of those who wait against ITL of those who run.",
        source=_REFERENCE,
    ),
    Knob(
        name="attention",
        means="attention kernel",
        conflicts="paged with prefix_caching=true",
        layer="engine",
        kind="choice",
        choices=("flashinfer", "flashdecoding", "paged"),
        defaults=(("3.0", None),),
        search=("flashinfer", "flashdecoding"),
        alters_output=True,
        does="Whose attention kernels compute (the variable ATTENTION). Unset: flashinfer where"
        " the model's heads allow it.",
        turn="Compare them on your lengths.",
        trades="paged has no prefix cache.",
        source="TGI source, launcher/src/main.rs, resolve_attention",
    ),
    Knob(
        name="prefix_caching",
        means="prefix cache",
        conflicts="on: attention=paged",
        layer="engine",
        kind="bool",
        defaults=(("3.0", None),),
        search=(True, False),
        when=(("repeats", True),),
        does="Keeps the KV cache of finished prompts (the variable PREFIX_CACHING). Unset: on, but"
        " for models and kernels that cannot.",
        turn="Leave it on where prompts share a beginning.",
        trades="Timing may tell one user what another asked.",
        source="TGI source, launcher/src/main.rs, resolve_attention",
    ),
    Knob(
        name="quantize",
        means="weight format",
        conflicts="any dtype; exl2 with num_shard above 1",
        layer="engine",
        kind="choice",
        choices=(
            "awq",
            "compressed-tensors",
            "eetq",
            "exl2",
            "gptq",
            "marlin",
            "bitsandbytes",
            "bitsandbytes-nf4",
            "bitsandbytes-fp4",
            "fp8",
        ),
        defaults=(("3.0", None),),
        search=("fp8", "eetq"),
        alters_output=True,
        does="How weights are quantised; eetq, fp8 and bitsandbytes do it while loading.",
        turn="fp8 on GPUs that compute in it, eetq (8 bits) before them.",
        trades="Fewer bytes to read a step, at some accuracy; bitsandbytes saves only memory.",
        source=_REFERENCE,
    ),
    Knob(
        name="dtype",
        conflicts="any quantize",
        layer="engine",
        kind="choice",
        choices=("float16", "bfloat16"),
        defaults=(("3.0", None),),
        alters_output=True,
        does="The number format of weights and activations. Unset: the model's own.",
        turn="bfloat16 where the GPU has it.",
        trades="float16 may overflow in models trained in bfloat16.",
        source=_REFERENCE,
    ),
    Knob(
        name="kv_cache_dtype",
        means="KV cache format",
        layer="engine",
        kind="choice",
        choices=("fp8_e4m3fn", "fp8_e5m2"),
        defaults=(("3.0", None),),
        search=("fp8_e4m3fn",),
        alters_output=True,
        does="The number format of the KV cache. Unset: the model's own.",
        turn="When the cache is the limit or decode is bound by reading it.",
        trades="Half the cache and its reads, at some accuracy.",
        source=_REFERENCE,
    ),
    Knob(
        name="speculate",
        means="speculated tokens",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=0,
        high=16,
        unit="tokens",
        does="Tokens guessed a step: by the model's Medusa heads, else by n-grams of the prompt.",
        turn="At few users, where answers repeat their prompts.",
        trades="Wrong guesses are computed in vain: it costs tokens/s when the GPU is busy.",
        source=_REFERENCE,
    ),
    Knob(
        name="cuda_memory_fraction",
        means="KV cache size",
        but="it caps all memory, weights included",
        layer="engine",
        kind="float",
        defaults=(("3.0", 1.0),),
        low=0.05,
        high=1.0,
        does="The share of the GPU's total memory that TGI may use: weights, activations, cache.",
        turn="Lower it when something else is on the GPU.",
        trades="A smaller KV cache holds fewer requests.",
        source=_REFERENCE,
    ),
    Knob(
        name="num_shard",
        means="tensor parallelism",
        conflicts="above 1 with quantize=exl2; a number that does not divide the attention heads",
        layer="engine",
        kind="int",
        defaults=(("3.0", None),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer. Unset: all that it sees.",
        turn="Set 1 on a machine with several GPUs where the model fits one.",
        trades="Each layer waits for the links between GPUs.",
        source=_REFERENCE,
    ),
    Knob(
        name="validation_workers",
        means="API server processes",
        layer="engine",
        kind="int",
        defaults=(("3.0", 2),),
        low=1,
        high=64,
        search=(1, 8),
        unit="threads",
        does="Threads of the router that tokenise and check prompts.",
        turn="Raise it when prompts are long and many.",
        trades="Each takes a core at times.",
        source=_REFERENCE,
    ),
)

SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Not enough memory to handle \d+ prefill tokens", "out-of-memory"),
    (r"ArgumentValidation\(|error: (invalid value|unexpected argument)", "bad-config"),
    (r"NotEnoughCUDADevices\(", "bad-config"),
    (r"text-generation-(server|router) not found in PATH", "missing-library"),
    (r"Error: DownloadError", "model-not-found"),
)


METRICS = MetricsPage(
    kind="tgi",
    prefix="tgi_",
    series={
        "output_tokens": Series(("tgi_request_generated_tokens_sum",)),
        "input_tokens": Series(("tgi_request_input_length_sum",)),
        "requests": counter("tgi_request_success"),
        **histogram("tgi_request_queue_duration", "queue"),
        "running": Series(("tgi_batch_current_size",)),
        "waiting": Series(("tgi_queue_size",)),
    },
)


class TgiEngine(Engine):
    """`text-generation-launcher`, as it is on the path of TGI's container."""

    name = "tgi"
    knobs = KNOBS
    metrics = METRICS
    install = "it is a container: run llmdyno in it, or put text-generation-launcher on the path"
    image = "ghcr.io/huggingface/text-generation-inference:3.3.4"
    distributions = ("text-generation-server",)

    def version(self) -> str | None:
        """Return what the launcher on the path says; "unknown" if it says nothing we know."""
        path = shutil.which(PROGRAM)
        return None if path is None else _version_of(path)

    def check(self, model: str, config: Config) -> None:
        """Refuse what the launcher would refuse, or take and ignore.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        check_model(model, config, "num_shard")
        for smaller, larger in (
            ("max_input_tokens", "max_total_tokens"),
            ("max_input_tokens", "max_batch_prefill_tokens"),
            ("max_batch_prefill_tokens", "max_batch_total_tokens"),
            ("max_total_tokens", "max_batch_total_tokens"),
        ):
            low, high = config.get(smaller), config.get(larger)
            if not isinstance(low, int) or not isinstance(high, int):
                continue
            if low > high or (low == high and larger == "max_total_tokens"):
                raise UsageError(
                    f"{smaller}={low} does not fit {larger}={high}: raise {larger} or lower"
                    f" {smaller}."
                )
        quantize, shards = config.get("quantize"), config.get("num_shard", 1)
        if quantize is not None and "dtype" in config:
            raise UsageError(
                f"dtype={show(config['dtype'])} cannot be used with quantize={show(quantize)}:"
                " leave one of the two out."
            )
        if quantize == "exl2" and isinstance(shards, int) and shards > 1:
            raise UsageError(f"num_shard={shards} cannot be used with quantize=exl2: set 1.")
        if config.get("prefix_caching") is True and config.get("attention") == "paged":
            raise UsageError(
                "prefix_caching=true cannot be used with attention=paged: set attention=flashinfer"
                " or flashdecoding."
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
        """Return the launcher with the config as flags and variables."""
        flagged = {name: value for name, value in config.items() if name not in _VARIABLES}
        variables = {
            variable: show(config[name]) for name, variable in _VARIABLES.items() if name in config
        }
        return Launch(
            argv=(
                *(shutil.which(PROGRAM) or PROGRAM, "--model-id", model),
                *("--hostname", host, "--port", str(port)),
                # Else two servers on one machine would share a socket and a rendezvous.
                *("--shard-uds-path", f"/tmp/text-generation-server-{port}"),  # noqa: S108 - TGI's own default, with the port
                *("--master-port", str(_rendezvous(port)), "--usage-stats", "off"),
                *flags(flagged, KNOBS),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model="tgi",
            probe=("/generate", {"inputs": "a", "parameters": {"max_new_tokens": 1}}),
            environment=variables,
            gpus=gpus(config, "num_shard") if "num_shard" in config else 0,
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )


def _rendezvous(port: int) -> int:
    """Return a port for the shards to meet at, another one for each server."""
    return port + 10_000 if port < 50_000 else port - 10_000


@functools.cache
def _version_of(path: str) -> str:
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        ).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return said[-1] if said else "unknown"


ENGINE: Engine = TgiEngine()
