"""Any engine with an OpenAI server of its own, behind a Triton that has no backend for it.

The repository has one model, passage.py, which passes requests on to that server and streams its
pieces. Its config is written without Triton's schema, so that it can be where no package can be
installed; a test holds it against the schema.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmdyno.engines import Launch
from llmdyno.errors import UsageError
from llmdyno.fronts import _triton
from llmdyno.fronts._triton.chain import parameters, python_model, tensor
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config

MODEL = "passage"
# Settings of the front that mean nothing here, and the only value that they may have.
_MEANINGLESS = {"decoupled_mode": True, "accumulate_tokens": False, "max_queue_size": 0}

_INPUTS = {
    "max_tokens": "TYPE_INT32",
    "min_tokens": "TYPE_INT32",
    "min_length": "TYPE_INT32",
    "temperature": "TYPE_FP32",
    "top_p": "TYPE_FP32",
    "top_k": "TYPE_INT32",
    "seed": "TYPE_UINT64",
    "random_seed": "TYPE_UINT64",
    "presence_penalty": "TYPE_FP32",
    "frequency_penalty": "TYPE_FP32",
    "repetition_penalty": "TYPE_FP32",
    "ignore_eos": "TYPE_BOOL",
    "stream": "TYPE_BOOL",
    "return_num_input_tokens": "TYPE_BOOL",
    "return_num_output_tokens": "TYPE_BOOL",
}


def check(engine: str, endpoint: str, front: Config) -> None:
    """Refuse an engine that cannot be passed on to, and settings that would mean nothing.

    Args:
        engine: its name.
        endpoint: the wire protocol of its own server.
        front: settings of the front.

    Raises:
        UsageError: says what would be right.
    """
    if not endpoint.startswith("openai"):
        raise UsageError(
            f"--front triton: passes requests on to an engine's OpenAI server, but --engine"
            f" {engine} speaks {endpoint}: use --front native."
        )
    for name, only in _MEANINGLESS.items():
        if front.get(name, only) != only:
            raise UsageError(
                f"{name}: cannot be set where Triton passes requests on to {engine}'s own server;"
                " leave it out."
            )


def repository(inner: Launch, front: Config) -> Repository:
    """Return the repository that passes on to the server which `inner` starts.

    Args:
        inner: of the engine's own server.
        front: settings of the front, its defaults included.
    """
    config = {
        **python_model(MODEL, 0, decoupled=True, instances=front["postprocessing_instance_count"]),
        "input": [
            tensor("text_input", "TYPE_STRING", [1]),
            tensor("stop_words", "TYPE_STRING", [-1], optional=True),
            *(tensor(name, kind, [1], optional=True) for name, kind in _INPUTS.items()),
        ],
        "output": [
            tensor("text_output", "TYPE_STRING", [1]),
            tensor("num_input_tokens", "TYPE_INT32", [1]),
            tensor("num_output_tokens", "TYPE_INT32", [1]),
        ],
        "parameters": parameters({"url": inner.url, "model": inner.model}),
    }
    model = (Path(_triton.__file__).parent / "passage.py").read_text("utf-8")
    return Repository(
        files={
            f"{MODEL}/1/model.py": model,
            f"{MODEL}/config.pbtxt": "\n".join((*_lines(config), "")),
        },
        model=MODEL,
    )


def _lines(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a ModelConfig as protobuf's text; its only map is `parameters`."""
    for name, value in config.items():
        if name == "parameters":
            for key, inner in value.items():
                yield f"{name} {{ key: {json.dumps(key)} value {{ {' '.join(_lines(inner))} }} }}"
            continue
        for one in value if isinstance(value, list) else [value]:
            yield (
                f"{name} {{ {' '.join(_lines(one))} }}"
                if isinstance(one, dict)
                else (f"{name}: {_scalar(one)}")
            )


def _scalar(value: Any) -> str:
    # Names of an enumeration stand bare; json's text is protobuf's, too.
    is_name = isinstance(value, str) and value.startswith(("TYPE_", "KIND_"))
    return str(value) if is_name else json.dumps(value, ensure_ascii=False)
