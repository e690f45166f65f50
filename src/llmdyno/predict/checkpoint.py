"""In what numbers a checkpoint keeps its weights: its quantization_config, in bytes a weight."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmdyno.predict.decoder import BITS_A_BYTE

# Engines load checkpoints of 32 bits in 16 (vLLM, SGLang: dtype "auto").
_WIDE_BYTES = 2.0
_GROUP = 128  # weights that share a scale, where a method with groups does not say it
_SCALE_BITS = 16


class Kept(msgspec.Struct, frozen=True):
    """How weights are kept: bytes of one in the layers, of an expert's (0: the same); precision.

    `method` is the checkpoint's quant_method.
    """

    weight_bytes: float = _WIDE_BYTES
    expert_bytes: float = 0.0
    cache: str = ""  # the format of keys and values that it is made for; empty: as it computes
    method: str = ""
    computes: str = ""  # what products of inputs that are quantised, too, are made in


def kept(quantised: object, *, experts: bool, layers: int) -> Kept:
    """Return how a checkpoint's weights are kept.

    Args:
        quantised: its quantization_config; anything but an object: there is none.
        experts: whether the model has some.
        layers: of the model.
    """
    if not isinstance(quantised, Mapping):
        return Kept()
    method = str(quantised.get("quant_method", "")).lower()
    size = _bits(quantised, method) / BITS_A_BYTE
    # Attention as it was: then only experts are small (gpt-oss, Kimi K2, many NVFP4 checkpoints).
    if experts and (method == "mxfp4" or _leaves_attention(quantised, layers)):
        return Kept(expert_bytes=size, cache=_cache(quantised), method=method)
    return Kept(
        weight_bytes=size,
        cache=_cache(quantised),
        method=method,
        computes=_computes(quantised, method),
    )


def _cache(quantised: Mapping[str, Any]) -> str:
    """Return the format of keys and values that a checkpoint has scales for; empty: none."""
    scheme = quantised.get("kv_cache_scheme")
    if isinstance(scheme, Mapping) and scheme.get("num_bits") == BITS_A_BYTE:
        return "fp8" if scheme.get("type", "float") == "float" else ""
    return "fp8" if str(quantised.get("kv_cache_quant_algo")).upper() == "FP8" else ""


def _bits(quantised: Mapping[str, Any], method: str) -> float:
    """Return the bits of a weight, its share of scales and zeros included."""
    weights = next(_groups(quantised), quantised)
    bits = next(
        (weights[key] for key in ("bits", "w_bit", "weight_bits", "num_bits") if _is(weights, key)),
        0,
    )
    said = _said(quantised, method)
    if not bits:
        small = quantised.get("load_in_4bit") or quantised.get("_load_in_4bit")
        four = small or any(word in said for word in ("fp4", "awq", "gptq", "int4", "w4"))
        bits = 4 if four else 8
    if bits == 4 and ("fp4" in said or str(weights.get("type")) == "float"):
        return 4.25 if "mxfp4" in said or weights.get("group_size") == 32 else 4.5
    if method == "bitsandbytes":  # a scale of 32 bits for 64 weights, or these in 8 bits
        nested = quantised.get("bnb_4bit_use_double_quant")
        return bits + (BITS_A_BYTE if nested else 32) / 64 if bits == 4 else bits
    grouped = method in ("awq", "gptq") or bits < BITS_A_BYTE
    group = weights.get("group_size", _GROUP if grouped else 0)
    if not isinstance(group, int) or group <= 0:
        return float(bits)
    zeros = bits if method in ("awq", "gptq") else 0  # GPTQ writes them even if all are the same
    return float(bits + (_SCALE_BITS + zeros) / group)


def _quark(quantised: Mapping[str, Any]) -> str:
    """Return the format of weights that AMD's Quark says of all layers; empty: it is another."""
    whole = quantised.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, Mapping) else None
    if not isinstance(weight, Mapping):
        return ""
    return f"{'mx' if weight.get('group_size') == 32 else ''}{weight.get('dtype', '')}"


def _computes(quantised: Mapping[str, Any], method: str) -> str:
    groups = quantised.get("config_groups")
    if isinstance(groups, Mapping) and method == "compressed-tensors":
        inputs = [g.get("input_activations") for g in groups.values() if isinstance(g, Mapping)]
        if not any(isinstance(one, Mapping) for one in inputs):
            return "fp8" if "float-quantized" in str(quantised.get("format")) else ""
    weights = next(_groups(quantised), quantised)
    said = _said(quantised, method)
    if "fp4" in said or (weights.get("num_bits") == 4 and weights.get("type") == "float"):
        return "" if "mxfp4" in said else "fp4"
    if "fp8" in said or (weights.get("num_bits") == 8 and weights.get("type") == "float"):
        return "fp8"
    return "int8" if weights.get("num_bits") == 8 and weights.get("type") == "int" else ""


def _groups(quantised: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what is said of groups of weights (compressed-tensors, ModelOpt)."""
    groups = quantised.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and _is(weights, "num_bits"):
            yield weights


# Attention of the decoder's own kind, in names of modules or patterns of them; a name without a
# layer's number is of all layers.
_ATTENTION = re.compile(r"^(?!.*(?:visual|vision|audio|linear_attn)).*attn")
_OF_LAYER = re.compile(r"\.(\d+)\.")


def _leaves_attention(quantised: Mapping[str, Any], layers: int) -> bool:
    """Whether the attention of all layers is left as it was."""
    for key in ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers"):
        names = quantised.get(key)
        if isinstance(names, list):
            left = [name for name in names if isinstance(name, str) and _ATTENTION.search(name)]
            numbered = [_OF_LAYER.search(name) for name in left]
            if None in numbered or len({each[1] for each in numbered if each}) >= layers:
                return True
    return False


def _said(quantised: Mapping[str, Any], method: str) -> str:
    words = (method, *(quantised.get(key, "") for key in ("quant_algo", "fmt", "format")))
    words = (*words, _quark(quantised))
    return " ".join(map(str, words)).lower().replace("e4m3", "fp8")


def _is(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 16
