"""Configs that a study of TensorRT-LLM may begin with: what others have found or computed.

They are only tried first; each is measured like any other trial. Not run by us.
"""

import math
from collections.abc import Mapping

from llmdyno.engines._starts import Circumstances, Sizes
from llmdyno.engines._trtllm.table import on_engine_road, value
from llmdyno.knobs import Config, Value

# What BentoML had set in July 2024, after it was tuned: examples/tensorrt-llm-2024/after.toml. The
# dtype that it names for gemm_plugin is the model's own, which auto takes.
BENTOML_2024: Config = {
    "max_batch_size": 2048,
    "max_num_tokens": 2048,
    "gemm_plugin": "auto",
    "multiple_profiles": True,
    "use_paged_context_fmha": True,
    "enable_chunked_context": True,
    "kv_cache_free_gpu_mem_fraction": 0.9,
    "postprocessing_instance_count": 8,
    "triton_max_batch_size": 2048,
}
# The same on the PyTorch road, as far as it has it.
BENTOML_2024_PYTORCH: Config = {
    "max_batch_size": 2048,
    "max_num_tokens": 2048,
    "enable_chunked_prefill": True,
    "free_gpu_memory_fraction": 0.9,
}
# Bytes of a number, where trtllm-bench knows the format; it takes 2 for all others.
_BYTES: Mapping[Value | None, float] = {"fp8": 1.0, "nvfp4": 0.5}
_REQUESTS_MAX, _TOKENS_MAX = 4096, 32768
_GRAPHS_MAX = 1024  # each captured size costs memory


def starts(known: Circumstances, version: str) -> tuple[Config, ...]:
    """Return configs to begin with, the likeliest first."""
    engine = on_engine_road(known.baseline)
    tuned = BENTOML_2024 if engine else BENTOML_2024_PYTORCH
    sizes = closed_form(known, version)
    if sizes is None:
        return (tuned,)
    batch, tokens = sizes
    computed: dict[str, Value] = {"max_batch_size": batch, "max_num_tokens": tokens}
    if not engine:
        computed["cuda_graph_max_batch_size"] = min(batch, _GRAPHS_MAX)
        computed["cuda_graph_padding"] = True
    return (computed, tuned)


def closed_form(known: Circumstances, version: str) -> tuple[int, int] | None:
    """Return max_batch_size and max_num_tokens as `trtllm-bench` computes them.

    So many requests of the typical length fit the KV cache; of each step, so many tokens are
    prompts' as of each request. Both are rounded up, to be a little too hopeful rather than too
    timid. (tensorrt_llm/bench/build/tuning.py; the same until the candidates of 1.4.)

    Returns:
        None if the model, the GPU or the lengths are not known, or nothing fits.
    """
    model, memory = known.model, known.gpu_bytes
    prompt, answer = known.prompt_tokens, known.answer_tokens
    if model is None or memory is None or not prompt or not answer:
        return None
    fits = _requests_in_cache(known.baseline, version, model, memory, prompt + answer)
    if fits < 1:
        return None
    pipeline = int(known.baseline.get("pipeline_parallel_size", 1))
    batch = min(fits, _REQUESTS_MAX) / pipeline
    tokens = min(batch * (1 + prompt / answer), _TOKENS_MAX)
    return _rounded(batch, ((256, 32), (1024, 128)), 256, least=64), _rounded(
        tokens, ((4096, 256), (8192, 512)), 1024, least=2048
    )


def _requests_in_cache(
    config: Config, version: str, model: Sizes, gpu_bytes: float, length: float
) -> float:
    """Return how many requests of that many tokens fit the KV cache of all GPUs."""
    engine = on_engine_road(config)
    tensor = int(config.get("tensor_parallel_size", 1))
    gpus = tensor * int(config.get("pipeline_parallel_size", 1))
    quantization = config.get("quantization")
    weights = model.params * _BYTES.get(quantization, 2.0) if quantization else model.weight_bytes
    cache = "kv_cache_quantization" if engine else "kv_cache_dtype"
    share = "kv_cache_free_gpu_mem_fraction" if engine else "free_gpu_memory_fraction"
    a_token = (
        2
        * model.layers
        * max(tensor, model.kv_heads)
        * model.head_dim
        * _BYTES.get(config.get(cache), 2.0)
    )
    fraction = value(config, share, version)
    assert isinstance(fraction, int | float)
    return (gpu_bytes * gpus - weights) * fraction / (a_token * length)


def _rounded(number: float, steps: tuple[tuple[int, int], ...], coarse: int, *, least: int) -> int:
    """Round up to a multiple that grows with the number: (bound, multiple below it)."""
    multiple = next((width for bound, width in steps if number < bound), coarse)
    return max(least, multiple * math.ceil(number / multiple))
