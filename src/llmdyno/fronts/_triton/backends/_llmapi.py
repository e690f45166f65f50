"""NVIDIA's Python model on tensorrt_llm.LLM (from 1.3 on), behind an ensemble of ours.

The ensemble gives it the names that clients use. Not run by us.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno.errors import ServerError
from llmdyno.fronts._triton.chain import tensor
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config

# Where the container tritonserver:YY.MM-trtllm-python-py3 has the model, by NVIDIA's tutorial on
# speculative decoding, which copies it from there.
_SOURCE = Path("/app/all_models/llmapi/tensorrt_llm/1")

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
    # Without it the prompt stands in front of the answer. Our client sends it where it is declared.
    "sampling_param_exclude_input_from_output": (
        "TYPE_BOOL",
        "sampling_param_exclude_input_from_output",
    ),
}
_LLMAPI_LISTS = {"text_input", "stop_words"}


def repository(model: str, engine: Config, front: Config, python: Mapping[str, str]) -> Repository:
    """Return the repository of NVIDIA's Python model; `python` is its code, file by file.

    The model has names of its own for what a client may ask for, hence the ensemble.
    """
    decoupled = bool(front["decoupled_mode"])

    def inputs(at: int) -> list[dict[str, Any]]:
        return [
            tensor(
                own if at == 0 else theirs,
                kind,
                [-1] if own in _LLMAPI_LISTS else [1],
                optional=own != "text_input",
            )
            for own, (kind, theirs) in _LLMAPI.items()
        ]

    text = [tensor("text_output", "TYPE_STRING", [-1])]
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


def code() -> dict[str, str]:
    """Return the code of NVIDIA's model, file by file.

    Raises:
        ServerError: it is not on this machine.
    """
    try:
        return {name: (_SOURCE / name).read_text("utf-8") for name in ("model.py", "helpers.py")}
    except OSError as error:
        raise ServerError(
            "missing-library",
            f"{_SOURCE} cannot be read ({error.strerror}): NVIDIA's Triton container for"
            " TensorRT-LLM has it (missing-library).",
        ) from error


def copy_command(models: Path) -> str:
    """Return the shell command that copies NVIDIA's code into a repository."""
    return f"cp -u {_SOURCE}/*.py {models}/tensorrt_llm/1/"
