"""SGLang: its OpenAI server, started by its own command line.

Run by us: no. Flags and defaults are those of the package sglang 0.5.23 (srt/arg_groups/fields/),
those older than it compared with 0.5.15 and 0.5.9; tests/engines/arguments/ holds the tables.
Where SGLang decides by the GPU's memory (srt/arg_groups/memory_hook.py), the default stands here
as unset.
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

_PROGRAM = ("sglang", "sglang")  # the package, and its program
START_TIMEOUT_S = 900.0  # weights are read, graphs captured, kernels compiled
_FIELDS = "SGLang 0.5.23 source, srt/arg_groups/fields/"

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="mem_fraction_static",
        means="KV cache size",
        but="it is a share of what was free at the start, weights included",
        # model_runner of 0.5: free after load - free before load x (1 - share).
        memory_share=MemoryShare(not_of=("others",), holds=("weights",)),
        layer="engine",
        kind="float",
        defaults=(("0.5.9", None),),
        low=0.05,
        high=0.99,
        search=(0.7, 0.93),
        when=(("kv", "raise"),),
        does=(
            "The share of the GPU's memory for weights and KV cache together; what is left is for"
            " activations and CUDA graphs. Unset: what an estimate of those leaves."
        ),
        turn=(
            "Raise it while the log shows free memory and requests wait or are retracted; lower it"
            " when a prefill or the graphs run out of memory."
        ),
        trades="A larger cache holds more requests; too large, and a burst of prefills fails.",
        source=_FIELDS + "schedule.py and arg_groups/memory_hook.py",
    ),
    Knob(
        name="max_running_requests",
        means="sequences a step",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", None),),
        low=1,
        high=16384,
        search=(32, 2048),
        when=(("queue", "raise"), ("kv", "lower")),
        search_log=True,
        unit="requests",
        does="The most requests that run at once. Unset: what the KV cache's size suggests.",
        turn="Raise it above the number of users; lower it when decode must stay quick.",
        trades="More requests: more tokens/s, slower decode for each, more retractions.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="max_queued_requests",
        means="queue limit",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", None),),
        low=1,
        unit="requests",
        does="The most requests that wait; further ones are refused. Unset: no limit.",
        turn="Set it when a late answer is worth less than a quick refusal.",
        trades="Refused requests against long queues.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="chunked_prefill_size",
        means="tokens a step",
        but="it counts the tokens of prompts only",
        conflicts="a page_size that does not divide it; -1 with enable_mixed_chunk=true",
        layer="engine",
        kind="choice",
        choices=(-1, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        defaults=(("0.5.9", None),),
        search=(1024, 2048, 4096, 8192, 16384, 32768),
        unit="tokens",
        does=(
            "Tokens of a prompt that one step computes; -1 never splits. Unset: 2048 below 20 GiB"
            " of GPU memory, 4096 below 60, 8192 below 160, 16384 above. SGLang takes any multiple"
            " of page_size; powers of two are offered here."
        ),
        turn="Raise it for TTFT of long prompts; lower it when a prefill runs out of memory.",
        trades="Large chunks hold up those who decode, and take memory from the KV cache.",
        source=_FIELDS + "schedule.py and arg_groups/memory_hook.py",
    ),
    Knob(
        name="max_prefill_tokens",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 16384),),
        low=1,
        unit="tokens",
        does="The most tokens of prompts in one batch, or the model's context if that is longer.",
        turn="Raise it with chunked_prefill_size when many prompts come at once.",
        trades="Larger prefill batches make those who decode wait longer.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="enable_mixed_chunk",
        conflicts="on: chunked_prefill_size=-1",
        layer="engine",
        kind="bool",
        defaults=(("0.5.9", False),),
        search=(True, False),
        when=(("prefill", True),),
        does="Computes a chunk of a prompt and a step of decoding in the same batch.",
        turn="Try it where prompts are long and ITL must stay even.",
        trades="Decode no longer stops for prefills, but has no CUDA graph in such steps.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="schedule_policy",
        means="scheduling order",
        conflicts="lpm, dfs-weight and shortest-prefill-first with disable_radix_cache=true",
        layer="engine",
        kind="choice",
        choices=(
            "fcfs",
            "lpm",
            "dfs-weight",
            "lof",
            "random",
            "priority",
            "routing-key",
            "hrrn",
            "shortest-prefill-first",
        ),
        defaults=(("0.5.9", "fcfs"),),
        search=("fcfs", "lpm"),
        when=(("prefill", "lpm"),),
        does="Who comes first: by arrival (fcfs), by the longest cached prefix (lpm), others.",
        turn="lpm where many prompts share prefixes; the last two are new in 0.5.23.",
        trades="lpm may starve prompts without a cached prefix, and costs CPU in long queues.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="schedule_conservativeness",
        layer="engine",
        kind="float",
        defaults=(("0.5.9", 1.0),),
        low=0.0,
        high=10.0,
        search=(0.3, 1.3),
        when=(("queue", "lower"), ("kv", "raise")),
        does=(
            "How much room is kept for the answers of running requests before another one is let"
            " in; below 1 counts on their ending early."
        ),
        turn="Lower it while token usage stays under 0.9 and requests wait; raise it when many are"
        " retracted.",
        trades="Too low: requests are thrown back and computed again; too high: an idle cache.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="page_size",
        means="KV cache block size",
        conflicts="a chunked_prefill_size that is no multiple of it",
        layer="engine",
        kind="choice",
        choices=(1, 16, 32, 64, 128),
        defaults=(("0.5.9", None),),
        unit="tokens",
        does="Tokens in a page of the KV cache. Unset: 1, or what the attention backend needs.",
        turn="Seldom; some backends are quicker with 16 to 64.",
        trades="Large pages match prefixes more coarsely.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="disable_radix_cache",
        means="prefix cache",
        but="true and false change places",
        conflicts="on: a schedule_policy that orders by prefixes",
        layer="engine",
        kind="bool",
        defaults=(("0.5.9", False),),
        search=(True, False),
        when=(("prefill", False), ("repeats", False)),
        does="Turns the prefix cache off.",
        turn="Only where no two prompts share a beginning.",
        trades="Saves a little CPU, and computes every prompt whole.",
        source=_FIELDS + "memory.py",
    ),
    Knob(
        name="radix_eviction_policy",
        layer="engine",
        kind="choice",
        choices=("lru", "lfu", "slru", "priority"),
        defaults=(("0.5.9", "lru"),),
        needs=("disable_radix_cache", False),
        does="Which cached prefixes go first: the least recently or least frequently used, others.",
        turn="lfu or slru where a system prompt must outlive a burst of single questions.",
        trades="The bookkeeping costs some CPU.",
        source=_FIELDS + "memory.py; 0.5.9 has lru and lfu",
    ),
    Knob(
        name="kv_cache_dtype",
        means="KV cache format",
        layer="engine",
        kind="choice",
        choices=("auto", "fp8_e4m3", "fp8_e5m2", "bf16", "bfloat16"),
        defaults=(("0.5.9", "auto"),),
        search=("auto", "fp8_e4m3"),
        when=(("kv", "fp8_e4m3"), ("decode", "fp8_e4m3")),
        alters_output=True,
        does="The number format of the KV cache; auto: the model's own.",
        turn="fp8_e4m3 when the cache is the limit or decode is bound by reading it.",
        trades="fp8 halves the cache and its reads, and costs some accuracy.",
        source=_FIELDS + "model.py",
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
            "w8a8_int8",
            "w8a8_fp8",
            "compressed-tensors",
            "modelopt",
        ),
        defaults=(("0.5.9", None),),
        search=("fp8",),
        when=(("decode", "fp8"),),
        alters_output=True,
        does="How weights are quantised; fp8 quantises 16-bit weights while loading.",
        turn="fp8 on GPUs that compute in it; most others need weights made so.",
        trades="Half the bytes to read a step, at some accuracy.",
        source=_FIELDS + "model.py and arg_groups/choices.py",
    ),
    Knob(
        name="dtype",
        conflicts="float32 with any quantization, bfloat16 with awq and gptq",
        layer="engine",
        kind="choice",
        choices=("auto", "half", "float16", "bfloat16", "float", "float32"),
        defaults=(("0.5.9", "auto"),),
        alters_output=True,
        does="The number format of weights and activations; auto: the model's own, 16-bit for 32.",
        turn="bfloat16 where the GPU has it.",
        trades="float32 costs twice the memory and much of the speed.",
        source=_FIELDS + "model.py",
    ),
    Knob(
        name="context_length",
        means="longest sequence",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", None),),
        low=1,
        unit="tokens",
        does="The longest prompt and answer together. Unset: the model's own limit.",
        turn="Lower it to what you need when memory is short.",
        trades="Longer requests are refused.",
        source=_FIELDS + "model.py",
    ),
    Knob(
        name="attention_backend",
        means="attention kernel",
        layer="engine",
        kind="choice",
        choices=("fa3", "fa4", "flashinfer", "triton", "trtllm_mha", "torch_native"),
        defaults=(("0.5.9", None),),
        search=("flashinfer", "triton"),
        alters_output=True,
        does="Whose attention kernels compute. Unset: the best known for the GPU and the model.",
        turn="Compare them on your lengths; fa3 is for Hopper, trtllm_mha and fa4 for Blackwell.",
        trades="Each is quicker at some lengths; not all take every page_size and KV format.",
        source=_FIELDS + "exec_.py and arg_groups/choices.py",
    ),
    Knob(
        name="cuda_graph_max_bs_decode",
        means="largest CUDA graph",
        conflicts="cuda_graph_backend_decode=disabled",
        layer="engine",
        kind="int",
        defaults=(("0.5.15", None),),
        low=1,
        high=8192,
        search=(64, 1024),
        when=(("host", "raise"),),
        search_log=True,
        unit="requests",
        does=(
            "The largest batch of decoding with a CUDA graph. Unset: 8 to 512, by the GPU's memory"
            " and whether tp_size is 4 or more. Older versions than 0.5.15 call it"
            " cuda_graph_max_bs."
        ),
        turn="Raise it above the number of users, so that no step falls off the graphs.",
        trades="Each graph takes memory and makes the start longer.",
        source=_FIELDS + "exec_.py and arg_groups/memory_hook.py",
    ),
    Knob(
        name="cuda_graph_backend_decode",
        means="eager execution",
        conflicts="disabled with cuda_graph_max_bs_decode",
        layer="engine",
        kind="choice",
        choices=("full", "breakable", "disabled"),
        defaults=(("0.5.15", None),),
        does="How decoding is captured in CUDA graphs; disabled: not at all. Unset: full.",
        turn="disabled only to find a fault, or to start quickly.",
        trades="Without graphs every step pays for launching its kernels one by one.",
        source=_FIELDS + "exec_.py",
    ),
    Knob(
        name="disable_overlap_schedule",
        means="overlapped scheduling",
        but="true and false change places",
        layer="engine",
        kind="bool",
        defaults=(("0.5.9", False),),
        does="Stops planning the next step while the GPU computes this one.",
        turn="Only to find a fault.",
        trades="The GPU waits for the CPU between steps.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="num_continuous_decode_steps",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 1),),
        low=1,
        high=64,
        search=(1, 8),
        when=(("host", "raise"),),
        does="Steps of decoding before the scheduler looks at the queue again.",
        turn="Raise it when the scheduler's CPU is the limit and TTFT is not.",
        trades="New requests wait longer: tokens/s against TTFT.",
        source=_FIELDS + "schedule.py",
    ),
    Knob(
        name="stream_interval",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 1),),
        low=1,
        high=1024,
        unit="tokens",
        does="Tokens in a streamed chunk.",
        turn="Raise it when the CPU of tokeniser and server is the limit.",
        trades="Text comes in bursts: fewer chunks, longer gaps.",
        source=_FIELDS + "serving.py",
    ),
    Knob(
        name="tokenizer_worker_num",
        means="API server processes",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 1),),
        low=1,
        high=64,
        search=(1, 8),
        when=(("host", "raise"),),
        unit="processes",
        does="Processes that tokenise prompts and speak HTTP.",
        turn="Raise it when that process is at 100 % of a core.",
        trades="Each takes a core and some memory.",
        source=_FIELDS + "serving.py",
    ),
    Knob(
        name="tp_size",
        means="tensor parallelism",
        conflicts="a number that does not divide the model's attention heads",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer.",
        turn="When the model does not fit one GPU, or one request must be quicker.",
        trades="Each layer waits for the links between GPUs.",
        source=_FIELDS + "parallel.py",
    ),
    Knob(
        name="dp_size",
        means="data parallelism",
        layer="engine",
        kind="int",
        defaults=(("0.5.9", 1),),
        low=1,
        high=64,
        unit="copies",
        does="Copies of the whole model, each on tp_size GPUs.",
        turn="When the model fits and more tokens/s are wanted than one copy makes.",
        trades="Each copy has a KV cache of its own: prefixes are cached in several places.",
        source=_FIELDS + "parallel.py",
    ),
    Knob(
        name="load_format",
        layer="engine",
        kind="choice",
        choices=("auto", "safetensors", "pt", "dummy", "gguf", "bitsandbytes", "runai_streamer"),
        defaults=(("0.5.9", "auto"),),
        does="How weights are read; dummy makes random ones, for measuring without a download.",
        turn="dummy only to measure speed.",
        trades="With dummy the tokens mean nothing.",
        source=_FIELDS + "model.py and arg_groups/choices.py",
    ),
)

SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Not enough memory\. Please try to increase --mem-fraction-static", "out-of-memory"),
    (r"Loaded weights leave no GPU memory for the KV cache", "out-of-memory"),
    (r"Capture cuda graph failed: .*out of memory", "out-of-memory"),
    (r"No accelerator \(.*\) .*is available", "gpu-unavailable"),
    (r"must be divisible by page_size", "bad-config"),
)


METRICS = MetricsPage(
    kind="sglang",
    prefix="sglang:",
    series={
        "output_tokens": counter("sglang:generation_tokens"),
        "input_tokens": counter("sglang:prompt_tokens"),
        "requests": counter("sglang:num_requests"),
        **histogram("sglang:time_to_first_token_seconds", "ttft"),
        **histogram("sglang:queue_time_seconds", "queue"),
        "running": Series(("sglang:num_running_reqs",)),
        "waiting": Series(("sglang:num_queue_reqs",)),
        "kv_use": Series(("sglang:token_usage",), several="max"),
        "prefix_hits": counter("sglang:cached_tokens"),
        "prefix_queries": counter("sglang:prompt_tokens"),
        "preemptions": counter("sglang:num_retracted_requests"),
        "accept_length": Series(("sglang:spec_accept_length",), several="max"),
        "accept_rate": Series(("sglang:spec_accept_rate",), several="max"),
    },
)


SCHEDULING = Scheduling(
    mixes=False,  # prompts go first, in steps of their own: get_next_batch_to_run
    mixes_knob="enable_mixed_chunk",
    admission="estimate",
    sequences=Limit("max_running_requests", 2048),
    tokens=Limit("chunked_prefill_size", 16384, ((20, 2048), (60, 4096), (160, 8192))),
    whole_tokens=Limit("max_prefill_tokens", 16384),
    memory_share=Limit("mem_fraction_static", 0.88),
    longest=Limit("context_length", 1),
    block=Limit("page_size", 1),
    prefix_cache_off="disable_radix_cache",
    # arg_groups/memory_hook.py, which asks for tp_size < 4. Decodes above it have no graph.
    graph_size=Limit(
        "cuda_graph_max_bs_decode",
        512,
        below=((20, 8), (35, 48), (60, 32), (160, 256)),
        shared=((20, 8), (60, 160)),
        shared_from=4,
    ),
    graph_mode="cuda_graph_backend_decode",
    graph_none=("disabled",),
    graph_pieces=("breakable",),
    # Prompts are graphs between attentions, "breakable", up to a step's tokens and 8192.
    pieces_size=Limit("", 8192),
    weights="quantization",
    cache="kv_cache_dtype",
    cache_shipped=("modelopt", "modelopt_fp8", "modelopt_fp4"),  # model_runner.py
    formats={"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "awq": "int4", "gptq": "int4"},
    servers="tokenizer_worker_num",  # each speaks HTTP, too
    gpus="tp_size",
    copies="dp_size",
    # Not gguf and bitsandbytes: they read weights in other number formats.
    same_pace={
        "dtype": SIXTEEN_BITS,
        "load_format": ("safetensors", "pt", "dummy", "runai_streamer"),
    },
    # One process plans, starts and takes in every step; measured: evidence/engines-h200.
    paces={"host_step_s": 1.7, "host_layer_s": 1.7, "host_kernels_s": 1.7},
    measured=True,
    measured_on=("H200 SXM",),
    source="SGLang 0.5.23 source, python/sglang/srt/managers/scheduler.py and schedule_policy.py",
)


class SglangEngine(Engine):
    """`python -m sglang.launch_server` of the Python that has it."""

    name = "sglang"
    knobs = KNOBS
    scheduling = SCHEDULING
    metrics = METRICS
    install = "run: pip install sglang"
    python_variable = variable("sglang")
    image = "lmsysorg/sglang:v0.5.23"
    flag_aliases: Mapping[str, str] = {  # sglang/srt/server_args.py
        "--tp": "tp_size",
        "--tensor-parallel-size": "tp_size",
        "--dp": "dp_size",
        "--data-parallel-size": "dp_size",
    }
    packages = ("sglang",)
    distributions = ("sglang",)

    def version(self) -> str | None:
        """Return the installed version; "unknown" for a copy without its metadata.

        Raises:
            HomeError: its environment variable names no Python that has it, or that is not told.
        """
        found = home(self.name, *_PROGRAM, as_module=True)
        return found.version if found else None

    def check(self, model: str, config: Config) -> None:
        """Refuse what SGLang would refuse after half a minute, or take and ignore.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        check_model(model, config, "tp_size")
        check_precision(config)
        chunk, page = config.get("chunked_prefill_size"), config.get("page_size")
        if config.get("enable_mixed_chunk") is True and chunk == -1:
            raise UsageError(
                "enable_mixed_chunk=true has no effect while chunked_prefill_size=-1: give"
                " chunked_prefill_size a number of tokens or leave enable_mixed_chunk out."
            )
        if isinstance(chunk, int) and isinstance(page, int) and chunk > 0 and chunk % page:
            raise UsageError(
                f"chunked_prefill_size={chunk} is no multiple of page_size={page}: a chunk is whole"
                " pages."
            )
        policy = config.get("schedule_policy")
        if (
            policy in {"lpm", "dfs-weight", "shortest-prefill-first"}
            and config.get("disable_radix_cache") is True
        ):
            raise UsageError(
                f"schedule_policy={show(policy)} orders by cached prefixes, of which"
                " disable_radix_cache=true leaves none: set schedule_policy=fcfs or leave"
                " disable_radix_cache out."
            )
        largest = config.get("cuda_graph_max_bs_decode")
        if largest is not None and config.get("cuda_graph_backend_decode") == "disabled":
            raise UsageError(
                f"cuda_graph_max_bs_decode={show(largest)} has no effect while"
                " cuda_graph_backend_decode=disabled: leave one of the two out."
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
        """Return SGLang's server with the config as flags; its metrics are off unless asked for."""
        there = required(self.name, *_PROGRAM, as_module=True)
        return Launch(
            argv=(
                *(there.python, "-m", "sglang.launch_server"),
                *("--model-path", model, "--host", host, "--port", str(port), "--enable-metrics"),
                *flags(config, KNOBS),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            probe=("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}),
            environment=there.environment,
            gpus=gpus(config, "tp_size", "dp_size"),
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )


ENGINE: Engine = SglangEngine()
