"""What does not go together in a TensorRT-LLM config, refused before a build of an hour starts.

Each rule is a function of (config, version) that raises UsageError; those of the PyTorch road stand
in pytorch_rules.py. `doubts` are what works but is seldom meant.
"""

from llmdyno.engines._trtllm.build_knobs import ENGINES_END
from llmdyno.engines._trtllm.pytorch_rules import PYTORCH_RULES
from llmdyno.engines._trtllm.table import BY_NAME, KNOBS, Rule, on_engine_road, value
from llmdyno.engines._trtllm.values import check_successors, check_values
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Value, at_least, check_version, show

FRACTION_MAX = 0.95
PYTORCH_SINCE = "1.0"
OLDEST = "0.9.0"
WEIGHT_ONLY = ("int8_weight_only", "int4_weight_only")
_FP8 = ("fp8",)
_AWQ = ("int4_awq", "w4a8_awq")


def check(config: Config, version: str) -> None:
    """Refuse what cannot work.

    Raises:
        UsageError: one sentence that names the knobs and what would be right.
    """
    _road(config, version)
    known = [knob for knob in KNOBS if knob.name not in {"version", "backend"}]
    check_successors(config, version)
    check_version(config, known, version)
    check_values(config, version)
    rules = _ENGINE_RULES if on_engine_road(config) else PYTORCH_RULES
    for rule in (*_SHARED_RULES, *rules):
        rule(config, version)


def doubts(config: Config, version: str) -> tuple[str, ...]:
    """Return what works, but is seldom meant; a sentence each."""
    found = []
    batch = value(config, "max_batch_size", version)
    tokens = value(config, "max_num_tokens", version)
    if isinstance(batch, int) and isinstance(tokens, int) and tokens < batch:
        found.append(
            f"max_num_tokens={tokens} is less than max_batch_size={batch}: no step will ever hold"
            " so many sequences."
        )
    if not on_engine_road(config) and value(config, "cuda_graph", version):
        name = "cuda_graph_max_batch_size"
        graphs = value(config, name, version)
        if "cuda_graph_batch_sizes" in config:
            name = "cuda_graph_batch_sizes"
            graphs = max(map(int, str(config[name]).split(",")))
        if isinstance(batch, int) and isinstance(graphs, int) and graphs < batch:
            found.append(
                f"{name} reaches {graphs}, less than max_batch_size={batch}: steps of more than"
                f" {graphs} sequences run without CUDA graphs."
            )
    if "MAX_UTILIZATION" in str(_policy(config)).upper():
        found.append(
            f"{_policy_name(config)}={_policy(config)} pauses requests when the KV cache runs"
            " out: watch ITL p99, not only tokens/s."
        )
    window = config.get("max_attention_window_size")
    longest = _longest_built(config, version)
    if isinstance(window, str) and window.isdecimal() and longest and int(window) < longest:
        found.append(
            f"max_attention_window_size={window} is less than the {longest} tokens that prompt and"
            " answer may have together: the beginning of long ones is silently forgotten."
        )
    if config.get("quantization") in _FP8 and config.get("gemm_plugin", "disable") != "disable":
        found.append(
            f"gemm_plugin={show(config['gemm_plugin'])} with quantization=fp8 is often slower than"
            " TensorRT's own kernels, but for batches below 4."
        )
    return tuple(found)


def _road(config: Config, version: str) -> None:
    if not at_least(version, OLDEST):
        raise UsageError(
            f"version={version}: the oldest release whose settings are known here is {OLDEST}; set"
            " that or a later one."
        )
    if on_engine_road(config) and at_least(version, ENGINES_END):
        raise UsageError(
            f"backend=tensorrt: TensorRT-LLM {version} builds no engines any more, 1.3.0rc20 was"
            " the last; set version=1.2.1 or earlier, or backend=pytorch."
        )
    if not on_engine_road(config) and not at_least(version, PYTORCH_SINCE):
        raise UsageError(
            f"version={version}: the PyTorch road came with {PYTORCH_SINCE}; set backend=tensorrt,"
            " or version=1.0.0 or later."
        )


def _tokens_cover_sequences(config: Config, version: str) -> None:
    del version
    batch, tokens = config.get("max_batch_size"), config.get("max_num_tokens")
    if isinstance(batch, int) and isinstance(tokens, int) and tokens < batch:
        raise UsageError(
            f"max_num_tokens={tokens} is less than max_batch_size={batch}: each sequence needs a"
            f" token a step, so set max_num_tokens to at least {batch}."
        )


def _memory_is_left(config: Config, version: str) -> None:
    name = (
        "kv_cache_free_gpu_mem_fraction" if on_engine_road(config) else "free_gpu_memory_fraction"
    )
    fraction = value(config, name, version)
    if isinstance(fraction, int | float) and fraction > FRACTION_MAX:
        raise UsageError(
            f"{name}={show(fraction)} leaves too little of the free memory for what grows under"
            f" load: set at most {FRACTION_MAX}, the most that NVIDIA advises."
        )


def _input_fits_sequence(config: Config, version: str) -> None:
    del version
    longest, prompt = config.get("max_seq_len"), config.get("max_input_len")
    if isinstance(longest, int) and isinstance(prompt, int) and prompt >= longest:
        raise UsageError(
            f"max_input_len={prompt} leaves no room for an answer within max_seq_len={longest}:"
            " the latter is prompt and answer together."
        )


def _window_covers_sequence(config: Config, version: str) -> None:
    del version
    name = "max_attention_window_size" if on_engine_road(config) else "max_attention_window"
    longest = config.get("max_seq_len")
    if longest is None and {"max_input_len", "max_output_len"} <= config.keys():
        longest = _number(config, "max_input_len") + _number(config, "max_output_len")
    if name not in config or not isinstance(longest, int) or "sink_token_length" in config:
        return
    windows = [int(part) for part in str(config[name]).split(",")]
    # A window for each layer is a model's own pattern; one for all is a slip.
    if len(windows) == 1 and windows[0] < longest:
        raise UsageError(
            f"{name}={config[name]} is less than the {longest} tokens of a sequence: its beginning"
            f" would be silently forgotten; leave it out or set at least {longest}."
        )


def _longest_built(config: Config, version: str) -> int | None:
    """Return the tokens of a sequence where the two lengths are built in, before 0.12."""
    prompt = value(config, "max_input_len", version)
    answer = value(config, "max_output_len", version)
    if at_least(version, BY_NAME["max_output_len"].until) or "max_seq_len" in config:
        return None
    assert isinstance(prompt, int)
    assert isinstance(answer, int)
    return prompt + answer


def _number(config: Config, name: str) -> int:
    number = config[name]
    assert isinstance(number, int)
    return number


def _paged_context(config: Config, version: str) -> None:
    if value(config, "use_paged_context_fmha", version):
        return
    for name in ("enable_kv_cache_reuse", "enable_chunked_context"):
        if config.get(name):
            raise UsageError(
                f"{name}=true needs an engine built with use_paged_context_fmha=true: set it, or"
                f" leave {name} out."
            )


def _paged_context_needs_its_parts(config: Config, version: str) -> None:
    if not config.get("use_paged_context_fmha"):
        return
    for name in ("paged_kv_cache", "context_fmha"):
        if not value(config, name, version):
            raise UsageError(f"use_paged_context_fmha=true needs {name}=true.")


def _in_flight_batching(config: Config, version: str) -> None:
    strategy = value(config, "batching_strategy", version)
    for name, off in (
        ("paged_kv_cache", False),
        ("remove_input_padding", False),
        ("gpt_attention_plugin", "disable"),
    ):
        if strategy != "V1" and value(config, name, version) == off:
            raise UsageError(
                f"{name}={show(off)} excludes in-flight batching: leave it on, or set"
                " batching_strategy=V1."
            )


def _plugins(config: Config, version: str) -> None:
    del version
    quantization = config.get("quantization")
    if config.get("gemm_plugin") in _FP8 and quantization not in _FP8:
        raise UsageError(
            f"gemm_plugin=fp8 needs quantization=fp8, not {show(quantization)}: set gemm_plugin to"
            " auto for a 16-bit model."
        )
    if config.get("gemm_swiglu_plugin") in _FP8 and quantization not in _FP8:
        raise UsageError("gemm_swiglu_plugin=fp8 needs quantization=fp8: set it, or leave it out.")
    if config.get("use_fp8_context_fmha") and quantization not in {"fp8", "nvfp4"}:
        raise UsageError("use_fp8_context_fmha=true needs quantization=fp8: set it or leave it.")
    dtype, plugin = config.get("dtype"), config.get("gpt_attention_plugin")
    sixteen = {"float16", "bfloat16", "float32"}
    if dtype in sixteen and plugin in sixteen and dtype != plugin:
        raise UsageError(
            f"gpt_attention_plugin={show(plugin)} and dtype={show(dtype)} differ: set both alike,"
            " or the plugin to auto."
        )


def _quantization(config: Config, version: str) -> None:
    quantization = config.get("quantization")
    if "awq_block_size" in config and quantization not in _AWQ:
        raise UsageError(
            f"awq_block_size={config['awq_block_size']} has no effect with"
            f" quantization={show(quantization)}: set quantization=int4_awq or leave it out."
        )
    if quantization == "nvfp4" and not at_least(version, "0.17"):
        raise UsageError(f"quantization=nvfp4 came with 0.17, and version is {version}.")
    if quantization in WEIGHT_ONLY and config.get("kv_cache_quantization") == "fp8":
        raise UsageError(
            f"kv_cache_quantization=fp8 does not go with quantization={quantization}: set it to"
            " int8, or quantization=fp8."
        )


def _parallel_fusion(config: Config, version: str) -> None:
    if config.get("reduce_fusion") and value(config, "tensor_parallel_size", version) == 1:
        raise UsageError(
            "reduce_fusion=true fuses what GPUs add up, and tensor_parallel_size is 1: leave it"
            " out."
        )


def _template_pairs(config: Config, version: str) -> None:
    if config.get("cuda_graph_cache_size") and not value(config, "cuda_graph_mode", version):
        raise UsageError("cuda_graph_cache_size has no effect without cuda_graph_mode=true.")
    if "medusa_choices" in config and config.get("decoding_mode") != "medusa":
        raise UsageError("medusa_choices has no effect without decoding_mode=medusa.")
    if "sink_token_length" in config and "max_attention_window_size" not in config:
        raise UsageError(
            "sink_token_length has no effect without max_attention_window_size: set both or none."
        )


def _policy_name(config: Config) -> str:
    return "batch_scheduler_policy" if on_engine_road(config) else "capacity_scheduler_policy"


def _policy(config: Config) -> Value | None:
    return config.get(_policy_name(config))


_SHARED_RULES: tuple[Rule, ...] = (
    _tokens_cover_sequences,
    _memory_is_left,
    _input_fits_sequence,
    _window_covers_sequence,
)
_ENGINE_RULES: tuple[Rule, ...] = (
    _paged_context,
    _paged_context_needs_its_parts,
    _in_flight_batching,
    _plugins,
    _quantization,
    _parallel_fusion,
    _template_pairs,
)
