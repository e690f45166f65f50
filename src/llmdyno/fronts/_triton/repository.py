"""Model repositories: which models, with which config and files, for which engine.

Where it stands: fronts/triton.py picks the function of an engine and writes what it returns. The
configs are plain mappings in the shape of Triton's ModelConfig; pbtxt.py makes text of them.
Four kinds:

    openvino       preprocessing, openvino, postprocessing, ensemble, tensorrt_llm_bls
    TensorRT-LLM   the same with NVIDIA's `tensorrt_llm` in the middle (engines, up to 1.2)
    llmapi         NVIDIA's Python model on tensorrt_llm.LLM (from 1.3 on), behind an ensemble that
                   gives it the names that clients use
    vllm           the vLLM backend's one model

Only the first was run by us; the names in the others are those of the backends' own templates.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmdyno.fronts._triton import wire
from llmdyno.knobs import Config, Value

# Ours in a model repository; the public name of an input is that of TensorRT-LLM's own ensemble.
_SAMPLING: Mapping[str, tuple[str, str]] = {
    # What a client may send → (its type, the input of the engine model).
    "top_k": ("TYPE_INT32", "runtime_top_k"),
    "top_p": ("TYPE_FP32", "runtime_top_p"),
    "temperature": ("TYPE_FP32", "temperature"),
    "length_penalty": ("TYPE_FP32", "len_penalty"),
    "repetition_penalty": ("TYPE_FP32", "repetition_penalty"),
    "presence_penalty": ("TYPE_FP32", "presence_penalty"),
    "frequency_penalty": ("TYPE_FP32", "frequency_penalty"),
    "beam_width": ("TYPE_INT32", "beam_width"),
    "stream": ("TYPE_BOOL", "streaming"),
}
# Renamed in TensorRT-LLM 0.17; ours takes both.
_OLDER = {
    "min_length": ("TYPE_INT32", "min_length"),
    "random_seed": ("TYPE_UINT64", "random_seed"),
}
_NEWER = {
    "min_tokens": ("TYPE_INT32", "min_tokens"),
    "seed": ("TYPE_UINT64", "seed"),
    "return_num_input_tokens": ("TYPE_BOOL", "return_num_input_tokens"),
    "return_num_output_tokens": ("TYPE_BOOL", "return_num_output_tokens"),
}
_RENAMED_IN = (0, 17)
_TEXT_INPUTS = {
    "text_input": "TYPE_STRING",
    "max_tokens": "TYPE_INT32",
    "bad_words": "TYPE_STRING",
    "stop_words": "TYPE_STRING",
    "end_id": "TYPE_INT32",
    "pad_id": "TYPE_INT32",
}
_LISTS = {"bad_words", "stop_words"}


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written, and how a client asks for a token."""

    configs: Mapping[str, Mapping[str, Any]]  # model → Triton's ModelConfig
    files: Mapping[str, str] = {}  # path in the repository → content
    model: str  # the one that clients call
    empty: tuple[str, ...] = ()  # folders that must be there
    imports: tuple[str, ...] = ()  # models whose code is ours: they must find llmdyno


def openvino(
    model_path: str, context_length: int, acknowledgements: str, engine: Config, front: Config
) -> Repository:
    """Return the repository of the embedded engine; `acknowledgements` is the path of a FIFO."""
    inputs = {**_SAMPLING, **_NEWER, **_OLDER}
    batch = int(front["triton_max_batch_size"])
    decoupled = bool(front["decoupled_mode"])
    outputs = [*wire.POSTPROCESSING, *wire.COUNTS]
    model = {
        **_python("openvino", batch, decoupled=decoupled, instances=1),
        "input": [
            *_engine_inputs(inputs),
            _tensor(wire.RELAYED[1], "TYPE_INT32", [1], optional=True),
        ],
        "output": [
            _tensor("output_ids", "TYPE_INT32", [-1, -1]),
            _tensor("sequence_length", "TYPE_INT32", [-1]),
            *(_tensor(name, "TYPE_INT32", [1]) for name in outputs[2:]),
        ],
        "parameters": _parameters(
            {
                "model_path": model_path,
                "acknowledgements": acknowledgements,
                "context_length": context_length,
                "config": json.dumps(dict(engine), sort_keys=True),
                "max_queue_size": front["max_queue_size"],
                "decoupled_mode": decoupled,
            }
        ),
    }
    chain = _chain("openvino", model_path, "openvino", inputs, outputs, front, acknowledgements)
    return Repository(
        configs={**chain, "openvino": model},
        files={**_chain_files(), **_python_file("openvino", "openvino", "OpenVino")},
        model="ensemble",
        empty=("ensemble/1",),
        imports=(*_CHAIN, "openvino"),
    )


def tensorrt_llm(
    engine_dir: str, tokenizer_dir: str, version: tuple[int, ...], engine: Config, front: Config
) -> Repository:
    """Return the repository of a TensorRT-LLM engine, for NVIDIA's C++ backend.

    Clients call the BLS model: in an ensemble postprocessing would see each token alone, as
    NVIDIA's engine model does not send those before.
    """
    newer = version >= _RENAMED_IN
    inputs = {**_SAMPLING, **(_NEWER if newer else _OLDER)}
    outputs = ["output_ids", "sequence_length", *(wire.COUNTS if newer else ())]
    batch = int(front["triton_max_batch_size"])
    keys = {
        **_TENSORRT_LLM,
        **{name: value for name, value in engine.items() if name in _TENSORRT_LLM},
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
            {**tensor, "reshape": {"shape": []}} if tensor["dims"] == [1] else tensor
            for tensor in _engine_inputs(inputs)
        ],
        "output": [
            _tensor("output_ids", "TYPE_INT32", [-1, -1]),
            _tensor("sequence_length", "TYPE_INT32", [-1]),
            *(_tensor(name, "TYPE_INT32", [1]) for name in outputs if name in wire.COUNTS),
        ],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": _parameters(
            {renamed.get(name, name): value for name, value in keys.items() if value is not None}
        ),
    }
    chain = _chain("tensorrt_llm", tokenizer_dir, "transformers", inputs, outputs, front)
    return Repository(
        configs={**chain, "tensorrt_llm": model},
        files=_chain_files(),
        model="tensorrt_llm_bls",
        empty=("ensemble/1", "tensorrt_llm/1"),
        imports=tuple(_CHAIN),
    )


# The keys of the C++ engine model's template, with the values that it has by itself; None: unset.
_TENSORRT_LLM: Mapping[str, Value | None] = {
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


_LLMAPI: Mapping[str, tuple[str, str]] = {
    # What a client may send → (its type, the input of NVIDIA's Python model).
    "text_input": ("TYPE_STRING", "text_input"),
    "max_tokens": ("TYPE_INT32", "sampling_param_max_tokens"),
    "stream": ("TYPE_BOOL", "streaming"),
    "temperature": ("TYPE_FP32", "sampling_param_temperature"),
    "top_k": ("TYPE_INT32", "sampling_param_top_k"),
    "top_p": ("TYPE_FP32", "sampling_param_top_p"),
    "frequency_penalty": ("TYPE_FP32", "sampling_param_frequency_penalty"),
    "presence_penalty": ("TYPE_FP32", "sampling_param_presence_penalty"),
    "stop_words": ("TYPE_STRING", "sampling_param_stop"),
    "seed": ("TYPE_UINT64", "sampling_param_seed"),
}
_LLMAPI_LISTS = {"text_input", "stop_words"}


def llmapi(model: str, engine: Config, front: Config, python: Mapping[str, str]) -> Repository:
    """Return the repository of NVIDIA's Python model; `python` is its code, file by file.

    The model has names of its own for what a client may ask for, hence the ensemble.
    """
    decoupled = bool(front["decoupled_mode"])

    def inputs(at: int) -> list[dict[str, Any]]:
        return [
            _tensor(
                own if at == 0 else theirs,
                kind,
                [-1] if own in _LLMAPI_LISTS else [1],
                optional=own != "text_input",
            )
            for own, (kind, theirs) in _LLMAPI.items()
        ]

    text = [_tensor("text_output", "TYPE_STRING", [-1])]
    step = {
        "model_name": "tensorrt_llm",
        "model_version": -1,
        "input_map": {theirs: own for own, (_, theirs) in _LLMAPI.items()},
        "output_map": {"text_output": "text_output"},
    }
    settings = {
        "model": model,
        "backend": "pytorch",
        **engine,
        # The model supports no batches of Triton's; it batches by itself.
        "triton_config": {"max_batch_size": 0, "decoupled": decoupled},
    }
    return Repository(
        configs={
            "tensorrt_llm": {
                "name": "tensorrt_llm",
                "backend": "python",
                "input": inputs(1),
                "output": text,
                "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
            },
            "ensemble": {
                "name": "ensemble",
                "platform": "ensemble",
                "model_transaction_policy": {"decoupled": decoupled},
                "input": inputs(0),
                "output": text,
                "ensemble_scheduling": {"step": [step]},
            },
        },
        # JSON is YAML.
        files={
            "tensorrt_llm/1/model.yaml": json.dumps(settings, indent=1) + "\n",
            **{f"tensorrt_llm/1/{name}": content for name, content in python.items()},
        },
        model="ensemble",
        empty=("ensemble/1",),
    )


def vllm(model: str, engine: Config) -> Repository:
    """Return the repository of the vLLM backend, which completes the config by itself."""
    return Repository(
        configs={
            "vllm_model": {
                "name": "vllm_model",
                "backend": "vllm",
                "instance_group": [{"count": 1, "kind": "KIND_MODEL"}],
            }
        },
        files={"vllm_model/1/model.json": json.dumps({"model": model, **engine}, indent=1) + "\n"},
        model="vllm_model",
    )


def _chain(
    engine: str,
    tokenizer_dir: str,
    tokenizer_kind: str,
    inputs: Mapping[str, tuple[str, str]],
    outputs: Iterable[str],
    front: Config,
    acknowledgements: str = "",
) -> dict[str, dict[str, Any]]:
    """Return preprocessing, postprocessing, ensemble and BLS around an engine model."""
    batch = int(front["triton_max_batch_size"])
    decoupled = bool(front["decoupled_mode"])
    tokenizer = {"tokenizer_dir": tokenizer_dir, "tokenizer_kind": tokenizer_kind}
    outputs = list(outputs)
    counts = [name for name in wire.COUNTS if name in outputs]
    public = [
        *(
            _tensor(name, kind, [-1] if name in _LISTS else [1], optional=name != "text_input")
            for name, kind in _TEXT_INPUTS.items()
        ),
        *(_tensor(name, kind, [1], optional=True) for name, (kind, _) in inputs.items()),
    ]
    shown = [
        _tensor("text_output", "TYPE_STRING", [-1]),
        *(_tensor(name, "TYPE_INT32", [1]) for name in counts),
    ]
    names = {own: theirs for own, (_, theirs) in inputs.items()}
    return {
        **_tokenizing(batch, tokenizer, acknowledgements, front),
        "ensemble": {
            "name": "ensemble",
            "platform": "ensemble",
            "max_batch_size": batch,
            "model_transaction_policy": {"decoupled": decoupled},
            "input": public,
            "output": shown,
            "ensemble_scheduling": {"step": _steps(engine, names, outputs, counts)},
        },
        "tensorrt_llm_bls": {
            **_python(
                "tensorrt_llm_bls",
                batch,
                decoupled=decoupled,
                instances=front["bls_instance_count"],
            ),
            "input": public,
            "output": shown,
            "parameters": _parameters(
                {
                    "tensorrt_llm_model_name": engine,
                    "engine_inputs": json.dumps(names),
                    "engine_outputs": json.dumps(outputs),
                    "accumulate_tokens": front["accumulate_tokens"],
                }
            ),
        },
    }


def _tokenizing(
    batch: int, tokenizer: Mapping[str, str], acknowledgements: str, front: Config
) -> dict[str, dict[str, Any]]:
    """Return preprocessing and postprocessing."""
    return {
        "preprocessing": {
            **_python("preprocessing", batch, instances=front["preprocessing_instance_count"]),
            "input": [
                _tensor(
                    wire.PREPROCESSING[name],
                    kind,
                    [-1] if name in _LISTS else [1],
                    optional=name != "text_input",
                    ragged=name in _LISTS,
                )
                for name, kind in _TEXT_INPUTS.items()
            ],
            "output": [
                _tensor(name, "TYPE_INT32", [2, -1] if name.endswith("WORDS_IDS") else [-1])
                for name in (*wire.PREPROCESSED, wire.RELAYED[0])
            ],
            "dynamic_batching": {},
            "parameters": _parameters({**tokenizer, "add_special_tokens": True}),
        },
        "postprocessing": {
            **_python("postprocessing", batch, instances=front["postprocessing_instance_count"]),
            "input": [
                _tensor("TOKENS_BATCH", "TYPE_INT32", [-1, -1], ragged=True),
                _tensor("SEQUENCE_LENGTH", "TYPE_INT32", [-1]),
                _tensor("CONTEXT_LENGTH", "TYPE_INT32", [1], optional=True),
                _tensor("GENERATION", "TYPE_INT32", [1], optional=True),
            ],
            "output": [_tensor("OUTPUT", "TYPE_STRING", [-1])],
            # The pieces of one stream leave in the order they came in, whichever instance had them.
            "dynamic_batching": {"preserve_ordering": True},
            "parameters": _parameters({**tokenizer, "acknowledgements": acknowledgements}),
        },
    }


def _steps(
    engine: str, names: Mapping[str, str], outputs: list[str], counts: list[str]
) -> list[dict[str, Any]]:
    """Return the ensemble's three steps; what passes between them has an underscore before it."""

    def inner(name: str) -> str:
        return f"_{name}"

    carried = [name for name in wire.POSTPROCESSING if name in outputs]
    prepared = dict(wire.PREPROCESSED)
    if "generation" in outputs:
        prepared |= [wire.RELAYED]
    return [
        {
            "model_name": "preprocessing",
            "model_version": -1,
            "input_map": {theirs: own for own, theirs in wire.PREPROCESSING.items()},
            "output_map": {name: inner(name) for name in prepared},
        },
        {
            "model_name": engine,
            "model_version": -1,
            "input_map": {
                **{theirs: inner(own) for own, theirs in prepared.items()},
                **{theirs: own for own, theirs in names.items()},
            },
            "output_map": {
                **{name: inner(name) for name in carried},
                **{name: name for name in counts},
            },
        },
        {
            "model_name": "postprocessing",
            "model_version": -1,
            "input_map": {wire.POSTPROCESSING[name]: inner(name) for name in carried},
            "output_map": {"OUTPUT": "text_output"},
        },
    ]


def _engine_inputs(inputs: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        _tensor("input_ids", "TYPE_INT32", [-1], ragged=True),
        _tensor("input_lengths", "TYPE_INT32", [1]),
        _tensor("request_output_len", "TYPE_INT32", [1]),
        _tensor("end_id", "TYPE_INT32", [1], optional=True),
        _tensor("pad_id", "TYPE_INT32", [1], optional=True),
        _tensor("stop_words_list", "TYPE_INT32", [2, -1], optional=True, ragged=True),
        _tensor("bad_words_list", "TYPE_INT32", [2, -1], optional=True, ragged=True),
        _tensor("stop", "TYPE_BOOL", [1], optional=True),
        *(_tensor(name, kind, [1], optional=True) for kind, name in inputs.values()),
    ]


def _python(name: str, batch: int, *, instances: Value, decoupled: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": batch,
        "model_transaction_policy": {"decoupled": decoupled},
        "instance_group": [{"count": instances, "kind": "KIND_CPU"}],
    }


def _tensor(
    name: str, kind: str, dims: list[int], *, optional: bool = False, ragged: bool = False
) -> dict[str, Any]:
    tensor: dict[str, Any] = {"name": name, "data_type": kind, "dims": dims}
    if optional:
        tensor["optional"] = True
    if ragged:  # requests of unlike lengths may share a batch
        tensor["allow_ragged_batch"] = True
    return tensor


def _parameters(content: Mapping[str, Value]) -> dict[str, dict[str, str]]:
    return {name: {"string_value": _text(value)} for name, value in content.items()}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Models of ours → (file of this folder, class).
_CHAIN = {
    "preprocessing": ("preprocessing", "Preprocessing"),
    "postprocessing": ("postprocessing", "Postprocessing"),
    "tensorrt_llm_bls": ("bls", "Bls"),
}


def _chain_files() -> dict[str, str]:
    files: dict[str, str] = {}
    for model, (module, name) in _CHAIN.items():
        files |= _python_file(model, module, name)
    return files


def _python_file(model: str, module: str, name: str) -> dict[str, str]:
    line = f"from llmdyno.fronts._triton.{module} import {name} as TritonPythonModel"
    return {f"{model}/1/model.py": f"{line}  # noqa: F401\n"}
