"""Parameters beside the decoder: the encoder of pictures or sound, and what joins it to it.

They lie in the GPU's memory; no token of an answer passes them. The sums are those of a
transformer's encoder: four square matrices of attention and a net a layer, patches, positions.
"""

from collections.abc import Mapping
from typing import Any

_PARTS = ("vision_config", "audio_config", "vision_tower_config", "vision_encoder")
_GATED = frozenset(("pixtral", "qwen2_5_vl", "qwen2_5_vl_vision", "glm4v", "mimovl"))
_COLOURS = 3
# Gemma 3n's encoders, whose sizes its config leaves to their own code: what the published counts of
# both models (5.44 and 7.85 billion) have beside the sum of their decoders.
_GEMMA_3N = 984_000_000


def tower_params(config: Mapping[str, Any], hidden: int) -> int:
    """Return the parameters of all encoders beside a decoder whose vectors have `hidden` numbers.

    An encoder whose sizes are not said counts nothing.
    """
    if config.get("model_type") == "gemma3n":
        return _GEMMA_3N
    parts = [config[name] for name in _PARTS if isinstance(config.get(name), Mapping)]
    return sum(_encoder(part, config, hidden) for part in parts)


def _encoder(part: Mapping[str, Any], around: Mapping[str, Any], hidden: int) -> int:
    # Qwen2-VL calls the width "embed_dim", and "hidden_size" what comes out.
    width = _first(part, "embed_dim", "hidden_size", "d_model", "width")
    layers = _first(part, "depth", "num_hidden_layers", "encoder_layers", "layers")
    layers += _first(part, "num_global_layers")
    net = _first(part, "intermediate_size", "encoder_ffn_dim")
    net = net or round((_number(part.get("mlp_ratio")) or 4) * width)
    gated = str(part.get("model_type")) in _GATED or part.get("hidden_act") == "silu"
    each = 4 * width * width + (3 if gated else 2) * width * net
    patch = _first(part, "patch_size")
    patches = _COLOURS * patch * patch * max(1, _first(part, "temporal_patch_size")) * width
    merges = _first(part, "spatial_merge_size") or _first(around, "spatial_merge_size")
    merged = width * max(1, merges) ** 2
    if part.get("out_hidden_size") or part.get("embed_dim"):  # Qwen: a net on merged patches
        deep = part.get("deepstack_visual_indexes")
        times = 1 + (len(deep) if isinstance(deep, list) else 0)
        joins = times * (merged * merged + merged * hidden)
    else:
        joins = width * merged * (merges > 1) + width * hidden
        joins += hidden * hidden if around.get("model_type") not in ("gemma3", "paligemma") else 0
    side = _first(part, "image_size") // patch if patch else 0
    return layers * each + patches + side * side * width + joins if layers and width else 0


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((round(n) for name in names if (n := _number(config.get(name)))), 0)


def _number(value: object) -> float:
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if whole and 0 < value < 1e6 else 0.0  # type: ignore[arg-type, operator]
