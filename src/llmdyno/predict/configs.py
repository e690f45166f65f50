"""A model's config.json, in the spellings that hub configs use, into a Shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import files
from llmdyno.errors import UsageError
from llmdyno.predict.decoder import BITS_A_BYTE, Shape

# Where multimodal models keep what their language part is made of.
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "language_model")
_SIZE_MAX = 10**9  # larger is no size of a model
# Families whose feed-forward net has two matrices, no gate.
_UNGATED = frozenset(
    "gpt2 gpt_neo gpt_neox gptj gpt_bigcode opt bloom falcon phi mpt starcoder2 stablelm_alpha"
    " nemotron".split()
)
# Families that share the table of tokens with the logits unless they say otherwise: their
# config.json leaves out what is the family's default.
_TIED = frozenset("gemma gemma2 gemma3 gemma3_text gpt2 opt bloom falcon mpt".split())


def read_config(path: Path, name: str) -> Shape:
    """Read a config.json; `name` is what the shape is called.

    Raises:
        UsageError: it cannot be read, or lacks a size; names the file and the key.
    """
    try:
        raw = msgspec.json.decode(files.text(path))
    except (files.FileError, msgspec.DecodeError) as error:
        raise UsageError(f"--model {path}: cannot be read as JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise UsageError(f"--model {path}: must be a JSON object with the model's sizes.")
    return shape_from(raw, name, str(path))


def shape_from(raw: Mapping[str, Any], name: str, where: str = "config.json") -> Shape:
    """Return the shape that a config's keys describe.

    Raises:
        UsageError: a size is missing or no whole number above 0; names `where` and the key.
    """
    keys = _Keys(dict(raw), where)
    hidden = keys.size("hidden_size", "n_embd", "d_model", "dim", "model_dim")
    heads = keys.size("num_attention_heads", "n_head", "n_heads", "num_heads")
    latent = keys.whole("kv_lora_rank")
    default_dim = hidden // heads
    head_dim = keys.whole("qk_nope_head_dim") if latent else 0
    layers = keys.size("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    family = str(keys.raw.get("model_type", ""))
    intermediate = keys.whole(
        *("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner"),
        *("ffn_dim", "ffn_hidden_dim", "hidden_dim"),
    )
    tied = keys.raw.get("tie_word_embeddings")
    weight_bytes, expert_bytes = _weights(keys.raw, raw)
    window, window_layers = _window(keys, layers)
    return Shape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(keys, heads),
        head_dim=head_dim or keys.whole("head_dim", "kv_channels") or default_dim,
        intermediate=intermediate or 4 * hidden,
        vocab=keys.size("vocab_size", "padded_vocab_size", "n_vocab"),
        tied=family in _TIED if tied is None else bool(tied),
        kv_lora_rank=latent,
        rope_dim=keys.whole("qk_rope_head_dim"),
        q_lora_rank=keys.whole("q_lora_rank"),
        value_dim=keys.whole("v_head_dim"),
        window=window,
        window_layers=window_layers,
        matrices=2 if family in _UNGATED else 3,
        weight_bytes=weight_bytes,
        expert_bytes=expert_bytes,
        context=keys.whole("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
        **_experts(keys, layers),
    )


class _Keys:
    """A config's keys, those of its language part over those around it."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.where = where
        self.raw = raw
        while part := next((p for p in _TEXT_PARTS if isinstance(self.raw.get(p), dict)), None):
            inner = self.raw[part]
            self.raw = {key: value for key, value in self.raw.items() if key != part} | inner

    def whole(self, *names: str) -> int:
        """Return the first of these keys that is there as a whole number; 0: none of them."""
        for name in names:
            value = self.raw.get(name)
            if value is None:
                continue
            if isinstance(value, list) and value and all(one == value[0] for one in value):
                value = value[0]  # one a layer
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _SIZE_MAX:
                raise UsageError(
                    f"--model {self.where}: {name} is {value!r}; it must be a whole number."
                )
            return value
        return 0

    def size(self, *names: str) -> int:
        """Return a size that must be there."""
        value = self.whole(*names)
        if value < 1:
            raise UsageError(
                f"--model {self.where}: has no {names[0]} above 0, which a model's shape needs."
            )
        return value


def _kv_heads(keys: _Keys, heads: int) -> int:
    found = keys.whole(
        *("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv", "n_kv_heads")
    )
    if found:
        return found
    return 1 if keys.raw.get("multi_query") is True else heads


def _experts(keys: _Keys, layers: int) -> dict[str, int]:
    """Return the experts, in the spellings of Mixtral, Qwen, DeepSeek, Llama 4, gpt-oss, Phi."""
    experts = keys.whole("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
    if not experts:
        return {}
    each = keys.whole("moe_intermediate_size", "expert_ffn_hidden_size")
    # Without a size of their own they have that of the net; Llama 4 calls the net's "_mlp".
    each = each or keys.size("intermediate_size")
    shared = keys.whole("shared_expert_intermediate_size") or each * keys.whole(
        "n_shared_experts", "num_shared_experts"
    )
    if keys.raw.get("intermediate_size_mlp"):
        shared = each  # Llama 4 has one beside the routed ones
    active = keys.whole("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k") or 1
    step = keys.whole("interleave_moe_layer_step", "moe_layer_freq", "decoder_sparse_step") or 1
    first = keys.whole("first_k_dense_replace")
    only_dense = keys.raw.get("mlp_only_layers")
    dense = first + (layers - first) - (layers - first) // step
    dense += len(only_dense) if isinstance(only_dense, list) else 0
    return {
        "experts": experts,
        "experts_active": min(active, experts),
        "moe_intermediate": each,
        "shared_intermediate": shared,
        "dense_layers": min(layers, dense),
    }


def _window(keys: _Keys, layers: int) -> tuple[int, int]:
    """Return how far back attention reaches, and in how many layers; 0, 0: as far as there is."""
    if keys.raw.get("use_sliding_window") is False:
        return 0, 0
    window = keys.whole("sliding_window", "attention_chunk_size", "sliding_window_size")
    if not window:
        return 0, 0
    types = keys.raw.get("layer_types")
    if isinstance(types, list) and types:
        local = sum(kind in ("sliding_attention", "chunked_attention") for kind in types)
        return (window, local) if local else (0, 0)
    every = keys.whole("sliding_window_pattern")
    if not every and keys.raw.get("model_type") in ("gemma3", "gemma3_text"):
        every = 6
    if not every and keys.raw.get("model_type") == "gemma2":
        every = 2
    if not every and keys.raw.get("attention_chunk_size"):
        every = 4  # Llama 4: every fourth layer sees all
    return window, layers - layers // every if every else layers


def _weights(config: Mapping[str, Any], around: Mapping[str, Any]) -> tuple[float, float]:
    """Return bytes of a weight in the layers, and of an expert's (0: the same)."""
    wide = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    full = 4.0 if wide.endswith("float32") else 2.0
    quantised = config.get("quantization_config") or around.get("quantization_config")
    if not isinstance(quantised, dict):
        return full, 0.0
    method = str(quantised.get("quant_method", "")).lower()
    if method == "mxfp4":
        return full, 4.25 / BITS_A_BYTE  # gpt-oss: only the experts
    bits = _bits(quantised, method)
    # A group of 128 weights shares a scale of 16 bits and a zero of some.
    return ((bits + 0.25) if bits < BITS_A_BYTE else bits) / BITS_A_BYTE, 0.0


def _bits(quantised: Mapping[str, Any], method: str) -> float:
    for key in ("bits", "w_bit", "weight_bits", "num_bits"):
        if isinstance(quantised.get(key), int):
            return float(quantised[key])
    groups = quantised.get("config_groups")
    if isinstance(groups, dict):  # compressed-tensors, ModelOpt
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, dict) else None
            if isinstance(weights, dict) and isinstance(weights.get("num_bits"), int):
                return float(weights["num_bits"])
    if quantised.get("load_in_4bit") or quantised.get("_load_in_4bit"):
        return 4.0
    said = f"{method} {quantised.get('quant_algo', '')} {quantised.get('fmt', '')}".lower()
    return 4.0 if any(word in said for word in ("fp4", "awq", "gptq", "int4", "w4")) else 8.0
