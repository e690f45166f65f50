"""Knobs under another engine's name: who has it, and what does nearly the same here.

Who comes from vLLM types vLLM's names. Asked before a setting is parsed, and only then: the rows
below say which knobs serve one purpose, never that a value carries over. A share of all the GPU's
memory is no share of what is free.
"""

from collections.abc import Mapping, Sequence

from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob

# One purpose a row: engine → its knob.
COUNTERPARTS: tuple[Mapping[str, str], ...] = (
    {
        "vllm": "gpu_memory_utilization",
        "sglang": "mem_fraction_static",
        "lmdeploy": "cache_max_entry_count",
        "tgi": "cuda_memory_fraction",
        "mlc-llm": "gpu_memory_utilization",
        "openvino": "cache_size",
    },
    {
        "vllm": "max_num_seqs",
        "sglang": "max_running_requests",
        "lmdeploy": "max_batch_size",
        "tgi": "max_batch_size",
        "mlc-llm": "max_num_sequence",
        "openvino": "max_num_seqs",
    },
    {
        "vllm": "max_num_batched_tokens",
        "sglang": "chunked_prefill_size",
        "lmdeploy": "max_prefill_token_num",
        "tgi": "max_batch_prefill_tokens",
        "mlc-llm": "prefill_chunk_size",
        "openvino": "max_num_batched_tokens",
    },
    {
        "vllm": "max_model_len",
        "sglang": "context_length",
        "lmdeploy": "session_len",
        "tgi": "max_total_tokens",
        "mlc-llm": "context_window_size",
    },
    {
        "vllm": "enable_prefix_caching",
        "sglang": "disable_radix_cache",
        "lmdeploy": "enable_prefix_caching",
        "tgi": "prefix_caching",
        "mlc-llm": "prefix_cache_mode",
        "openvino": "enable_prefix_caching",
    },
    {
        "vllm": "kv_cache_dtype",
        "sglang": "kv_cache_dtype",
        "lmdeploy": "quant_policy",
        "tgi": "kv_cache_dtype",
        "openvino": "KV_CACHE_PRECISION",
    },
    {
        "vllm": "quantization",
        "sglang": "quantization",
        "lmdeploy": "model_format",
        "tgi": "quantize",
    },
    {
        "vllm": "tensor_parallel_size",
        "sglang": "tp_size",
        "lmdeploy": "tp",
        "tgi": "num_shard",
        "mlc-llm": "tensor_parallel_shards",
    },
    {"vllm": "pipeline_parallel_size", "mlc-llm": "pipeline_parallel_stages"},
    {"vllm": "data_parallel_size", "sglang": "dp_size", "lmdeploy": "dp"},
    {"vllm": "block_size", "sglang": "page_size", "lmdeploy": "cache_block_seq_len"},
    {"vllm": "max_cudagraph_capture_size", "sglang": "cuda_graph_max_bs_decode"},
    {
        "vllm": "enforce_eager",
        "sglang": "cuda_graph_backend_decode",
        "lmdeploy": "eager_mode",
    },
    {
        "vllm": "api_server_count",
        "sglang": "tokenizer_worker_num",
        "tgi": "validation_workers",
    },
    {"vllm": "attention_backend", "sglang": "attention_backend", "tgi": "attention"},
    {"vllm": "scheduling_policy", "sglang": "schedule_policy"},
    {"vllm": "async_scheduling", "sglang": "disable_overlap_schedule"},
    {
        "vllm": "max_num_queued_reqs",
        "sglang": "max_queued_requests",
        "lmdeploy": "max_concurrent_requests",
        "tgi": "max_concurrent_requests",
    },
    {"vllm": "spec_tokens", "tgi": "speculate"},
)


def refuse_others_knobs(settings: Sequence[str], engine: Engine, known: Sequence[Knob]) -> None:
    """Refuse `--set name=value` texts whose name another engine has and this one has not.

    Raises:
        UsageError: says who has it, and which knob here is nearest.
    """
    here = {knob.name: knob for knob in known}
    for text in settings:
        name = text.partition("=")[0]
        if name in here:
            continue
        owners = [other for other in plugins.names("engines") if _has(other, name)]
        if owners:
            raise UsageError(
                f"--set {text}: {engine.name} has no knob of that name, {' and '.join(owners)}"
                f" {'have' if len(owners) > 1 else 'has'}; {_nearest(name, owners, engine, here)}."
            )


def _has(engine: str, name: str) -> bool:
    return any(knob.name == name for knob in plugins.load("engines", engine).knobs)


def _nearest(name: str, owners: Sequence[str], engine: Engine, here: Mapping[str, Knob]) -> str:
    for row in COUNTERPARTS:
        ours = row.get(engine.name)
        if ours is not None and ours in here and any(row.get(owner) == name for owner in owners):
            what = here[ours].does.partition(". ")[0].rstrip(".")
            return f"the nearest here is {ours} ({what[0].lower()}{what[1:]})"
    return "nothing here does the same"
