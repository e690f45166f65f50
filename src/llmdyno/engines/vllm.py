"""vLLM: its OpenAI server, started by its own command line.

The defaults are those of `vllm serve` as the sources of 14 versions from 0.10.2 to 0.33.0 have them
(vllm/engine/arg_utils.py and vllm/config/; tests/engines/arguments/ holds the tables), where
several depend on the GPU: what vLLM decides by itself stands here as unset. A knob whose oldest
default is of a later version came with that one. Run by us: 0.26 on one H200. Other versions: not
run by us.
"""

from collections.abc import Mapping
from pathlib import Path

from llmdyno.engines import Engine, Launch
from llmdyno.engines._checkpoint_server import (
    check_model,
    check_precision,
    flags,
    gpus,
)
from llmdyno.engines._homes import home, required, variable
from llmdyno.engines._scheduling import SIXTEEN_BITS, Limit, Scheduling
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, MemoryShare, show
from llmdyno.records.server_page import MetricsPage, Series, counter, histogram

_PROGRAM = ("vllm", "vllm")  # the package, and its program
START_TIMEOUT_S = 900.0  # weights are read, graphs captured, kernels compiled
_CONFIG_SOURCE = "vLLM 0.26 source, vllm/config/"
_MEASURED = "measured on one H200, Llama-3-8B shape, 100 users"

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="max_num_seqs",
        means="sequences a step",
        conflicts="a smaller max_num_batched_tokens",
        layer="engine",
        kind="int",
        defaults=(("0.10", None),),
        low=1,
        high=16384,
        search=(32, 2048),
        when=(("queue", "raise"), ("kv", "lower")),
        search_log=True,
        search_multiple=16,  # others have no whole graph for a full step: _GRAPH_SIZES
        does=(
            "The most sequences that one step computes. Unset: 1024 on GPUs of 70 GiB and more"
            " (not the A100), 256 on others."
        ),
        turn=(
            "Raise it above the number of users: below it, users wait for a place and TTFT becomes"
            " queueing time. Lower it when decode must stay quick for those who have a place, to a"
            " multiple of 8, above 256 of 16: a full step of another cap has no whole CUDA graph."
        ),
        trades=(
            "More sequences: more tokens/s, slower decode for each, more KV memory. 64 against"
            f" 1024: 10,205 against 13,275 tok/s and TTFT p50 1,495 against 88 ms ({_MEASURED})."
        ),
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="max_num_batched_tokens",
        means="tokens a step",
        conflicts="a larger max_num_seqs; with enable_chunked_prefill=false a larger max_model_len",
        layer="engine",
        kind="int",
        defaults=(("0.10", None),),
        low=1,
        high=1_048_576,
        search=(1024, 32768),
        when=(("prefill", "raise"), ("kv", "lower")),
        search_log=True,
        unit="tokens",
        does=(
            "The most tokens, of prompts and answers together, that one step computes. Unset: 8192"
            " on GPUs of 70 GiB and more (not the A100), 2048 on others."
        ),
        turn="Raise it for throughput and TTFT under many prompts; lower it for an even ITL.",
        trades=(
            "Larger steps prefill faster, make those who decode wait longer, and take memory from"
            " the KV cache for activations."
        ),
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="gpu_memory_utilization",
        means="KV cache size",
        but="it is a share of all memory, weights and activations included",
        # vllm/config/cache.py of 0.26 and the worker's memory profiling.
        memory_share=MemoryShare(holds=("weights", "activations")),
        layer="engine",
        kind="float",
        defaults=(("0.20", 0.92), ("0.10", 0.9)),
        low=0.05,
        high=1.0,
        search=(0.8, 0.95),
        when=(("kv", "raise"),),
        does=(
            "The share of the GPU's total memory that vLLM may use: weights, activations and, with"
            " what is left, the KV cache. (TensorRT-LLM's fraction is of the free memory.)"
        ),
        turn="Raise it when the KV cache is the limit; lower it when something else is on the GPU.",
        trades="A larger cache holds more sequences; too large, and a burst runs out of memory.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="kv_cache_memory_bytes",
        layer="engine",
        kind="int",
        defaults=(("0.10", None),),
        low=1,
        unit="bytes",
        does=(
            "The KV cache's size, whatever gpu_memory_utilization says. Unset: what that leaves."
        ),
        turn="When several servers share a GPU: each would else take all that it finds.",
        trades="Nothing checks that weights and activations fit beside it.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="max_model_len",
        means="longest sequence",
        conflicts="a smaller max_num_batched_tokens with enable_chunked_prefill=false",
        layer="engine",
        kind="int",
        defaults=(("0.10", None),),
        low=1,
        unit="tokens",
        does="The longest prompt and answer together. Unset: the model's own limit.",
        turn="Lower it to what you need when the KV cache does not fit one longest sequence.",
        trades="Longer requests are refused.",
        source=_CONFIG_SOURCE + "model.py",
    ),
    Knob(
        name="block_size",
        means="KV cache block size",
        layer="engine",
        kind="choice",
        choices=(8, 16, 32, 64, 128),
        defaults=(("0.10", None),),
        unit="tokens",
        does="Tokens in a block of the KV cache. Unset: 16, or what the attention backend needs.",
        turn="Seldom; larger blocks suit long contexts.",
        trades="Large blocks waste the ends of sequences and match prefixes more coarsely.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="enable_prefix_caching",
        means="prefix cache",
        layer="engine",
        kind="bool",
        defaults=(("0.10", True),),
        search=(True, False),
        when=(("prefill", True), ("repeats", True)),
        does="Keeps the KV cache of finished prompts and skips what a new prompt shares with one.",
        turn="Leave it on where prompts share a beginning; off it saves hashing where none do.",
        trades="Hashing costs some CPU a block; timing may tell one user what another asked.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="enable_chunked_prefill",
        means="chunked prefill",
        conflicts="off: max_num_batched_tokens below max_model_len",
        layer="engine",
        kind="bool",
        defaults=(("0.10", None),),
        does="Splits long prompts over steps, so that answers go on meanwhile. Unset: on.",
        turn="Leave it on.",
        trades="Off: a long prompt holds up everybody's tokens, and must fit one step whole.",
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="kv_cache_dtype",
        means="KV cache format",
        layer="engine",
        kind="choice",
        choices=("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"),
        defaults=(("0.10", "auto"),),
        search=("auto", "fp8"),
        when=(("kv", "fp8"), ("decode", "fp8")),
        alters_output=True,
        does="The number format of the KV cache; auto: the model's own.",
        turn="fp8 when the cache is the limit or decode is bound by reading it.",
        trades="fp8 halves the cache and its reads, and costs some accuracy.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="quantization",
        means="weight format",
        conflicts="dtype=float32; awq and gptq also dtype=bfloat16",
        layer="engine",
        kind="choice",
        choices=(
            "fp8",
            "awq",
            "awq_marlin",
            "gptq",
            "gptq_marlin",
            "compressed-tensors",
            "modelopt",
        ),
        defaults=(("0.10", None),),
        search=("fp8",),
        when=(("decode", "fp8"),),
        alters_output=True,
        does="How weights are quantised; fp8 quantises 16-bit weights while loading.",
        turn="fp8 on GPUs that compute in it (from Ada and Hopper on); others need such weights.",
        trades=(
            "Half the bytes to read a step, at some accuracy. With an fp8 cache too: 16,170"
            f" against 13,275 tok/s ({_MEASURED})."
        ),
        source=_CONFIG_SOURCE + "model.py",
    ),
    Knob(
        name="dtype",
        conflicts="float32 with any quantization, bfloat16 with awq and gptq",
        layer="engine",
        kind="choice",
        choices=("auto", "half", "float16", "bfloat16", "float", "float32"),
        defaults=(("0.10", "auto"),),
        alters_output=True,
        does="The number format of weights and activations; auto: the model's own, 16-bit for 32.",
        turn="bfloat16 where the GPU has it.",
        trades="float32 costs twice the memory and much of the speed.",
        source=_CONFIG_SOURCE + "model.py",
    ),
    Knob(
        name="api_server_count",
        means="API server processes",
        layer="engine",
        kind="int",
        defaults=(("0.15", None), ("0.10", 1)),
        low=1,
        high=64,
        search=(1, 8),
        when=(("host", "raise"),),
        does="Processes that tokenise, detokenise and speak HTTP. Unset: one a data-parallel rank.",
        turn="Raise it when one Python process at 100 % holds up thousands of tokens a second.",
        trades="Each takes a core and some memory.",
        source="vLLM 0.26 source, vllm/entrypoints/openai/cli_args.py",
    ),
    Knob(
        name="performance_mode",
        layer="engine",
        kind="choice",
        choices=("balanced", "interactivity", "throughput"),
        defaults=(("0.17", "balanced"),),
        search=("balanced", "interactivity", "throughput"),
        does=(
            "A preset: interactivity has finer CUDA graphs for small batches; throughput has larger"
            " graphs and doubles the unset max_num_seqs and max_num_batched_tokens."
        ),
        turn="Towards what you are short of.",
        trades="Latency of each request against tokens/s of all.",
        source=_CONFIG_SOURCE + "vllm.py",
    ),
    Knob(
        name="max_cudagraph_capture_size",
        means="largest CUDA graph",
        conflicts="enforce_eager=true",
        layer="engine",
        kind="int",
        defaults=(("0.12", None),),
        low=0,
        high=8192,
        search=(128, 1024),
        when=(("host", "raise"),),
        search_log=True,
        unit="sequences",
        does="The largest batch with a CUDA graph. Unset: the lesser of 2 x max_num_seqs and 512.",
        turn="Raise it above the number of users, so that no step falls off the graphs.",
        trades="Each graph takes memory and makes the start longer.",
        source=_CONFIG_SOURCE + "compilation.py",
    ),
    Knob(
        name="enforce_eager",
        means="eager execution",
        conflicts="on: max_cudagraph_capture_size and cudagraph_mode",
        layer="engine",
        kind="bool",
        defaults=(("0.10", False),),
        does="Computes without CUDA graphs and without compiling.",
        turn="Only to find a fault, or to start quickly.",
        trades="Every step pays for launching its kernels one by one.",
        source=_CONFIG_SOURCE + "model.py",
    ),
    Knob(
        name="async_scheduling",
        means="overlapped scheduling",
        layer="engine",
        kind="bool",
        defaults=(("0.14", None), ("0.10", False)),
        does="Plans the next step while the GPU computes this one. Unset: on where it can be.",
        turn="Leave it to vLLM.",
        trades=(
            "Some speculative decoding excludes it. With pipeline parallelism model runner V1, that"
            " of most models with experts and of hybrids, plans no batch ahead."
        ),
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="stream_interval",
        layer="engine",
        kind="int",
        defaults=(("0.12", 1),),
        low=1,
        high=1024,
        unit="tokens",
        does="Tokens in a streamed chunk after the first.",
        turn="Raise it when the API servers' CPU is the limit.",
        trades="Text comes in bursts: fewer chunks, longer gaps.",
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="scheduling_policy",
        means="scheduling order",
        layer="engine",
        kind="choice",
        choices=("fcfs", "priority"),
        defaults=(("0.10", "fcfs"),),
        does="Who comes first: by arrival, or by the request's priority.",
        turn="priority only when requests bear one.",
        trades="Low priorities may starve.",
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="tensor_parallel_size",
        means="tensor parallelism",
        conflicts="a number that does not divide the model's attention heads",
        layer="engine",
        kind="int",
        defaults=(("0.10", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer.",
        turn="When the model does not fit one GPU, or one request must be quicker.",
        trades="Each layer waits for the links between GPUs.",
        source=_CONFIG_SOURCE + "parallel.py",
    ),
    Knob(
        name="prefix_caching_hash_algo",
        layer="engine",
        kind="choice",
        choices=("sha256", "sha256_cbor", "xxhash", "xxhash_cbor"),
        defaults=(("0.10", "sha256"),),
        search=("sha256", "xxhash"),
        when=(("host", "xxhash"),),
        needs=("enable_prefix_caching", True),
        does="How the blocks of cached prompts are named; the two xxhash need its package.",
        turn="xxhash when long prompts keep the scheduler's CPU busy and all users are trusted.",
        trades="xxhash is quicker; whoever can make two texts collide can read another's cache.",
        source=_CONFIG_SOURCE + "cache.py; xxhash as 0.26 has it",
    ),
    Knob(
        name="kv_offloading_size",
        layer="engine",
        kind="float",
        defaults=(("0.12", None),),
        low=1.0,
        high=65536.0,
        unit="GiB",
        needs=("enable_prefix_caching", True),
        does="Memory of the machine for prefixes that the GPU's cache cannot hold. Unset: none.",
        turn="Where more different prefixes come back than the GPU can hold.",
        trades="Copies to and from the machine's memory share the bus with everything else.",
        source=_CONFIG_SOURCE + "cache.py",
    ),
    Knob(
        name="long_prefill_token_threshold",
        layer="engine",
        kind="int",
        defaults=(("0.10", 0),),
        low=0,
        unit="tokens",
        does="The most tokens of one prompt that a step computes; 0: no limit of its own.",
        turn="Set it where few very long prompts come among many short ones.",
        trades="Long prompts take more steps: their TTFT against everybody else's.",
        source=_CONFIG_SOURCE + "scheduler.py",
    ),
    Knob(
        name="prefill_schedule_interval",
        layer="engine",
        kind="int",
        defaults=(("0.26", 1),),
        low=1,
        high=1024,
        search=(1, 8),
        does="Lets new prompts in only every so many steps, the same ones in all data-parallel"
        " copies; without such copies it does nothing.",
        turn="Raise it when prefills make ITL uneven between the copies of an MoE model.",
        trades="ITL of those who run against TTFT of those who come.",
        source=_CONFIG_SOURCE + "scheduler.py; absent in 0.20",
    ),
    Knob(
        name="max_num_queued_reqs",
        means="queue limit",
        layer="engine",
        kind="int",
        defaults=(("0.30", None),),
        low=1,
        unit="requests",
        does="The most requests that wait; further ones are refused. Unset: no limit.",
        turn="Set it when a late answer is worth less than a quick refusal.",
        trades="Refused requests against long queues.",
        source="vLLM 0.30 source, vllm/config/scheduler.py; absent in 0.26",
    ),
    Knob(
        name="cudagraph_mode",
        conflicts="enforce_eager=true, unless NONE",
        layer="engine",
        kind="choice",
        choices=("NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"),
        defaults=(("0.10", None),),
        search=("PIECEWISE", "FULL_AND_PIECEWISE", "FULL"),
        does="Which steps run as CUDA graphs. Unset: full ones for decode and pieces for the rest,"
        " where the attention backend can.",
        turn="FULL where the engine's process, not the GPU, is the limit (a core at 100 % while the"
        " GPU waits: small models, fp8) and new prompts are short: steps that admit one are then"
        " whole graphs too. Its attention must allow it (FlashAttention 3 does; others go back to"
        " the default). FULL_DECODE_ONLY for memory; NONE only to find a fault.",
        trades="More graphs: less CPU a step, more memory, a longer start. FULL against unset on an"
        " H200, Llama-3-8B shape, 100 users: 16,500 to 16,900 tok/s against 12,200 to 13,300 in fp8"
        " (on two machines), no gain seen in bf16 (one run): evidence/full-graphs.",
        source=_CONFIG_SOURCE + "compilation.py",
    ),
    Knob(
        name="optimization_level",
        layer="engine",
        kind="choice",
        choices=(0, 1, 2, 3),
        defaults=(("0.12", 2),),
        does="How far the model is compiled: 0 not at all, 1 quickly, 2 in full; 3 is as 2 so far.",
        turn="0 or 1 when the start must be quick.",
        trades="Start-up time against the time of each step.",
        source=_CONFIG_SOURCE + "vllm.py",
    ),
    Knob(
        name="attention_backend",
        means="attention kernel",
        layer="engine",
        kind="choice",
        choices=("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"),
        defaults=(("0.13", None),),
        search=("FLASH_ATTN", "FLASHINFER"),
        alters_output=True,
        does="Whose attention kernels compute. Unset: the best known for the GPU and the model.",
        turn="Compare them on your lengths.",
        trades="Each is quicker at some lengths; not all take every KV format.",
        source="vLLM 0.26 source, vllm/config/attention.py",
    ),
    Knob(
        name="spec_method",
        conflicts="ngram without spec_tokens",
        layer="engine",
        kind="choice",
        choices=("ngram", "suffix"),
        defaults=(("0.26", None),),
        does="Guesses tokens from the text so far (ngram), or from former answers too (suffix,"
        " which needs the package arctic-inference). Draft models are not offered here.",
        turn="At few users, where answers repeat their prompts.",
        trades="Wrong guesses are computed in vain: it costs tokens/s when the GPU is busy.",
        source="vLLM 0.26 source, vllm/config/speculative.py",
    ),
    Knob(
        name="spec_tokens",
        means="speculated tokens",
        conflicts="no spec_method",
        layer="engine",
        kind="int",
        defaults=(("0.26", None),),
        low=1,
        high=32,
        unit="tokens",
        does="Tokens guessed a step, with spec_method.",
        turn="Lower it when few guesses are right.",
        trades="More guesses: more tokens a step when right, more work in vain when wrong.",
        source="vLLM 0.26 source, vllm/config/speculative.py",
    ),
    Knob(
        name="pipeline_parallel_size",
        means="pipeline parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.10", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs, or groups of them, that have a part of the layers each.",
        turn="When the model does not fit, and the links between GPUs are slow.",
        trades="Each token passes all of them: tokens/s holds up, latency does not.",
        source=_CONFIG_SOURCE + "parallel.py",
    ),
    Knob(
        name="data_parallel_size",
        means="data parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.10", 1),),
        low=1,
        high=64,
        unit="copies",
        does="Copies of the whole model, each on tensor_parallel_size GPUs.",
        turn="When the model fits and more tokens/s are wanted than one copy makes.",
        trades="Each copy has a KV cache of its own: prefixes are cached in several places.",
        source=_CONFIG_SOURCE + "parallel.py",
    ),
    Knob(
        name="enable_expert_parallel",
        layer="engine",
        kind="bool",
        defaults=(("0.10", False),),
        does="Spreads whole experts over the GPUs instead of slices of each; for such models only.",
        turn="With many experts and data_parallel_size or tensor_parallel_size above 1.",
        trades="Less to exchange within an expert, more between tokens and experts.",
        source=_CONFIG_SOURCE + "parallel.py",
    ),
    Knob(
        name="load_format",
        layer="engine",
        kind="choice",
        choices=("auto", "safetensors", "pt", "dummy", "fastsafetensors", "runai_streamer"),
        defaults=(("0.10", "auto"),),
        does="How weights are read; dummy makes random ones, for measuring without a download.",
        turn="dummy only to measure speed.",
        trades="With dummy the tokens mean nothing.",
        source=_CONFIG_SOURCE + "load.py",
    ),
)

# vllm/config/vllm.py (_set_cudagraph_sizes), and which of them decodes have:
# vllm/v1/worker/gpu/cudagraph_utils.py. So of 23 sequences 17 to 23 are started in pieces.
_GRAPH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 1025, 16))

SCHEDULING = Scheduling(
    # Asynchronous scheduling, on by itself since 0.14. In a pipeline model runner V2 plans a batch
    # ahead (max_concurrent_batches), V1 none; the simulation takes all for V2.
    plans_ahead=True,
    chunks="enable_chunked_prefill",
    sequences=Limit("max_num_seqs", 1024, ((70, 256),), {"A100": 256}),
    tokens=Limit("max_num_batched_tokens", 8192, ((70, 2048),), {"A100": 2048}),
    memory_share=Limit("gpu_memory_utilization", 0.92),
    cache_bytes="kv_cache_memory_bytes",
    longest=Limit("max_model_len", 1),
    block=Limit("block_size", 16),
    prefix_cache="enable_prefix_caching",
    weights="quantization",
    cache="kv_cache_dtype",
    # vllm/utils/torch_utils.py (resolve_kv_cache_dtype_string) and its attention layer
    cache_shipped=("modelopt", "modelopt_fp4", "compressed-tensors"),
    formats={
        "fp8": "fp8",
        "fp8_e4m3": "fp8",
        "fp8_e5m2": "fp8",
        "modelopt": "fp8",
        "compressed-tensors": "fp8",
        "awq": "int4",
        "awq_marlin": "int4",
        "gptq": "int4",
        "gptq_marlin": "int4",
    },
    graph_mode="cudagraph_mode",
    graph_whole=("FULL",),
    graph_none=("NONE",),
    graph_pieces=("PIECEWISE",),
    graph_decodes=("FULL_DECODE_ONLY",),
    graph_off="enforce_eager",
    graph_size=Limit("max_cudagraph_capture_size", 512),
    graph_sequences=2,
    graph_sizes=_GRAPH_SIZES,
    servers="api_server_count",
    outputs_at_once=128,  # VLLM_V1_OUTPUT_PROC_CHUNK_SIZE
    same_pace={
        "async_scheduling": (True,),
        "dtype": SIXTEEN_BITS,
        "load_format": ("safetensors", "pt", "dummy", "fastsafetensors", "runai_streamer"),
    },
    measured=True,
    measured_on=("H200 SXM", "H100 SXM"),
    gpus="tensor_parallel_size",
    copies="data_parallel_size",
    stages="pipeline_parallel_size",
    servers_by_copies=True,
    source="vLLM 0.26 source, vllm/v1/core/sched/scheduler.py and vllm/config/",
)

# A field of a structured flag; all others are --knob-name.
_RENAMED = {"cudagraph_mode": "--compilation-config.cudagraph_mode"}

SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Free memory on device .* is less than desired GPU memory utilization", "out-of-memory"),
    (r"No available memory for the cache blocks", "out-of-memory"),
    (r"larger than the (maximum|available) .*KV cache", "out-of-memory"),
    (r"KV cache is needed, which is larger than the available KV cache memory", "out-of-memory"),
    (r"is not a local folder and is not a valid model identifier", "model-not-found"),
    (r"Invalid repository ID or local directory", "model-not-found"),
    (r"Failed to infer device type", "gpu-unavailable"),
)


METRICS = MetricsPage(
    kind="vllm",
    prefix="vllm:",
    series={
        "output_tokens": counter("vllm:generation_tokens"),
        "input_tokens": counter("vllm:prompt_tokens"),
        "requests": counter("vllm:request_success"),
        **histogram("vllm:time_to_first_token_seconds", "ttft"),
        **histogram("vllm:request_queue_time_seconds", "queue"),
        "running": Series(("vllm:num_requests_running",)),
        "waiting": Series(("vllm:num_requests_waiting",)),
        "kv_use": Series(("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), several="max"),
        "prefix_hits": counter("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
        "prefix_queries": counter("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
        "preemptions": counter("vllm:num_preemptions"),
        "drafts": counter("vllm:spec_decode_num_drafts"),
        "drafted_tokens": counter("vllm:spec_decode_num_draft_tokens"),
        "accepted_tokens": counter("vllm:spec_decode_num_accepted_tokens"),
    },
)


class VllmEngine(Engine):
    """`vllm serve` of the environment that has it."""

    name = "vllm"
    knobs = KNOBS
    scheduling = SCHEDULING
    metrics = METRICS
    install = "run: pip install vllm"
    python_variable = variable("vllm")
    image = "vllm/vllm-openai:v0.26.0"
    flag_aliases: Mapping[str, str] = {  # vllm/engine/arg_utils.py
        "-tp": "tensor_parallel_size",
        "-pp": "pipeline_parallel_size",
        "-dp": "data_parallel_size",
        "-ep": "enable_expert_parallel",
        "-q": "quantization",
    }
    packages = ("vllm",)
    distributions = ("vllm",)

    def version(self) -> str | None:
        """Return the installed version; "unknown" for a copy without its metadata.

        Raises:
            HomeError: its environment variable names no Python that has it, or that is not told.
        """
        found = home(self.name, *_PROGRAM)
        return found.version if found else None

    def check(self, model: str, config: Config) -> None:
        """Refuse what vLLM would refuse after half a minute, and a model that is not there.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        check_model(model, config, "tensor_parallel_size")
        check_precision(config)
        sequences, tokens = config.get("max_num_seqs"), config.get("max_num_batched_tokens")
        if isinstance(sequences, int) and isinstance(tokens, int) and tokens < sequences:
            raise UsageError(
                f"max_num_batched_tokens={tokens} is less than max_num_seqs={sequences}:"
                " each sequence needs a token a step."
            )
        longest = config.get("max_model_len")
        if (
            config.get("enable_chunked_prefill") is False
            and isinstance(tokens, int)
            and isinstance(longest, int)
            and tokens < longest
        ):
            raise UsageError(
                f"max_num_batched_tokens={tokens} is less than max_model_len={longest} while"
                " enable_chunked_prefill=false: a prompt must fit one step whole."
            )
        _check_speculation(config)
        _check_graphs(config)

    def launch(
        self,
        model: str,
        config: Config,
        *,
        artifact: Path | None,  # noqa: ARG002 - nothing is built
        host: str,
        port: int,
    ) -> Launch:
        """Return `vllm serve` with the config as flags."""
        there = required(self.name, *_PROGRAM)
        return Launch(
            argv=(
                *there.program("vllm.entrypoints.cli.main"),
                *("serve", model, "--host", host, "--port", str(port)),
                *flags(config, KNOBS, renamed=_RENAMED, negatable=True),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            probe=("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}),
            environment={**there.environment, "VLLM_NO_USAGE_STATS": "1"},
            gpus=gpus(
                config, "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"
            ),
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )


def _check_speculation(config: Config) -> None:
    method, tokens = config.get("spec_method"), config.get("spec_tokens")
    if tokens is not None and method is None:
        raise UsageError(
            f"spec_tokens={show(tokens)} has no effect without spec_method: set spec_method=ngram"
            " or leave spec_tokens out."
        )
    if method == "ngram" and tokens is None:
        raise UsageError(
            "spec_method=ngram needs spec_tokens, the number of tokens guessed a step: set"
            " spec_tokens=4, say."
        )


def _check_graphs(config: Config) -> None:
    if config.get("enforce_eager") is not True:
        return
    for name in ("max_cudagraph_capture_size", "cudagraph_mode"):
        if config.get(name) not in {None, 0, "NONE"}:
            raise UsageError(
                f"{name}={show(config[name])} has no effect while enforce_eager=true, which has no"
                " CUDA graphs: leave one of the two out."
            )


ENGINE: Engine = VllmEngine()
