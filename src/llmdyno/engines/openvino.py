"""OpenVINO GenAI on the CPU, served by our own llmdyno.embedded.server.

The engine that is always there: it needs no GPU, no container and, with the built-in models `tiny`
and `small`, no network. What the knobs' texts say was measured on a two-core AMD EPYC (AVX-512,
bfloat16) with version 2026.4.1 and the model `small`, or found by trying each combination on it.
"""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import msgspec

from llmdyno.embedded import model as models
from llmdyno.embedded.limits import BLOCK_TOKENS, batch_fault
from llmdyno.engines import Engine, Launch, Step
from llmdyno.engines._scheduling import Limit, Scheduling
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, Value, default, show
from llmdyno.machine import hardware
from llmdyno.records.server_page import MetricsPage, Series, counter, histogram

DISTRIBUTION = "openvino-genai"
_BUILT_IN_START_S = 4.0  # measured: 3.5 to 5 s on two cores
# Without dynamic_split_fuse a prompt must fit one batch whole, so a smaller batch serves nobody.
WHOLE_PROMPT_TOKENS_MIN = 512

_VERIFIED = "2026.4"  # the oldest version whose defaults were read from the library itself
_CORES = len(os.sched_getaffinity(0))
# What /proc/cpuinfo calls the instructions with which OpenVINO computes in bfloat16 when
# INFERENCE_PRECISION_HINT asks for it, beside those with which it does unasked.
_BF16_IF_ASKED = frozenset({"avx512bw"})
_SCHEDULER = "OpenVINO GenAI's SchedulerConfig; measured with 2026.4.1 on two cores"
_WEIGHTS = "NNCF's compress_weights 3.4.0; the model `small`, eight rounds on a busy machine"
_DEVICE = "OpenVINO's CPU plug-in; tried with 2026.4.1 on a CPU with bfloat16"

KNOBS = (
    Knob(
        name="max_num_batched_tokens",
        means="tokens a step",
        conflicts="with dynamic_split_fuse=false fewer than a whole prompt, or than max_num_seqs;"
        " more than half of what the KV cache holds",
        layer="engine",
        kind="int",
        does="How many tokens, of prompts and of running generations together, one step computes.",
        turn="Raise it when prompts queue up (high p99 TTFT); lower it when long prompts of others"
        " make streams stutter (high p99 ITL).",
        trades="32 → 2048 gave 1.6 to 1.8 times the throughput; 256 → 2048 only 1.05 to 1.12"
        " times, with p99 TTFT down by a third and p99 ITL three to five times as long.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, 256),),
        low=1,
        high=1 << 20,
        search=(64, 4096),
        when=(("queue", "raise"), ("prefill", "raise")),
        search_log=True,
        unit="tokens",
    ),
    Knob(
        name="dynamic_split_fuse",
        means="chunked prefill",
        conflicts="off: a max_num_batched_tokens below a whole prompt or max_num_seqs",
        layer="engine",
        kind="bool",
        does="Splits prompts into chunks that share a step with running generations (chunked"
        " prefill). Off: a step is either whole prompts or one token of each generation.",
        turn="Leave it on, unless prompts are short and TTFT matters more than even streams.",
        trades="Off, running streams wait while a prompt is computed; a prompt longer than"
        " max_num_batched_tokens is refused; and max_num_seqs begins to bind.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, True),),
        search=(True, False),
    ),
    Knob(
        name="max_num_seqs",
        means="sequences a step",
        but="it binds only with dynamic_split_fuse=false",
        conflicts="a smaller max_num_batched_tokens",
        layer="engine",
        kind="int",
        does="How many generations run at once; the others wait.",
        turn="Raise it for throughput while memory lasts; lower it to keep each stream fast.",
        trades="4 → 64 at 50 users gave 1.8 to 2.2 times the throughput and a quarter to a third"
        " of the TTFT, for four times the ITL.",
        source=f"{_SCHEDULER}. Ignored while dynamic_split_fuse is on: 2 ran 50 at once",
        defaults=((_VERIFIED, 256),),
        low=1,
        high=4096,
        search=(8, 256),
        when=(("queue", "raise"),),
        search_log=True,
        unit="sequences",
        needs=("dynamic_split_fuse", False),
    ),
    Knob(
        name="enable_prefix_caching",
        means="prefix cache",
        conflicts="use_cache_eviction",
        layer="engine",
        kind="bool",
        does="Keeps the KV cache of finished requests, so that a prompt with the same beginning"
        " skips that part of its computation.",
        turn="Turn it on when prompts share a beginning: a system prompt, a document, a chat's"
        " earlier turns. Give it room with num_kv_blocks or cache_size if the prefixes are many.",
        trades="512 shared tokens of 600: 2.7 to 4.8 times the throughput, TTFT a quarter to an"
        " eighth. It matches when a request arrives, so the first burst of a cold server gains"
        " nothing; without a shared beginning it neither gives nor costs anything measurable.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, False),),
        search=(True, False),
        when=(("repeats", True), ("prefill", True), ("queue", True)),
    ),
    Knob(
        name="cache_size",
        means="KV cache size",
        but="it counts GB",
        conflicts="num_kv_blocks, use_cache_eviction",
        layer="engine",
        kind="int",
        does="Memory for the KV cache. 0: it grows with the work, without a limit.",
        turn="Set it to bound the server's memory, or to keep many prefixes cached.",
        trades="Too small, and generations are preempted and computed again: p99 ITL jumps. It is"
        " refused at the start if the machine has less memory.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, 0),),
        low=0,
        high=4096,
        unit="GB",
    ),
    Knob(
        name="num_kv_blocks",
        conflicts="cache_size, use_cache_eviction",
        layer="engine",
        kind="int",
        does="The KV cache's size in blocks of 32 tokens. 0: as cache_size says.",
        turn="As cache_size, when you count in tokens: users x (prompt + output) / 32.",
        trades="With room for a sixth of the load, steps rose from 95 to 453 and p99 ITL to 700 ms."
        " A request larger than the whole cache is refused.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, 0),),
        low=0,
        high=1 << 24,
        unit="blocks",
    ),
    Knob(
        name="KV_CACHE_PRECISION",
        means="KV cache format",
        conflicts="f32 unless INFERENCE_PRECISION_HINT=f32; bf16 with that or with f16, or on a CPU"
        " without bfloat16; u4 unless cache_size or num_kv_blocks is set",
        layer="engine",
        kind="choice",
        does="The type in which keys and values are cached.",
        turn="u8 when memory limits how many generations run; u4 when it still does.",
        trades="Against 16 bits, u8 took 59 % of the memory. u4 took more than u8 for these heads"
        " of 64, as it is stored with scales. Throughput fell by a fifth with u8 on a small model.",
        source=_DEVICE,
        defaults=((_VERIFIED, None),),
        choices=("f32", "bf16", "f16", "u8", "u4"),
        search=("f16", "u8"),
        when=(("kv", "u8"),),
        alters_output=True,
    ),
    Knob(
        name="INFERENCE_PRECISION_HINT",
        conflicts="f32 or f16 with KV_CACHE_PRECISION=bf16",
        layer="engine",
        kind="choice",
        does="The type in which the model computes.",
        turn="f32 to rule precision out as the cause of bad output; bf16 is what a CPU that has it"
        " uses by itself.",
        trades="f32 took a third of the throughput on a CPU with bfloat16 (823 against 1210"
        " tokens/s). Without AVX-512 or AMX, bf16 is emulated or ignored.",
        source=_DEVICE,
        defaults=((_VERIFIED, None),),
        choices=("f32", "bf16", "f16"),
        search=("bf16", "f32"),
        alters_output=True,
    ),
    Knob(
        name="INFERENCE_NUM_THREADS",
        layer="engine",
        kind="int",
        does="How many threads compute. 0: OpenVINO decides, as a rule one a physical core.",
        turn="Lower it when the server or the load generator shares the machine and starves; pin"
        " it when a container's CPU limit is smaller than the machine.",
        trades="1 of 2 threads: 774 against 1210 tokens/s.",
        source=_DEVICE,
        defaults=((_VERIFIED, 0),),
        low=0,
        high=1024,
        search=(1, _CORES) if _CORES > 1 else (),
        unit="threads",
    ),
    Knob(
        name="use_cache_eviction",
        conflicts="enable_prefix_caching, num_kv_blocks, cache_size",
        layer="engine",
        kind="bool",
        does="Forgets the least attended tokens of long contexts, so that each generation holds at"
        " most 672 tokens (the library's default) in the KV cache.",
        turn="For long contexts under memory pressure, when the task bears it.",
        trades="The model no longer sees all of the prompt. What it forgets is chosen by the scores"
        " of the prompt's last token, where the library takes eight and fails on short prompts."
        " Prompts under 672 tokens gain nothing;"
        " with 4159 tokens the cache held a sixth as much at the end, at the same speed.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, False),),
        search=(True, False),
        alters_output=True,
    ),
    Knob(
        name="use_sparse_attention",
        layer="engine",
        kind="bool",
        does="Attends, while a prompt is computed, only to its start and its most recent tokens"
        " (by default 128 and 1920).",
        turn="For prompts of many thousand tokens, when TTFT matters more than what is in between.",
        trades="The middle of the prompt is not seen. Two prompts of 4159 tokens took 0.44 s for"
        " 0.50 s on the model `tiny`; under some 2100 tokens nothing changes.",
        source=_SCHEDULER,
        defaults=((_VERIFIED, False),),
        search=(True, False),
        when=(("prefill", True),),
        alters_output=True,
    ),
    Knob(
        name="weight_format",
        layer="build",
        kind="choice",
        does="Converts the model to an OpenVINO IR with weights of 16, 8 or 4 bits before it is"
        " served. Unset: GGUF and IR are served as they are; a Hugging Face checkpoint cannot be.",
        turn="int8 when memory or its bandwidth is the limit, as with few users or a large model;"
        " int4 when it still is and the answers bear it; fp16 to convert a checkpoint.",
        trades="One user: int8 took 0.49 to 0.84 of the CPU time a token, int4 0.44 to 0.63. 50"
        " users: 0.86 to 1.02 and 0.78 to 1.13; in the three quieter rounds int8 gave 0.65 to 0.85"
        " of the throughput. Weights of 59 MB became 30 and 17; the server held a quarter less"
        " memory. The tokens differ; what that costs in quality was not measured.",
        source=_WEIGHTS,
        defaults=((_VERIFIED, None),),
        choices=("fp16", "int8", "int4"),
        search=("int8", "int4"),
        when=(("decode", "int8"),),
        alters_output=True,
    ),
    Knob(
        name="int4_group_size",
        layer="build",
        kind="choice",
        does="How many weights of a row share a scale; -1: all of them.",
        turn="Lower it when int4 costs too much in quality.",
        trades="-1, 128 and 32 made weights of 16.9, 17.3 and 18.8 MB. Their speed and quality were"
        " not measured.",
        source=_WEIGHTS,
        defaults=((_VERIFIED, 128),),
        choices=(-1, 32, 64, 128, 256),
        alters_output=True,
        unit="weights",
        needs=("weight_format", "int4"),
    ),
    Knob(
        name="int4_ratio",
        layer="build",
        kind="float",
        does="The share of the layers that gets 4 bits; the most sensitive keep 8.",
        turn="Lower it, to 0.8 at first, when int4 costs too much in quality.",
        trades="The weights grow towards those of int8: 0.5 made 23.5 MB of 17.3.",
        source=_WEIGHTS,
        defaults=((_VERIFIED, 1.0),),
        low=0.0,
        high=1.0,
        alters_output=True,
        needs=("weight_format", "int4"),
    ),
    Knob(
        name="int4_symmetric",
        layer="build",
        kind="bool",
        does="Quantises around zero, with a scale alone and no zero point.",
        turn="NNCF calls it faster and less exact: measure both on your CPU.",
        trades="It made no difference in CPU time a token beside the noise (0.61 to 1.16 of that of"
        " int4 without it, eight rounds). Quality was not measured.",
        source=_WEIGHTS,
        defaults=((_VERIFIED, False),),
        alters_output=True,
        needs=("weight_format", "int4"),
    ),
)


_SYMPTOMS = (
    (r"[Aa]ddress already in use", "port-in-use"),
    (r"llmdyno\.embedded: model: ", "model-not-found"),
    (r"No module named|no module '|cannot open shared object file", "missing-library"),
    (r"cannot be installed", "missing-library"),
    (r"memory (size )?(available )?on the system|available memory", "out-of-memory"),
    (r"bad_alloc|MemoryError|[Cc]annot allocate memory", "out-of-memory"),
    (r"--config: |is no setting of|Wrong value|Unsupported property", "bad-config"),
    (r"weight_format: |InvalidGroupSizeError|with this config", "bad-config"),
    # At the start the library's check is one of the config; later the engine has died of it.
    (r"the engine failed: .*Check '.*' failed", "bad-config"),
)
# NNCF reports its use to Intel unless it believes itself in continuous integration.
_NO_TELEMETRY = {"NNCF_CI": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


METRICS = MetricsPage(
    # The embedded engine, behind its own server or Triton.
    kind="llmdyno",
    prefix="llmdyno_",
    series={
        "output_tokens": counter("llmdyno_generation_tokens"),
        "input_tokens": counter("llmdyno_prompt_tokens"),
        "requests": counter("llmdyno_requests"),
        **histogram("llmdyno_time_to_first_token_seconds", "ttft"),
        "running": Series(("llmdyno_requests_running",)),
        "waiting": Series(("llmdyno_requests_waiting",)),
        "kv_use": Series(("llmdyno_kv_cache_usage_ratio",), several="max"),
    },
)


_SPLIT_FUSE = Scheduling(
    chunks="dynamic_split_fuse",
    plans_ahead=False,
    partly=True,  # _preempt_by_recompute; _schedule_prompt_phase_dynamic_split_fuse
    sequences=Limit("", 1_000_000),  # only a step's tokens limit those who run
    idle=("max_num_seqs",),
    tokens=Limit("max_num_batched_tokens", 256),
    memory_share=Limit("", 0.9),
    cache_bytes="cache_size",
    cache_unit_bytes=2.0**30,
    cache_blocks="num_kv_blocks",
    block=Limit("", 32),  # on a CPU: kv_cache_manager.hpp
    prefix_cache="enable_prefix_caching",
    prefix_cached=False,
    graph_size=Limit("", 1_000_000),  # a compiled model: the host starts one inference a step
    weights="weight_format",
    cache="KV_CACHE_PRECISION",
    cache_unset="int8",
    formats={
        "int8": "int8",
        "int4": "int4",
        "f32": "fp32",
        "f16": "bf16",
        "bf16": "bf16",
        "u8": "int8",
        "u4": "int4",
    },
    on_cpu=True,
    threads="INFERENCE_NUM_THREADS",
    measured=True,
    source="openvino.genai, src/cpp/src/continuous_batching/scheduler.hpp",
)
# Without split-fuse a step is either whole prompts or one token of each that runs, up to so many.
SCHEDULING = msgspec.structs.replace(
    _SPLIT_FUSE,
    variant="dynamic_split_fuse",
    variants={
        "False": msgspec.structs.replace(
            _SPLIT_FUSE,
            mixes=False,
            sequences=Limit("max_num_seqs", 256),
            idle=(),
        )
    },
)


class OpenVinoEngine:
    """OpenVINO GenAI behind llmdyno.embedded.server, started by the Python that runs llmdyno."""

    name = "openvino"
    knobs: tuple[Knob, ...] = KNOBS
    scheduling = SCHEDULING
    metrics = METRICS
    install = "run: pip install 'llmdyno[cpu]'"
    image = ""
    takes_arguments = False
    scores_prompts = False
    packages = ("llmdyno[cpu]",)
    distributions = ("openvino-genai", "openvino")
    build_distributions = ("nncf", "optimum-intel", "torch")

    def version(self) -> str | None:
        """Return the installed version, read without importing the library."""
        try:
            return importlib.metadata.version(DISTRIBUTION)
        except importlib.metadata.PackageNotFoundError:
            return None

    def start_s(self, model: str) -> float | None:
        """Return how long a server takes to start with a built-in model; None: with another."""
        return _BUILT_IN_START_S if model in models.RECIPES else None

    def check(self, model: str, config: Config) -> None:
        """Refuse what the library would refuse, ignore or choke on later.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        models.check_name(model, converted="weight_format" in config)
        _check_batches(config)
        _check_cache(config)
        _check_precisions(config)

    def build(self, model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        """Return what converts the model and compresses its weights, if weight_format asks."""
        weight_format = config.get("weight_format")
        if weight_format is None:
            return ()
        convert = Step(
            what="convert the model to an OpenVINO IR",
            argv=(
                *(sys.executable, "-m", "llmdyno.embedded.convert"),
                *("--model", model, "--folder", str(folder)),
            ),
            environment=_NO_TELEMETRY,
            symptoms=_SYMPTOMS,
        )
        if weight_format == "fp16":
            return (convert,)
        mode, settings = "int8_asym", []
        if weight_format == "int4":
            mode = "int4_sym" if _value(config, "int4_symmetric") else "int4_asym"
            settings += ["--group-size", show(_value(config, "int4_group_size"))]
            settings += ["--ratio", show(_value(config, "int4_ratio"))]
        compress = Step(
            what=f"compress the weights to {weight_format} with NNCF",
            argv=(
                *(sys.executable, "-m", "llmdyno.embedded.compress"),
                *("--folder", str(folder), "--mode", mode, *settings),
            ),
            environment=_NO_TELEMETRY,
            symptoms=_SYMPTOMS,
        )
        return convert, compress

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return what starts the embedded server."""
        arguments = ["--model", model, "--host", host, "--port", str(port)]
        if artifact is not None:
            arguments += ["--artifact", str(artifact)]
        built = {knob.name for knob in KNOBS if knob.layer == "build"}
        config = {name: value for name, value in config.items() if name not in built}
        settings = json.dumps(config, sort_keys=True)
        return Launch(
            argv=(
                sys.executable,
                *("-m", "llmdyno.embedded.server"),
                *arguments,
                *("--config", settings),
            ),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            health_path="/health",
            # Not a chat: a model without a chat template can serve completions all the same.
            probe=("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}),
            symptoms=_SYMPTOMS,
        )


def _check_batches(config: Config) -> None:
    """Refuse batches that cannot hold what dynamic_split_fuse=false puts into them whole."""
    if _value(config, "dynamic_split_fuse"):
        return
    batch, sequences = (_value(config, name) for name in ("max_num_batched_tokens", "max_num_seqs"))
    assert isinstance(batch, int)
    assert isinstance(sequences, int)
    if batch < WHOLE_PROMPT_TOKENS_MIN:
        raise UsageError(
            f"max_num_batched_tokens={batch} is too small with dynamic_split_fuse=false, which"
            " does not split prompts: set it to your longest prompt and its output, at least"
            f" {WHOLE_PROMPT_TOKENS_MIN}."
        )
    # The scheduler ends the engine at its first step: "Max num batched tokens must be greater or
    # equal to max num sequences" (_schedule_prompt_phase_vllm in scheduler.hpp).
    if sequences > batch:
        raise UsageError(
            f"max_num_seqs={sequences} is more than max_num_batched_tokens={batch}, which"
            " dynamic_split_fuse=false refuses: set max_num_seqs to at most"
            f" {batch}, or max_num_batched_tokens to at least {sequences}."
        )
    blocks = config.get("num_kv_blocks")
    if isinstance(blocks, int) and blocks and (fault := batch_fault(batch, blocks * BLOCK_TOKENS)):
        raise UsageError(fault)


def _check_cache(config: Config) -> None:
    """Refuse limits of the KV cache that exclude each other, and what eviction excludes."""
    if config.get("cache_size") and config.get("num_kv_blocks"):
        raise UsageError(
            f"cache_size={show(config['cache_size'])} has no effect beside"
            f" num_kv_blocks={show(config['num_kv_blocks'])}: set one of the two."
        )
    if not config.get("use_cache_eviction"):
        return
    # Eviction frees a different block in each layer. The prefix cache frees a block in all layers
    # at once, or ends the engine ("blocks across layers must be freed simultaneously",
    # is_all_free in block_manager.hpp).
    if config.get("enable_prefix_caching"):
        raise UsageError(
            "use_cache_eviction=true and enable_prefix_caching=true exclude each other: the prefix"
            " cache needs blocks that eviction has taken apart; turn one of the two off."
        )
    # A full cache preempts a generation, whose prompt is then computed again. Eviction keeps the
    # scores of the first time (m_seq_group_id_to_cache_eviction_algo_map in pipeline_impl.cpp is
    # never cleared), and its checks new_size_in_tokens >= old_size_in_tokens and of num_snapkv
    # (cache_eviction.cpp) end the engine. Without a limit the cache grows, and nobody is preempted.
    for name in ("num_kv_blocks", "cache_size"):
        if config.get(name):
            raise UsageError(
                f"use_cache_eviction=true does not bear {name}={show(config[name])}: a KV cache"
                " that is full preempts generations, which eviction cannot compute again;"
                f" leave {name} out, or turn use_cache_eviction off."
            )


def _check_precisions(config: Config) -> None:
    """Refuse a type of the KV cache that the type of the computation does not read."""
    compute, cache = config.get("INFERENCE_PRECISION_HINT"), config.get("KV_CACHE_PRECISION")
    if cache == "f32" and compute != "f32":
        raise UsageError(
            "KV_CACHE_PRECISION=f32 needs INFERENCE_PRECISION_HINT=f32: a CPU that computes in"
            " bfloat16 refuses it."
        )
    # A cache without a limit grows, and while it grows the library copies twice the bytes that a
    # cache of 4 bits has, beyond its end (key_stride in kv_cache_manager.hpp), and crashes.
    if cache == "u4" and not (config.get("cache_size") or config.get("num_kv_blocks")):
        raise UsageError(
            "KV_CACHE_PRECISION=u4 needs a KV cache of a fixed size, because the library fails when"
            " it lets one of 4 bits grow: set cache_size or num_kv_blocks, or take u8."
        )
    if cache != "bf16":
        return
    if compute in {"f32", "f16"}:
        raise UsageError(
            f"KV_CACHE_PRECISION=bf16 is refused with INFERENCE_PRECISION_HINT={compute}: set it to"
            " f16 or f32, or leave one of the two out."
        )
    # The library falls back to f32 on such a CPU, whatever the hint, and its attention then
    # refuses the cache: "expect kvcache type f32, current: bf16".
    flags = hardware.cpu_flags()
    wanted = hardware.BF16_FLAGS | (_BF16_IF_ASKED if compute == "bf16" else frozenset())
    if flags and not flags & wanted:
        raise UsageError(
            "KV_CACHE_PRECISION=bf16 needs a CPU that computes in bfloat16, and this one does not:"
            " set it to f16 or u8, or leave it out."
        )


def _value(config: Config, name: str) -> Value | None:
    """Return a knob's value, or its default."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    return config.get(name, default(knob, None))


ENGINE: Engine = OpenVinoEngine()
