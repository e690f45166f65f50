"""LMDeploy: its OpenAI server, on the TurboMind or the PyTorch engine.

Run by us: no. Flags and defaults are those of the package lmdeploy 0.18.0 (lmdeploy/cli/serve.py
and utils.py), compared with 0.12.3; tests/engines/arguments/ holds the tables. A model that
TurboMind does not support is served by the PyTorch engine with a warning in the log, whatever
`backend` says.
"""

from pathlib import Path

import msgspec

from llmdyno.engines import Engine, Launch
from llmdyno.engines._checkpoint_server import check_model, flags, gpus
from llmdyno.engines._homes import home, required, variable
from llmdyno.engines._scheduling import SIXTEEN_BITS, Limit, Scheduling, Waking
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, MemoryShare
from llmdyno.records.server_page import MetricsPage, Series, counter, histogram

_PROGRAM = ("lmdeploy", "lmdeploy")  # the package, and its program
START_TIMEOUT_S = 900.0  # weights are read and converted, kernels tuned
_FP8_CACHE = (16, 17)  # what only the PyTorch engine takes
_ARGUMENTS = "LMDeploy 0.18.0 source, lmdeploy/cli/utils.py"

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="backend",
        layer="engine",
        kind="choice",
        choices=("turbomind", "pytorch"),
        defaults=(("0.12.3", "turbomind"),),
        search=("turbomind", "pytorch"),
        alters_output=True,
        does="Which engine computes: TurboMind (C++ and CUDA) or PyTorch.",
        turn="Compare them; what TurboMind does not support goes to PyTorch by itself.",
        trades="TurboMind is lean on the CPU; PyTorch has more models and an fp8 cache.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="max_batch_size",
        means="sequences a step",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", None),),
        low=1,
        high=16384,
        search=(32, 2048),
        when=(("queue", "raise"), ("kv", "lower")),
        search_log=True,
        unit="sequences",
        does="The most sequences that one step computes. Unset: 1024 on H100 and H200, 384 on"
        " A100, 128 on other NVIDIA GPUs.",
        turn="Raise it above the number of users; lower it when decode must stay quick.",
        trades="More sequences: more tokens/s, slower decode for each, more memory.",
        source=_ARGUMENTS + " and lmdeploy/utils.py, get_max_batch_size",
    ),
    Knob(
        name="cache_max_entry_count",
        means="KV cache size",
        but="it is a share of the memory that is free once the model is loaded",
        # TurbomindEngineConfig after 0.2.1: a percentage of FREE memory.
        memory_share=MemoryShare(not_of=("others", "weights")),
        conflicts="num_gpu_blocks",
        layer="engine",
        kind="float",
        defaults=(("0.12.3", 0.8),),
        low=0.05,
        high=0.98,
        search=(0.6, 0.93),
        when=(("kv", "raise"),),
        does=(
            "The share for the KV cache of the GPU memory that is free once the weights are there"
            " (vLLM's fraction is of the total and has the weights in it)."
        ),
        turn="Raise it when the KV cache is the limit; lower it when a prefill runs out of memory.",
        trades="A larger cache holds more sequences and leaves less for activations.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="session_len",
        means="longest sequence",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", None),),
        low=1,
        unit="tokens",
        does="The longest prompt and answer together. Unset: the model's own limit.",
        turn="Lower it to what you need when memory is short.",
        trades="Longer requests are refused.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="cache_block_seq_len",
        means="KV cache block size",
        conflicts="no multiple of 32 with backend=turbomind",
        layer="engine",
        kind="choice",
        choices=(16, 32, 64, 128, 256),
        defaults=(("0.12.3", 64),),
        search=(32, 64, 128),
        unit="tokens",
        does="Tokens in a block of the KV cache.",
        turn="Smaller where shared prefixes are short; TurboMind needs a multiple of 32, on GPUs"
        " before Ampere of 64.",
        trades="Large blocks waste the ends of sequences and match prefixes more coarsely.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="enable_prefix_caching",
        means="prefix cache",
        layer="engine",
        kind="bool",
        defaults=(("0.12.3", False),),
        search=(True, False),
        when=(("prefill", True), ("repeats", True)),
        does="Keeps the KV cache of finished prompts and skips what a new prompt shares with one.",
        turn="Turn it on where prompts share a beginning: here it is off unless asked for.",
        trades="Hashing costs some CPU a block; timing may tell one user what another asked.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="max_prefill_token_num",
        means="tokens a step",
        but="it counts the tokens of prompts only",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", 8192),),
        low=1,
        high=1_048_576,
        search=(1024, 32768),
        when=(("prefill", "raise"),),
        search_log=True,
        unit="tokens",
        does="The most tokens of prompts that one step computes.",
        turn="Raise it for TTFT under many prompts; lower it for an even ITL, or for memory.",
        trades="Larger prefills make those who decode wait, and take memory from the KV cache.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="quant_policy",
        means="KV cache format",
        conflicts="16 and 17 (fp8) with backend=turbomind",
        layer="engine",
        kind="choice",
        choices=(0, 4, 8, 16, 17),
        defaults=(("0.12.3", 0),),
        search=(0, 8),
        when=(("kv", 8),),
        alters_output=True,
        does="The KV cache's number format: 0 the model's, 8 int8, 4 int4, 16 fp8 (e4m3), 17 fp8"
        " (e5m2).",
        turn="8 when the cache is the limit; 16 and 17 need backend=pytorch and, by the tables,"
        " a version after 0.12.3.",
        trades="Half or a quarter of the cache and its reads, at some accuracy.",
        source=_ARGUMENTS + " and lmdeploy/messages.py",
    ),
    Knob(
        name="model_format",
        means="weight format",
        layer="engine",
        kind="choice",
        choices=("hf", "awq", "gptq", "compressed-tensors", "fp8", "mxfp4"),
        defaults=(("0.12.3", None),),
        alters_output=True,
        does="The layout of the weights. Unset: as the model's config says.",
        turn="Only when the config does not say it.",
        trades="A wrong one fails while loading.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="dtype",
        layer="engine",
        kind="choice",
        choices=("auto", "float16", "bfloat16"),
        defaults=(("0.12.3", "auto"),),
        alters_output=True,
        does="The number format of weights and activations; auto: the model's own, 16-bit for 32.",
        turn="bfloat16 where the GPU has it.",
        trades="float16 may overflow in models trained in bfloat16.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="tp",
        means="tensor parallelism",
        conflicts="a number that does not divide the model's attention heads",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer.",
        turn="When the model does not fit one GPU, or one request must be quicker.",
        trades="Each layer waits for the links between GPUs.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="dp",
        means="data parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", 1),),
        low=1,
        high=64,
        unit="copies",
        does="Data-parallel ranks; with backend=pytorch each one is a server of its own.",
        turn="When the model fits and more tokens/s are wanted than one copy makes.",
        trades="Each rank has a KV cache of its own.",
        source=_ARGUMENTS + " and lmdeploy/serve/openai/launch_server.py",
    ),
    Knob(
        name="num_tokens_per_iter",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", 0),),
        low=0,
        unit="tokens",
        needs=("backend", "turbomind"),
        does="Tokens of a forward pass, with max_prefill_iters; 0: TurboMind decides.",
        turn="Together with max_prefill_iters, to spread a long prompt over steps.",
        trades="Small passes keep ITL even and prefill slowly.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="max_prefill_iters",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", 1),),
        low=1,
        high=1024,
        needs=("backend", "turbomind"),
        does="Into how many forward passes a prefill may be split.",
        turn="Raise it when long prompts hold up everybody's tokens.",
        trades="A split prefill ends later: ITL of all against TTFT of one.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="communicator",
        conflicts="cuda-ipc with tp=1",
        layer="engine",
        kind="choice",
        choices=("nccl", "cuda-ipc"),
        defaults=(("0.12.3", "nccl"),),
        needs=("backend", "turbomind"),
        does="How the GPUs of one model exchange data.",
        turn="cuda-ipc on one host with links between all its GPUs.",
        trades="cuda-ipc is quicker for small messages and works on one host only.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="eager_mode",
        means="eager execution",
        layer="engine",
        kind="bool",
        defaults=(("0.12.3", False),),
        needs=("backend", "pytorch"),
        does="Computes without CUDA graphs.",
        turn="Only to find a fault, or to start quickly.",
        trades="Every step pays for launching its kernels one by one.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="num_gpu_blocks",
        conflicts="cache_max_entry_count",
        layer="engine",
        kind="int",
        defaults=(("0.18", 0),),
        low=0,
        unit="blocks",
        needs=("backend", "pytorch"),
        does="Blocks of the KV cache; 0: as many as cache_max_entry_count gives.",
        turn="To give two configs the same cache in a comparison.",
        trades="Fixed blocks fail where the memory is short.",
        source=_ARGUMENTS,
    ),
    Knob(
        name="max_concurrent_requests",
        means="queue limit",
        layer="engine",
        kind="int",
        defaults=(("0.12.3", None),),
        low=1,
        unit="requests",
        does="The most requests that the server hands to the engine at once. Unset: no limit.",
        turn="Set it to shield those who run from those who come.",
        trades="Further requests wait in the server, where its queue metrics do not see them.",
        source="LMDeploy 0.18.0 source, lmdeploy/cli/serve.py",
    ),
)

SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"No enough gpu memory for (kv cache|runtime|state cache)", "out-of-memory"),
    (r"No enough free memory blocks", "out-of-memory"),
    (r"AssertionError: .*invalid", "bad-config"),
)


METRICS = MetricsPage(
    # It has two queues; num_api_requests_waiting, in the API server, is not this one. Its
    # request_success counts refused and failed requests too.
    kind="lmdeploy",
    prefix="lmdeploy:",
    series={
        "output_tokens": counter("lmdeploy:generation_tokens"),
        "input_tokens": counter("lmdeploy:prompt_tokens"),
        "requests": counter("lmdeploy:request_success"),
        **histogram("lmdeploy:time_to_first_token_seconds", "ttft"),
        **histogram("lmdeploy:request_queue_time_seconds", "queue"),
        "running": Series(("lmdeploy:num_requests_running",)),
        "waiting": Series(("lmdeploy:num_requests_waiting",)),
        "kv_use": Series(("lmdeploy:gpu_cache_usage_perc",), several="max"),
        "prefix_hits": counter("lmdeploy:cached_tokens"),
        "prefix_queries": counter("lmdeploy:prompt_tokens"),
    },
)


# lmdeploy/utils.py, get_max_batch_size
_BATCH = Limit("max_batch_size", 128, named={"A100": 384, "H100": 1024, "H800": 1024, "H200": 1024})

# Read in LMDeploy's repository at version 0.16. TurboMind: src/turbomind/engine/engine.cc
# (Schedule) and scheduler.cc; prompts and answers share a forward pass of max_prefill_token_num
# tokens and one of each that decodes, the next pass is planned while one runs, and C++ starts its
# kernels.
_TURBOMIND = Scheduling(
    sequences=_BATCH,
    tokens=Limit("max_prefill_token_num", 8192),
    memory_share=Limit("cache_max_entry_count", 0.8),
    memory_of_free=True,
    longest=Limit("session_len", 1),
    block=Limit("cache_block_seq_len", 64),
    prefix_cache="enable_prefix_caching",
    prefix_cached=False,
    graph_size=Limit("", 1_000_000),
    weights="model_format",
    cache="quant_policy",
    formats={
        "fp8": "fp8",
        "awq": "int4",
        "gptq": "int4",
        "mxfp4": "fp4",
        "4": "int4",
        "8": "int8",
        "16": "fp8",
        "17": "fp8",
    },
    gpus="tp",
    copies="dp",
    source="LMDeploy source, src/turbomind/engine/engine.cc and scheduler.cc; not run by us",
)

# PyTorch: lmdeploy/pytorch/engine/inputs_maker.py (do_prefill_default: when prompts go first;
# _select_active_chunk_work: a long prompt's chunks), engine_loop.py (_main_loop_get_outputs: the
# next inputs are made before the outputs are there), lmdeploy/pytorch/paging/scheduler.py
# (_PrefillAdmissionAttempt: room for the prompt; _schedule_decoding: the last one is evicted),
# lmdeploy/pytorch/backends/cuda/graph_runner.py (decodes are graphs up to max_batch_size).
_PYTORCH = msgspec.structs.replace(
    _TURBOMIND,
    mixes=False,
    whole=True,
    # engine/request.py, RequestManager.sender_wait_loop, stamped: evidence/lmdeploy-stages. It has
    # 3.7 wakes in each millisecond in which the loop only asks the GPU, 1.25 in a step besides.
    wakes=Waking(wake_s=0.27e-3, a_step=1.25, busy_s=5e-3),
    # A step of prompts holds all others up for 38 ms (28 to 54, by level): 32 layers of 1.1 ms.
    same_pace={"dtype": SIXTEEN_BITS},
    paces={"host_kernels_s": 2.0},
    measured=True,
    measured_on=("H200 SXM",),
    start_spread=2.0,  # 16, 45 and 15 % in token rate, TTFT and TPOT: evidence/engines-h200
    interval=16,  # PytorchEngineConfig.prefill_interval; lmdeploy serve has no flag for it
    cache_blocks="num_gpu_blocks",
    graph_size=_BATCH,
    graph_off="eager_mode",
    pieces_size=Limit("", 0),  # prompts are never graphs
    source="LMDeploy source, lmdeploy/pytorch/engine/inputs_maker.py and paging/scheduler.py",
)

SCHEDULING = msgspec.structs.replace(
    _TURBOMIND, variant="backend", variants={"pytorch": _PYTORCH}, cache_blocks="num_gpu_blocks"
)


class LmdeployEngine(Engine):
    """`lmdeploy serve api_server` of the Python that has it."""

    name = "lmdeploy"
    knobs = KNOBS
    scheduling = SCHEDULING
    metrics = METRICS
    install = "run: pip install lmdeploy"
    python_variable = variable("lmdeploy")
    image = "openmmlab/lmdeploy:v0.18.0-cu12"
    packages = ("lmdeploy",)
    distributions = ("lmdeploy",)

    def version(self) -> str | None:
        """Return the installed version; "unknown" for a copy without its metadata.

        Raises:
            HomeError: its environment variable names no Python that has it, or that is not told.
        """
        found = home(self.name, *_PROGRAM)
        return found.version if found else None

    def check(self, model: str, config: Config) -> None:
        """Refuse what LMDeploy would refuse after it has loaded the model, or take and ignore.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        check_model(model, config, "tp")
        turbomind = config.get("backend", "turbomind") == "turbomind"
        policy = config.get("quant_policy")
        if turbomind and policy in _FP8_CACHE:
            raise UsageError(
                f"quant_policy={policy} is an fp8 cache, which TurboMind does not have: set"
                " quant_policy=8 or backend=pytorch."
            )
        block = config.get("cache_block_seq_len")
        if turbomind and isinstance(block, int) and block % 32:
            raise UsageError(
                f"cache_block_seq_len={block} is no multiple of 32, which TurboMind needs: set 32,"
                " 64, 128 or 256, or backend=pytorch."
            )
        if config.get("communicator") == "cuda-ipc" and config.get("tp", 1) == 1:
            raise UsageError(
                "communicator=cuda-ipc has no effect while tp=1: set tp or leave communicator out."
            )
        if config.get("num_gpu_blocks") and "cache_max_entry_count" in config:
            raise UsageError(
                f"cache_max_entry_count={config['cache_max_entry_count']} has no effect beside"
                f" num_gpu_blocks={config['num_gpu_blocks']}: set one of the two."
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
        """Return `lmdeploy serve api_server` with the config as flags; its metrics are on."""
        there = required(self.name, *_PROGRAM)
        return Launch(
            argv=(
                *there.program("lmdeploy"),
                *("serve", "api_server", model),
                *("--server-name", host, "--server-port", str(port)),
                *flags(config, KNOBS),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            probe=("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}),
            environment=there.environment,
            gpus=gpus(config, "tp"),
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )


ENGINE: Engine = LmdeployEngine()
