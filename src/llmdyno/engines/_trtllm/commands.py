"""The commands that build a TensorRT-LLM engine, and the document that `trtllm-serve` reads.

The checkpoint scripts are no part of the package: they lie in the examples folder of NVIDIA's
repository and of its containers. $TENSORRT_LLM_EXAMPLES says where; without it they are looked for
in examples/ below the folder that the build runs in, as in a clone.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno import store
from llmdyno.engines import Step
from llmdyno.engines._trtllm.build_knobs import BUILD, SHARED
from llmdyno.engines._trtllm.check import WEIGHT_ONLY
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Value, at_least, show

CHECKPOINT = "checkpoint"
ENGINE = "engine"
EXAMPLES = "TENSORRT_LLM_EXAMPLES"
_REORGANISED = "0.19"  # examples/llama became examples/models/core/llama
# Whose convert_checkpoint.py takes a model of that type (model_type of its config.json).
FAMILIES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen",
    "qwen2_moe": "qwen",
    "qwen3": "qwen",
    "gemma": "gemma",
    "gemma2": "gemma",
    "phi": "phi",
    "phi3": "phi",
}
_FORMATS: Mapping[Value, str] = {"int4_weight_only": "int4", "int8_weight_only": "int8"}
# Of the checkpoint rather than of trtllm-build.
_CONVERTED = {"dtype", "tensor_parallel_size", "pipeline_parallel_size", "version", "backend"}


def steps(model: str, config: Config, folder: Path, version: str) -> tuple[Step, ...]:
    """Return the conversion (or quantisation) and the build, which fill `folder`."""
    checkpoint = str(folder / CHECKPOINT)
    return (
        _make_checkpoint(model, config, checkpoint, version),
        Step(
            what="build the engine",
            argv=(
                *("trtllm-build", "--checkpoint_dir", checkpoint),
                *("--output_dir", str(folder / ENGINE)),
                *_build_flags(config),
            ),
        ),
    )


def family(model: str) -> str:
    """Return the folder of examples that converts this model.

    Raises:
        UsageError: it is no model folder, or of a type that we have no script for.
    """
    path = Path(model).expanduser() / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8-sig")).get("model_type")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--model {model}: backend=tensorrt converts a local folder with a config.json;"
            " download the model first."
        ) from error
    if kind not in FAMILIES:
        raise UsageError(
            f"--model {model}: we know no converter for model_type '{kind}'; known:"
            f" {', '.join(FAMILIES)}. backend=pytorch needs none."
        )
    return FAMILIES[kind]


def document(config: Config, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the settings as `trtllm-serve` nests them, with numbers and truths as such."""
    nested: dict[str, Any] = {}
    for name, value in config.items():
        path = paths.get(name)
        if path is None:
            continue
        place = nested
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = _typed(path[-1], value)
    return nested


def written(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path and the text of the file with these settings; its name tells its content.

    JSON, which every YAML reader takes: typed, and no library for writing YAML is needed.
    """
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return str(store.cache_folder("launches") / f"tensorrt-llm-{digest}.yaml"), text


def _make_checkpoint(model: str, config: Config, checkpoint: str, version: str) -> Step:
    folder = os.environ.get(EXAMPLES, "examples")
    place = (
        *("--model_dir", model, "--output_dir", checkpoint),
        *_flags(config, {"dtype": "--dtype"}),
        *_flags(config, {"tensor_parallel_size": "--tp_size"}),
        *_flags(config, {"pipeline_parallel_size": "--pp_size"}),
    )
    quantization = config.get("quantization")
    cache = config.get("kv_cache_quantization")
    if quantization in {None, *WEIGHT_ONLY} and cache != "fp8":
        models = f"{folder}/models/core" if at_least(version, _REORGANISED) else folder
        weights = (
            ("--use_weight_only", "--weight_only_precision", _FORMATS[quantization])
            if quantization is not None
            else ()
        )
        return Step(
            what="convert the checkpoint",
            argv=(
                *("python3", f"{models}/{family(model)}/convert_checkpoint.py", *place),
                *weights,
                *(("--int8_kv_cache",) if cache == "int8" else ()),
            ),
        )
    return Step(
        what="quantize the checkpoint",
        argv=(
            *("python3", f"{folder}/quantization/quantize.py", *place),
            *("--qformat", show(quantization or "full_prec")),
            *_flags(config, {"kv_cache_quantization": "--kv_cache_dtype"}),
            *_flags(config, {"awq_block_size": "--awq_block_size", "calib_size": "--calib_size"}),
        ),
    )


def _build_flags(config: Config) -> tuple[str, ...]:
    # One beam is what the engine has anyhow; the knob is a key of the template too.
    left_out = _CONVERTED | ({"max_beam_width"} if config.get("max_beam_width") == 1 else set())
    names = [knob.name for knob in (*BUILD, *SHARED) if knob.name not in left_out]
    flags = _flags(config, {name: f"--{name}" for name in names})
    gpus = int(config.get("tensor_parallel_size", 1)) * int(config.get("pipeline_parallel_size", 1))
    return (*flags, "--workers", str(gpus)) if gpus > 1 else flags


def _flags(config: Config, flags: Mapping[str, str]) -> tuple[str, ...]:
    """Return a flag and its value for each knob of these that is set."""
    words: list[str] = []
    for name, flag in flags.items():
        if name in config:
            value = config[name]
            switch = "enable" if value else "disable"
            words += [flag, switch if isinstance(value, bool) else show(value)]
    return tuple(words)


def _typed(key: str, value: Value) -> Any:
    if key in {"max_attention_window", "batch_sizes", "prefill_capture_num_tokens"}:
        return [int(part) for part in str(value).split(",")]
    if key == "use_kv_cache_manager_v2":  # auto, or a truth
        return {"true": True, "false": False}.get(str(value), value)
    # The template writes policies in small letters, the document in capitals.
    return value.upper() if key == "capacity_scheduler_policy" and isinstance(value, str) else value
