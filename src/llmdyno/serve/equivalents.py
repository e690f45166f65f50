"""What a knob of one engine is called in the others, and what its value is there.

Two knobs with the same number rarely mean the same: 0.9 is a share of the memory that is free after
loading in TensorRT-LLM, of all the GPU's memory in vLLM. The guide (terminal/lists.py) shows these
rows; they hold for the versions that `source` names.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

GIB = 1 << 30


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a GPU's memory is taken by, in bytes, beside the KV cache."""

    total: float
    weights: float
    activations: float  # what a step needs at its largest
    others: float = 0.0  # taken before the engine starts


class MemoryShare(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine derives the size of its KV cache from one number.

    The cache is share x of(memory) - without(memory).
    """

    engine: str
    knobs: tuple[str, ...]
    of: Callable[[Memory], float]
    without: Callable[[Memory], float]
    formula: str
    source: str

    def cache_bytes(self, share: float, memory: Memory) -> float:
        """Return the size of the KV cache."""
        return share * self.of(memory) - self.without(memory)

    def share(self, cache_bytes: float, memory: Memory) -> float:
        """Return the number that makes a cache of that size."""
        return (cache_bytes + self.without(memory)) / self.of(memory)


class Same(msgspec.Struct, frozen=True, kw_only=True):
    """Knobs that serve one purpose; `but` says what is peculiar to an engine's."""

    knobs: Mapping[str, tuple[str, ...]]  # by engine; a name for each road
    but: Mapping[str, str] = {}


MEMORY: tuple[MemoryShare, ...] = (
    MemoryShare(
        engine="tensorrt-llm",
        knobs=("free_gpu_memory_fraction", "kv_cache_free_gpu_mem_fraction"),
        of=lambda memory: memory.total - memory.others - memory.weights - memory.activations,
        without=lambda _: 0.0,
        formula="cache = share x (total - others - weights - activations)",
        source="TensorRT-LLM 1.x, _torch/pyexecutor/_util.py: (total - peak) x fraction",
    ),
    MemoryShare(
        engine="vllm",
        knobs=("gpu_memory_utilization",),
        of=lambda memory: memory.total,
        without=lambda memory: memory.weights + memory.activations,
        formula="cache = share x total - weights - activations",
        source="vLLM 0.26, vllm/config/cache.py and the worker's memory profiling",
    ),
    MemoryShare(
        engine="sglang",
        knobs=("mem_fraction_static",),
        of=lambda memory: memory.total - memory.others,
        without=lambda memory: memory.weights,
        formula="cache = share x (total - others) - weights",
        source="SGLang 0.5, model_runner: free after load - free before load x (1 - share)",
    ),
    MemoryShare(
        engine="lmdeploy",
        knobs=("cache_max_entry_count",),
        of=lambda memory: memory.total - memory.others - memory.weights,
        without=lambda _: 0.0,
        formula="cache = share x (total - others - weights)",
        source="LMDeploy after 0.2.1, TurbomindEngineConfig: a percentage of FREE memory",
    ),
)

SAME: tuple[Same, ...] = (
    Same(
        knobs={
            "tensorrt-llm": ("free_gpu_memory_fraction", "kv_cache_free_gpu_mem_fraction"),
            "vllm": ("gpu_memory_utilization",),
            "sglang": ("mem_fraction_static",),
            "lmdeploy": ("cache_max_entry_count",),
            "tgi": ("cuda_memory_fraction",),
            "mlc-llm": ("gpu_memory_utilization",),
            "openvino": ("cache_size",),
        },
        but={
            "tensorrt-llm": "it is a share of the memory that is free once the model is loaded",
            "vllm": "it is a share of all memory, weights and activations included",
            "sglang": "it is a share of what was free at the start, weights included",
            "lmdeploy": "it is a share of the memory that is free once the model is loaded",
            "tgi": "it caps all memory, weights included",
            "mlc-llm": "it is a share of all memory, weights included",
            "openvino": "it counts GB",
        },
    ),
    Same(
        knobs={
            "tensorrt-llm": ("max_batch_size",),
            "vllm": ("max_num_seqs",),
            "sglang": ("max_running_requests",),
            "lmdeploy": ("max_batch_size",),
            "tgi": ("max_batch_size",),
            "mlc-llm": ("max_num_sequence",),
            "openvino": ("max_num_seqs",),
        },
        but={"openvino": "it binds only with dynamic_split_fuse=false"},
    ),
    Same(
        knobs={
            "tensorrt-llm": ("max_num_tokens",),
            "vllm": ("max_num_batched_tokens",),
            "sglang": ("chunked_prefill_size",),
            "lmdeploy": ("max_prefill_token_num",),
            "tgi": ("max_batch_prefill_tokens",),
            "mlc-llm": ("prefill_chunk_size",),
            "openvino": ("max_num_batched_tokens",),
        },
        but=dict.fromkeys(
            ("sglang", "lmdeploy", "tgi", "mlc-llm"), "it counts the tokens of prompts only"
        ),
    ),
    Same(
        knobs={
            "tensorrt-llm": ("max_seq_len",),
            "vllm": ("max_model_len",),
            "sglang": ("context_length",),
            "lmdeploy": ("session_len",),
            "tgi": ("max_total_tokens",),
            "mlc-llm": ("context_window_size",),
        },
    ),
    Same(
        knobs={
            "tensorrt-llm": ("enable_block_reuse", "enable_kv_cache_reuse"),
            "vllm": ("enable_prefix_caching",),
            "sglang": ("disable_radix_cache",),
            "lmdeploy": ("enable_prefix_caching",),
            "tgi": ("prefix_caching",),
            "mlc-llm": ("prefix_cache_mode",),
            "openvino": ("enable_prefix_caching",),
        },
        but={"sglang": "true and false change places"},
    ),
    Same(
        knobs={
            "tensorrt-llm": ("enable_chunked_prefill", "enable_chunked_context"),
            "vllm": ("enable_chunked_prefill",),
            "openvino": ("dynamic_split_fuse",),
        },
    ),
    Same(
        knobs={
            "vllm": ("kv_cache_dtype",),
            "sglang": ("kv_cache_dtype",),
            "lmdeploy": ("quant_policy",),
            "tgi": ("kv_cache_dtype",),
            "openvino": ("KV_CACHE_PRECISION",),
        },
    ),
    Same(
        knobs={
            "vllm": ("quantization",),
            "sglang": ("quantization",),
            "lmdeploy": ("model_format",),
            "tgi": ("quantize",),
        },
    ),
    Same(
        knobs={
            "tensorrt-llm": ("tokens_per_block",),
            "vllm": ("block_size",),
            "sglang": ("page_size",),
            "lmdeploy": ("cache_block_seq_len",),
        },
    ),
    Same(
        knobs={
            "tensorrt-llm": ("tensor_parallel_size",),
            "vllm": ("tensor_parallel_size",),
            "sglang": ("tp_size",),
            "lmdeploy": ("tp",),
            "tgi": ("num_shard",),
            "mlc-llm": ("tensor_parallel_shards",),
        },
    ),
    Same(knobs={"vllm": ("pipeline_parallel_size",), "mlc-llm": ("pipeline_parallel_stages",)}),
    Same(
        knobs={"vllm": ("data_parallel_size",), "sglang": ("dp_size",), "lmdeploy": ("dp",)},
    ),
    Same(
        knobs={
            "tensorrt-llm": ("cuda_graph_max_batch_size",),
            "vllm": ("max_cudagraph_capture_size",),
            "sglang": ("cuda_graph_max_bs_decode",),
        },
    ),
    Same(
        knobs={
            "vllm": ("enforce_eager",),
            "sglang": ("cuda_graph_backend_decode",),
            "lmdeploy": ("eager_mode",),
        },
    ),
    Same(
        knobs={
            "vllm": ("api_server_count",),
            "sglang": ("tokenizer_worker_num",),
            "tgi": ("validation_workers",),
        },
    ),
    Same(
        knobs={
            "vllm": ("attention_backend",),
            "sglang": ("attention_backend",),
            "tgi": ("attention",),
        },
    ),
    Same(knobs={"vllm": ("scheduling_policy",), "sglang": ("schedule_policy",)}),
    Same(
        knobs={"vllm": ("async_scheduling",), "sglang": ("disable_overlap_schedule",)},
        but={"sglang": "true and false change places"},
    ),
    Same(
        knobs={
            "vllm": ("max_num_queued_reqs",),
            "sglang": ("max_queued_requests",),
            "lmdeploy": ("max_concurrent_requests",),
            "tgi": ("max_concurrent_requests",),
        },
    ),
    Same(knobs={"vllm": ("spec_tokens",), "tgi": ("speculate",)}),
)

# The example that the guide reckons with.
EXAMPLE = Memory(total=80 * GIB, weights=16 * GIB, activations=4 * GIB)
_EXAMPLE_WORDS = "80 GiB of memory, 16 of weights and 4 of activations"


def convert(engine: str, share: float, other: str, memory: Memory) -> float:
    """Return the share that gives `other` as large a KV cache; above 1, it cannot have one."""
    shares = {row.engine: row for row in MEMORY}
    return shares[other].share(shares[engine].cache_bytes(share, memory), memory)


def elsewhere(engine: str, knob: str, value: float | None) -> Sequence[str]:
    """Return a sentence for each other engine that has the like of this knob.

    Args:
        engine: whose knob it is.
        knob: its name.
        value: what a share of memory is converted from.
    """
    own = next((row for row in MEMORY if row.engine == engine and knob in row.knobs), None)
    if own is not None and value is not None:
        cache_gib = own.cache_bytes(value, EXAMPLE) / GIB
        return (
            f"here: {own.formula}; {value:g} is {cache_gib:.1f} GiB with {_EXAMPLE_WORDS}",
            *(
                f"in {row.engine}: {row.knobs[0]}="
                f"{convert(engine, value, row.engine, EXAMPLE):.3f}, as {row.formula}"
                for row in MEMORY
                if row.engine != engine
            ),
        )
    return tuple(
        f"in {other}: {names[0]}" + (f", but {row.but[other]}" if other in row.but else "")
        for row in SAME
        if knob in row.knobs.get(engine, ())
        for other, names in row.knobs.items()
        if other != engine
    )
