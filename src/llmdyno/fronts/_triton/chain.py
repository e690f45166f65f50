"""The models around an engine's: text → token ids → text, in an ensemble and in a Python model.

preprocessing, postprocessing, ensemble and tensorrt_llm_bls, with the names that clients use: those
of TensorRT-LLM's own ensemble. The configs are plain mappings in the shape of Triton's ModelConfig.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmdyno.fronts._triton import wire
from llmdyno.knobs import Config, Value

# Ours in a model repository; the public name of an input is that of TensorRT-LLM's own ensemble.
SAMPLING: Mapping[str, tuple[str, str]] = {
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
OLDER = {
    "min_length": ("TYPE_INT32", "min_length"),
    "random_seed": ("TYPE_UINT64", "random_seed"),
}
NEWER = {
    "min_tokens": ("TYPE_INT32", "min_tokens"),
    "seed": ("TYPE_UINT64", "seed"),
    "return_num_input_tokens": ("TYPE_BOOL", "return_num_input_tokens"),
    "return_num_output_tokens": ("TYPE_BOOL", "return_num_output_tokens"),
}
RENAMED_IN = (0, 17)
_TEXT_INPUTS = {
    "text_input": "TYPE_STRING",
    "max_tokens": "TYPE_INT32",
    "bad_words": "TYPE_STRING",
    "stop_words": "TYPE_STRING",
    "end_id": "TYPE_INT32",
    "pad_id": "TYPE_INT32",
}
_LISTS = {"bad_words", "stop_words"}


def chain(
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
            tensor(name, kind, [-1] if name in _LISTS else [1], optional=name != "text_input")
            for name, kind in _TEXT_INPUTS.items()
        ),
        *(tensor(name, kind, [1], optional=True) for name, (kind, _) in inputs.items()),
    ]
    shown = [
        tensor("text_output", "TYPE_STRING", [-1]),
        *(tensor(name, "TYPE_INT32", [1]) for name in counts),
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
            **python_model(
                "tensorrt_llm_bls",
                batch,
                decoupled=decoupled,
                instances=front["bls_instance_count"],
            ),
            "input": public,
            "output": shown,
            "parameters": parameters(
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
            **python_model("preprocessing", batch, instances=front["preprocessing_instance_count"]),
            "input": [
                tensor(
                    wire.PREPROCESSING[name],
                    kind,
                    [-1] if name in _LISTS else [1],
                    optional=name != "text_input",
                    ragged=name in _LISTS,
                )
                for name, kind in _TEXT_INPUTS.items()
            ],
            "output": [
                tensor(name, "TYPE_INT32", [2, -1] if name.endswith("WORDS_IDS") else [-1])
                for name in (*wire.PREPROCESSED, wire.RELAYED[0])
            ],
            "dynamic_batching": {},
            "parameters": parameters({**tokenizer, "add_special_tokens": True}),
        },
        "postprocessing": {
            **python_model(
                "postprocessing", batch, instances=front["postprocessing_instance_count"]
            ),
            "input": [
                tensor("TOKENS_BATCH", "TYPE_INT32", [-1, -1], ragged=True),
                tensor("SEQUENCE_LENGTH", "TYPE_INT32", [-1]),
                tensor("CONTEXT_LENGTH", "TYPE_INT32", [1], optional=True),
                tensor("GENERATION", "TYPE_INT32", [1], optional=True),
            ],
            "output": [tensor("OUTPUT", "TYPE_STRING", [-1])],
            # The pieces of one stream leave in the order they came in, whichever instance had them.
            "dynamic_batching": {"preserve_ordering": True},
            "parameters": parameters({**tokenizer, "acknowledgements": acknowledgements}),
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


def engine_inputs(inputs: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the inputs of an engine model: what preprocessing makes, and what a client may ask."""
    return [
        tensor("input_ids", "TYPE_INT32", [-1], ragged=True),
        tensor("input_lengths", "TYPE_INT32", [1]),
        tensor("request_output_len", "TYPE_INT32", [1]),
        tensor("end_id", "TYPE_INT32", [1], optional=True),
        tensor("pad_id", "TYPE_INT32", [1], optional=True),
        tensor("stop_words_list", "TYPE_INT32", [2, -1], optional=True, ragged=True),
        tensor("bad_words_list", "TYPE_INT32", [2, -1], optional=True, ragged=True),
        tensor("stop", "TYPE_BOOL", [1], optional=True),
        *(tensor(name, kind, [1], optional=True) for kind, name in inputs.values()),
    ]


def python_model(
    name: str, batch: int, *, instances: Value, decoupled: bool = False
) -> dict[str, Any]:
    """Return the beginning of the config of a Python model of ours."""
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": batch,
        "model_transaction_policy": {"decoupled": decoupled},
        "instance_group": [{"count": instances, "kind": "KIND_CPU"}],
    }


def tensor(
    name: str, kind: str, dims: list[int], *, optional: bool = False, ragged: bool = False
) -> dict[str, Any]:
    """Return a tensor as a ModelConfig describes it."""
    tensor: dict[str, Any] = {"name": name, "data_type": kind, "dims": dims}
    if optional:
        tensor["optional"] = True
    if ragged:  # requests of unlike lengths may share a batch
        tensor["allow_ragged_batch"] = True
    return tensor


def parameters(content: Mapping[str, Value]) -> dict[str, dict[str, str]]:
    """Return parameters as a ModelConfig has them: all values are text."""
    return {name: {"string_value": _text(value)} for name, value in content.items()}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Models of ours → (file of this folder, class).
CHAIN = {
    "preprocessing": ("preprocessing", "Preprocessing"),
    "postprocessing": ("postprocessing", "Postprocessing"),
    "tensorrt_llm_bls": ("bls", "Bls"),
}


def chain_files() -> dict[str, str]:
    """Return the one-line files of the models of the chain."""
    files: dict[str, str] = {}
    for model, (module, name) in CHAIN.items():
        files |= python_file(model, module, name)
    return files


def python_file(model: str, module: str, name: str) -> dict[str, str]:
    """Return the file of a Python model of ours, which imports its class from here."""
    line = f"from llmdyno.fronts._triton.{module} import {name} as TritonPythonModel"
    return {f"{model}/1/model.py": f"{line}  # noqa: F401\n"}
