"""What a built TensorRT-LLM engine is run with: the keys of the Triton backend's template.

Their names are those of inflight_batcher_llm/tensorrt_llm/config.pbtxt, letter by letter,
so that the Triton front fills the template by name; `trtllm-serve` gets those that it knows. Read
from the templates of 0.9, 0.10, 0.12 and 1.0 and the backend's model_config.md. Not run by us.
"""

from collections.abc import Mapping
from functools import partial

from llmdyno.engines._trtllm.build_knobs import ENGINES_END
from llmdyno.knobs import Knob, MemoryShare

_run = partial(
    Knob,
    layer="engine",
    source="tensorrtllm_backend 0.9 to 1.0: config.pbtxt templates and docs/model_config.md",
    until=ENGINES_END,
    needs=("backend", "tensorrt"),
)

SCHEDULING: tuple[Knob, ...] = (
    _run(
        name="batching_strategy",
        conflicts=(
            "in-flight batching without paged_kv_cache, remove_input_padding or"
            " gpt_attention_plugin"
        ),
        kind="choice",
        choices=("inflight_fused_batching", "inflight_batching", "V1"),
        defaults=(("0.9", "inflight_fused_batching"),),
        does="Whether requests join and leave the batch at each step, or only all together (V1).",
        turn="Leave it at inflight_fused_batching.",
        trades="V1 waits for the longest answer of a batch.",
    ),
    _run(
        name="batch_scheduler_policy",
        kind="choice",
        choices=("guaranteed_no_evict", "max_utilization"),
        defaults=(("0.9", "guaranteed_no_evict"),),
        search=("guaranteed_no_evict", "max_utilization"),
        when=(("queue", "max_utilization"), ("kv", "guaranteed_no_evict")),
        instead="capacity_scheduler_policy",
        does="Admits a request only when all its KV cache is sure, or as soon as it fits now.",
        turn="max_utilization for throughput, when answers end well before their limit.",
        trades="max_utilization pauses requests when the cache runs out and computes them again.",
    ),
    _run(
        name="enable_chunked_context",
        means="chunked prefill",
        conflicts="on without use_paged_context_fmha=true",
        kind="bool",
        defaults=(("0.16", True), ("0.9", False)),
        search=(True, False),
        instead="enable_chunked_prefill",
        does="Splits long prompts over steps. Needs an engine with use_paged_context_fmha.",
        turn="On: prompts may then exceed max_num_tokens, and streams stay even.",
        trades="Less than 2 % of throughput at worst, says NVIDIA's guide.",
    ),
    _run(
        name="max_queue_delay_microseconds",
        kind="int",
        low=0,
        high=10_000_000,
        unit="microseconds",
        defaults=(("0.9", 0),),
        search=(0, 10_000),
        instead="batch_wait_timeout_ms",
        does="How long Triton holds a request back, that others may come along with it.",
        turn="A little above zero when requests come in bursts.",
        trades="Every request may wait so long before its first token.",
    ),
    _run(
        name="cancellation_check_period_ms",
        kind="int",
        low=1,
        high=100_000,
        unit="ms",
        defaults=(("0.10", 100),),
        does="How often cancelled requests are looked for.",
        turn="Lower it when clients hang up often.",
        trades="A cancelled request computes on until then; looking costs little.",
    ),
    _run(
        name="stats_check_period_ms",
        kind="int",
        low=1,
        high=100_000,
        unit="ms",
        defaults=(("0.10", 100),),
        does="How often statistics are collected for Triton's metrics.",
        turn="Lower it when you read the metrics often.",
        trades="Finer metrics against a little CPU.",
    ),
    _run(
        name="iter_stats_max_iterations",
        kind="int",
        low=0,
        defaults=(("0.10", 1000),),
        does="For how many steps statistics are kept.",
        turn="0 turns them off; seldom matters.",
        trades="Memory against metrics.",
    ),
    _run(
        name="request_stats_max_iterations",
        kind="int",
        low=0,
        defaults=(("0.10", 0),),
        does="For how many steps statistics of each request are kept.",
        turn="Only to find a fault.",
        trades="Memory and CPU against facts about single requests.",
    ),
)

MEMORY: tuple[Knob, ...] = (
    _run(
        name="kv_cache_free_gpu_mem_fraction",
        means="KV cache size",
        but="it is a share of the memory that is free once the model is loaded",
        # _torch/pyexecutor/_util.py of 1.x: (total - peak) x fraction.
        memory_share=MemoryShare(not_of=("others", "weights", "activations")),
        conflicts="above 0.95",
        kind="float",
        low=0.05,
        high=1.0,
        defaults=(("0.9", 0.9),),
        search=(0.8, 0.95),
        when=(("kv", "raise"),),
        instead="free_gpu_memory_fraction",
        does="The share for the KV cache of the memory that is FREE once the engine is loaded.",
        turn="Up to 0.95 where the GPU is its own.",
        trades="A larger cache holds more sequences; too large, and a burst runs out of memory.",
    ),
    _run(
        name="max_tokens_in_paged_kv_cache",
        kind="int",
        low=1,
        unit="tokens",
        defaults=(("0.9", None),),
        instead="kv_cache_max_tokens",
        does="The KV cache in tokens; the lesser of it and the fraction counts.",
        turn="Leave it unset, says NVIDIA's guide, unless the GPU is shared.",
        trades="Too small, requests wait or none fits.",
    ),
    _run(
        name="enable_kv_cache_reuse",
        means="prefix cache",
        conflicts="on without use_paged_context_fmha=true",
        kind="bool",
        # 0.17: "enabled automatically when paged_context_fmha is".
        defaults=(("0.17", True), ("0.9", False)),
        search=(True, False),
        when=(("prefill", True), ("repeats", True)),
        instead="enable_block_reuse",
        does="Skips what a prompt shares with an earlier one. Needs use_paged_context_fmha.",
        turn="On where prompts share a beginning, such as a system prompt.",
        trades="Blocks stay in the cache until others need them; timing may tell of others.",
    ),
    _run(
        name="max_attention_window_size",
        conflicts="less than a sequence may have",
        kind="text",
        pattern=r"[1-9]\d*(,[1-9]\d*)*",
        form="tokens, or tokens a layer with commas between",
        defaults=(("0.9", None),),
        alters_output=True,
        instead="max_attention_window",
        does="How far back a token sees. Unset: all of the sequence.",
        turn="Leave it unset, unless the model was trained with a window.",
        trades="Below prompt and answer together, the beginning is silently forgotten.",
    ),
    _run(
        name="sink_token_length",
        conflicts="no max_attention_window_size",
        kind="int",
        low=0,
        unit="tokens",
        defaults=(("0.10", None),),
        alters_output=True,
        does="Tokens at the start that stay visible when the window has moved on.",
        turn="A few, with max_attention_window_size below the length of sequences.",
        trades="None to speak of.",
    ),
    _run(
        name="kv_cache_host_memory_bytes",
        kind="int",
        low=0,
        unit="bytes",
        defaults=(("0.10", 0),),
        instead="host_cache_size",
        does="Host memory where blocks for reuse go when the GPU's are needed.",
        turn="When many long prompts come back and the GPU's cache is small.",
        trades="Copies over PCIe; pinned memory of the host.",
    ),
    _run(
        name="kv_cache_onboard_blocks",
        kind="bool",
        defaults=(("0.10", True),),
        does="Copies blocks back from the host before use, rather than reading them there.",
        turn="Leave it on.",
        trades="A copy once against slow reads each step.",
    ),
    _run(
        name="gpu_weights_percent",
        kind="float",
        low=0.0,
        high=1.0,
        defaults=(("0.10", 1.0),),
        does="The share of the weights on the GPU, for engines built with weight streaming.",
        turn="Only for a model that does not fit.",
        trades="The rest crosses PCIe at every step.",
    ),
)

DECODING: tuple[Knob, ...] = (
    _run(
        name="triton_backend",
        kind="choice",
        choices=("tensorrtllm", "python"),
        defaults=(("0.10", "tensorrtllm"),),
        does="Which of Triton's backends runs the engine: the C++ one or the Python one.",
        turn="Leave it at tensorrtllm.",
        trades="The Python one is easier to change and costs CPU a token.",
    ),
    _run(
        name="exclude_input_in_output",
        kind="bool",
        defaults=(("0.9", False),),
        does="Leaves the prompt out of the answer.",
        turn="On for all that stream or chat.",
        trades="None: clients that want the prompt have it.",
    ),
    _run(
        name="decoding_mode",
        kind="choice",
        choices=(
            *("top_k", "top_p", "top_k_top_p", "beam_search", "medusa"),
            *("redrafter", "lookahead", "eagle"),
        ),
        defaults=(("0.9", None),),
        alters_output=True,
        does="How tokens are chosen. Unset: top_k_top_p, or beam_search with beams.",
        turn="medusa, lookahead or eagle for an engine built for it.",
        trades="Speculation saves time while batches are small and costs it when they are large.",
    ),
    _run(
        name="medusa_choices",
        conflicts="a decoding_mode that is not medusa",
        kind="text",
        pattern=r".+",
        form="the choices as the template takes them, e.g. {0, 0, 0}, {0, 1}",
        defaults=(("0.9", None),),
        alters_output=True,
        does="The tree of guesses of Medusa's heads.",
        turn="Only with decoding_mode=medusa.",
        trades="A larger tree guesses better and computes more.",
    ),
    _run(
        name="normalize_log_probs",
        kind="bool",
        defaults=(("0.9", True),),
        does="Normalises the log probabilities that requests ask for.",
        turn="Off when nobody reads them.",
        trades="A little time a step.",
    ),
    _run(
        name="enable_trt_overlap",
        kind="bool",
        defaults=(("0.9", False),),
        does="Splits the batch in two so that one is planned while the other is computed.",
        turn="Leave it off: it helped only small models of early versions.",
        trades="Two half batches are slower than one whole one.",
    ),
    _run(
        name="multi_block_mode",
        kind="bool",
        defaults=(("0.13", True), ("0.12", False)),
        does="Spreads the attention of one long sequence over more of the GPU.",
        turn="Leave it on; it matters for long contexts and few users.",
        trades="A little overhead for short ones.",
    ),
    _run(
        name="enable_context_fmha_fp32_acc",
        kind="bool",
        defaults=(("0.12", False),),
        alters_output=True,
        does="Sums the attention of prompts in 32 bits.",
        turn="When accuracy suffers.",
        trades="Slower prefill.",
    ),
    _run(
        name="cuda_graph_mode",
        kind="bool",
        defaults=(("0.16", False),),
        search=(True, False),
        when=(("host", True),),
        instead="cuda_graph",
        does="Replays the kernels of a decode step as one CUDA graph.",
        turn="On for small models and small batches, which wait for launches.",
        trades="Memory for each graph.",
    ),
    _run(
        name="cuda_graph_cache_size",
        conflicts="cuda_graph_mode=false",
        kind="int",
        low=0,
        high=10_000,
        defaults=(("0.16", 0),),
        does="How many CUDA graphs are kept.",
        turn="With cuda_graph_mode, to the number of batch sizes that occur.",
        trades="GPU memory for each.",
    ),
)

_adapters = partial(
    _run,
    low=0,
    turn="Only when requests bring LoRA adapters.",
    trades="Memory that the KV cache lacks, or adapters that are loaded again and again.",
)

LORA: tuple[Knob, ...] = (
    _adapters(
        name="lora_cache_optimal_adapter_size",
        kind="int",
        defaults=(("0.9", 8),),
        does="The adapter rank that the cache is laid out for.",
    ),
    _adapters(
        name="lora_cache_max_adapter_size",
        kind="int",
        defaults=(("0.9", 64),),
        does="The largest adapter rank that the cache takes.",
    ),
    _adapters(
        name="lora_cache_gpu_memory_fraction",
        kind="float",
        high=0.95,
        defaults=(("0.9", 0.05),),
        does="The share of the free GPU memory for adapters.",
    ),
    _adapters(
        name="lora_cache_host_memory_bytes",
        kind="int",
        unit="bytes",
        defaults=(("0.9", 1 << 30),),
        does="Host memory for adapters.",
    ),
)

TEMPLATE: tuple[Knob, ...] = (*SCHEDULING, *MEMORY, *DECODING, *LORA)

_KV = "kv_cache_config"
_RUNTIME = "extended_runtime_perf_knob_config"
# Where `trtllm-serve` has them in the document that it reads (TrtLlmArgs of 0.20 to 1.2). What is
# not here, Triton alone reads.
SERVE_PATHS: Mapping[str, tuple[str, ...]] = {
    "kv_cache_free_gpu_mem_fraction": (_KV, "free_gpu_memory_fraction"),
    "max_tokens_in_paged_kv_cache": (_KV, "max_tokens"),
    "enable_kv_cache_reuse": (_KV, "enable_block_reuse"),
    "max_attention_window_size": (_KV, "max_attention_window"),
    "sink_token_length": (_KV, "sink_token_length"),
    "kv_cache_host_memory_bytes": (_KV, "host_cache_size"),
    "kv_cache_onboard_blocks": (_KV, "onboard_blocks"),
    "batch_scheduler_policy": ("scheduler_config", "capacity_scheduler_policy"),
    "enable_chunked_context": ("enable_chunked_prefill",),
    "normalize_log_probs": ("normalize_log_probs",),
    "multi_block_mode": (_RUNTIME, "multi_block_mode"),
    "enable_context_fmha_fp32_acc": (_RUNTIME, "enable_context_fmha_fp32_acc"),
    "cuda_graph_mode": (_RUNTIME, "cuda_graph_mode"),
    "cuda_graph_cache_size": (_RUNTIME, "cuda_graph_cache_size"),
}
