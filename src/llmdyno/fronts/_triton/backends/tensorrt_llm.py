"""TensorRT-LLM behind Triton: NVIDIA's C++ backend for engines, its Python model for checkpoints.

Engines (up to 1.2) stand as `tensorrt_llm` in the middle of the same chain as the embedded engine;
checkpoints go to NVIDIA's Python model on tensorrt_llm.LLM (_llmapi.py). Not run by us.
"""

from collections.abc import Mapping
from pathlib import Path

from llmdyno.engines import Engine
from llmdyno.engines._trtllm.llm_args import llm_arguments
from llmdyno.engines.tensorrt_llm import RELEASE
from llmdyno.fronts import model_link
from llmdyno.fronts._triton import wire
from llmdyno.fronts._triton.backends import NEWEST_RELEASE, Backend, Served, _llmapi, image
from llmdyno.fronts._triton.chain import (
    CHAIN,
    NEWER,
    OLDER,
    RENAMED_IN,
    SAMPLING,
    chain,
    chain_files,
    engine_inputs,
    parameters,
    tensor,
)
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config, Value

# The release of NVIDIA's Triton container that has a release of TensorRT-LLM, by its published
# compatibility matrix.
_RELEASES: Mapping[str, str] = {
    "1.1": "25.12",
    "1.0": "25.10",
    "0.21": "25.08",
    "0.20": "25.07",
    "0.17": "25.01",
    "0.16": "24.12",
    "0.15": "24.11",
    "0.14": "24.10",
    "0.13": "24.09",
    "0.12": "24.08",
    "0.11": "24.07",
    "0.10": "24.06",
    "0.9": "24.04",  # and 24.05; the former is what BentoML took
}

# The keys of the C++ engine model's template, with the values that it has by itself; None: unset.
_KEYS: Mapping[str, Value | None] = {
    "batching_strategy": "inflight_fused_batching",
    "engine_dir": "",
    "max_beam_width": 1,
    "max_tokens_in_paged_kv_cache": None,
    "max_attention_window_size": None,
    "sink_token_length": None,
    "batch_scheduler_policy": "guaranteed_no_evict",
    "kv_cache_free_gpu_mem_fraction": None,
    "kv_cache_host_memory_bytes": None,
    "kv_cache_onboard_blocks": None,
    "cross_kv_cache_fraction": None,
    "enable_trt_overlap": None,
    "exclude_input_in_output": True,  # else a whole answer would begin with its prompt
    "cancellation_check_period_ms": None,
    "stats_check_period_ms": None,
    "iter_stats_max_iterations": None,
    "request_stats_max_iterations": None,
    "enable_kv_cache_reuse": None,
    "normalize_log_probs": None,
    "enable_chunked_context": None,
    "gpu_device_ids": None,
    "gpu_weights_percent": None,
    "decoding_mode": None,
    "medusa_choices": None,
    "eagle_choices": None,
    "multi_block_mode": None,
    "enable_context_fmha_fp32_acc": None,
    "cuda_graph_mode": None,
    "cuda_graph_cache_size": None,
    "speculative_decoding_fast_logits": None,
    "lora_cache_optimal_adapter_size": None,
    "lora_cache_max_adapter_size": None,
    "lora_cache_gpu_memory_fraction": None,
    "lora_cache_host_memory_bytes": None,
    "guided_decoding_backend": None,
}


def repository(
    engine_dir: str, tokenizer_dir: str, version: tuple[int, ...], engine: Config, front: Config
) -> Repository:
    """Return the repository of an engine, for NVIDIA's C++ backend.

    Clients call the BLS model: in an ensemble postprocessing would see each token alone, as
    NVIDIA's engine model does not send those before.
    """
    newer = version >= RENAMED_IN
    inputs = {**SAMPLING, **(NEWER if newer else OLDER)}
    outputs = ["output_ids", "sequence_length", *(wire.COUNTS if newer else ())]
    batch = int(front["triton_max_batch_size"])
    keys = {
        **_KEYS,
        **{name: value for name, value in engine.items() if name in _KEYS},
        "engine_dir": engine_dir,
    }
    renamed = {"batching_strategy": "gpt_model_type", "engine_dir": "gpt_model_path"}
    model = {
        "name": "tensorrt_llm",
        "backend": "tensorrtllm",
        "max_batch_size": batch,
        "model_transaction_policy": {"decoupled": bool(front["decoupled_mode"])},
        "dynamic_batching": {
            "preferred_batch_size": [batch],
            "max_queue_delay_microseconds": engine.get("max_queue_delay_microseconds", 0),
            "default_queue_policy": {"max_queue_size": front["max_queue_size"]},
        },
        "input": [
            {**one, "reshape": {"shape": []}} if one["dims"] == [1] else one
            for one in engine_inputs(inputs)
        ],
        "output": [
            tensor("output_ids", "TYPE_INT32", [-1, -1]),
            tensor("sequence_length", "TYPE_INT32", [-1]),
            *(tensor(name, "TYPE_INT32", [1]) for name in outputs if name in wire.COUNTS),
        ],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": parameters(
            {renamed.get(name, name): value for name, value in keys.items() if value is not None}
        ),
    }
    around = chain("tensorrt_llm", tokenizer_dir, "transformers", inputs, outputs, front)
    return Repository(
        configs={**around, "tensorrt_llm": model},
        files=chain_files(),
        model="tensorrt_llm_bls",
        empty=("ensemble/1", "tensorrt_llm/1"),
        imports=tuple(CHAIN),
    )


class TensorRtLlmBackend:
    """NVIDIA's C++ backend for built engines, and its Python model for checkpoints."""

    requirements: tuple[str, ...] = ()
    in_wheel = False
    else_passes_on = ""

    def place(self, model: str, artifact: Path | None) -> str:
        """Return the model as it is named: its tokenizer, or all of it, is read from there."""
        del artifact
        return model

    def portable_place(self, model: str, artifact: Path | None) -> tuple[str, Mapping[str, Path]]:
        """Return the place of a local model in the bundle, or the name of one on the hub."""
        del artifact
        links = model_link(model)
        return next(iter(links), model), links

    def repository(self, served: Served) -> Repository:
        """Return the chain around an engine, or NVIDIA's Python model where nothing was built.

        Raises:
            ServerError: the code of NVIDIA's Python model is not on this machine.
        """
        if served.artifact is None:
            # In a bundle NVIDIA's code is copied where it runs: see `prepare`.
            code = {} if served.portable else _llmapi.code()
            arguments = llm_arguments(served.config, _version(served.engine, served.config))
            return _llmapi.repository(served.place, arguments, served.front, code)
        version = tuple(int(part) for part in _release(served.engine, served.config).split("."))
        built = str(served.artifact / "engine")
        return repository(built, served.place, version, served.config, served.front)

    def prepare(self, artifact: Path | None, models: Path) -> str:
        """Return the command that copies NVIDIA's Python model, where that serves."""
        return "" if artifact is not None else _llmapi.copy_command(models)

    def image(self, engine: Engine, config: Config) -> str:
        """Return the container that has the config's release of TensorRT-LLM."""
        release = _RELEASES.get(_release(engine, config), NEWEST_RELEASE)
        return image("-trtllm-python-py3", release)

    def doubts(self, engine: Engine, config: Config) -> tuple[str, ...]:
        """Return a doubt where the container of the config's release is not known."""
        if _release(engine, config) in _RELEASES:
            return ()
        unknown = (
            f"the config is for TensorRT-LLM {_version(engine, config)}, whose Triton container"
        )
        known = f"{NEWEST_RELEASE} has 1.1.0: name the right --image, or set version."
        return (f"{unknown} we do not know; {known}",)


def _version(engine: Engine, config: Config) -> str:
    """Return the version of TensorRT-LLM that a config is for."""
    return str(config.get("version") or engine.version() or RELEASE)


def _release(engine: Engine, config: Config) -> str:
    """Return the first two numbers of that version."""
    return ".".join(_version(engine, config).split(".")[:2])


BACKEND: Backend = TensorRtLlmBackend()
