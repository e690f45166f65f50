"""The common part of engines that serve Hugging Face checkpoints: models, flags, GPUs."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, default, show

# The file that tells a model's folder: transformers', Mistral's, LMDeploy's.
_DESCRIPTIONS = ("config.json", "params.json", "triton_models")
_STORES = ("s3://", "gs://", "az://")  # addresses that some engines load from
# Quantised weights are computed in 16 bits; the kernels of these two have float16 alone.
_FLOAT16_ONLY = ("awq", "gptq")
_FLOAT32 = ("float", "float32")


def check_model(model: str, config: Config, shards: str) -> None:
    """Refuse what is neither a model's folder nor a hub id, or what the GPUs cannot share.

    Args:
        model: as the user named it.
        config: of the engine.
        shards: the knob that says how many GPUs share each layer.

    Raises:
        UsageError: says what would be right.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise UsageError(f"--model {model}: there is no such folder.")
        if re.fullmatch(r"[\w.-]+/[\w.-]+", model) is None and not model.startswith(_STORES):
            raise UsageError(f"--model {model}: give a folder or a hub id such as org/name.")
        return
    if not any((folder / name).exists() for name in _DESCRIPTIONS) and not any(
        folder.glob("*.gguf")
    ):
        raise UsageError(f"--model {model}: the folder has no config.json, so it is no model.")
    heads, count = _heads(folder / "config.json"), config.get(shards, 1)
    if heads is not None and isinstance(count, int) and heads % count:
        raise UsageError(
            f"{shards}={count}: the model's {heads} attention heads cannot be shared equally by so"
            f" many GPUs; set a divisor of {heads}."
        )


def _heads(path: Path) -> int | None:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
        heads = document.get("text_config", document).get("num_attention_heads")
    except (OSError, ValueError, AttributeError):
        return None  # the engine will judge it
    return heads if isinstance(heads, int) else None


def check_precision(config: Config) -> None:
    """Refuse a dtype that quantised weights are not computed in, by vLLM's and SGLang's names.

    Raises:
        UsageError: says which would be right.
    """
    quantization, dtype = config.get("quantization"), config.get("dtype")
    if quantization is None or dtype is None:
        return
    if dtype in _FLOAT32 or (dtype == "bfloat16" and quantization in _FLOAT16_ONLY):
        right = "float16" if quantization in _FLOAT16_ONLY else "bfloat16 or float16"
        raise UsageError(
            f"dtype={show(dtype)} cannot be used with quantization={show(quantization)}: set"
            f" {right}, or leave dtype out."
        )


def gpus(config: Config, *sizes: str) -> int:
    """Return how many GPUs a server takes: the product of the knobs that share work out."""
    return math.prod(int(config.get(size, 1)) for size in sizes)


def flags(
    config: Config,
    knobs: tuple[Knob, ...],
    *,
    renamed: Mapping[str, str] | None = None,
    negatable: bool = False,
) -> tuple[str, ...]:
    """Write a config as flags: --knob-name value, and a bare --knob-name for true.

    A false that is the default needs no flag; another one is --no-knob-name where the server has
    such flags (`negatable`).
    """
    by_name = {knob.name: knob for knob in knobs}
    words: list[str] = []
    for name, value in config.items():
        flag = (renamed or {}).get(name, "--" + name.replace("_", "-"))
        if not isinstance(value, bool):
            words += [flag, show(value)]
        elif value:
            words.append(flag)
        elif default(by_name[name], None) is not False:
            assert negatable, f"{name}: a switch that is on by default cannot be turned off"
            words.append(f"--no-{flag[2:]}")
    return tuple(words)
