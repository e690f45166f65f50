"""A model's config.json, in the spellings that hub configs use, into a Shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import files
from llmdyno.errors import UsageError
from llmdyno.predict.checkpoint import kept
from llmdyno.predict.decoder import Shape
from llmdyno.predict.families import (
    GATED_ATTENTION,
    STATE,
    TIED,
    UNGATED,
    WINDOWED,
    defaults,
    unknown,
)
from llmdyno.predict.towers import tower_params

# Where multimodal models keep what their language part is made of.
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "language_model")
_NAMED_PARTS = ("attn_config", "ffn_config")
_SIZE_MAX = 10**9  # larger is no size of a model


def read_config(path: Path, name: str) -> Shape:
    """Read a config.json; `name` is what the shape is called.

    A hf_quant_config.json beside it, as ModelOpt writes it, says how weights are quantised.

    Raises:
        UsageError: it cannot be read, or lacks a size; names the file and the key.
    """
    try:
        raw = msgspec.json.decode(files.text(path))
        beside = path.with_name("hf_quant_config.json")
        apart = msgspec.json.decode(files.text(beside)) if beside.is_file() else {}
    except (files.FileError, msgspec.DecodeError) as error:
        raise UsageError(f"--model {path}: cannot be read as JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise UsageError(f"--model {path}: must be a JSON object with the model's sizes.")
    if isinstance(apart, dict) and isinstance(apart.get("quantization"), dict):
        own = {"quant_method": "modelopt"} | apart["quantization"]
        raw = {"quantization_config": own} | raw
    return shape_from(raw, name, str(path))


def shape_from(raw: Mapping[str, Any], name: str, where: str = "config.json") -> Shape:
    """Return the shape that a config's keys describe.

    Raises:
        UsageError: a size is missing or no whole number above 0; names `where` and the key.
    """
    keys = _Keys(dict(raw), where)
    if why := unknown(keys.raw):
        raise UsageError(f"--model {where}: {why}; the predictor cannot say its speed or memory.")
    hidden = keys.size("hidden_size", "n_embd", "d_model", "dim", "model_dim")
    heads = keys.size("num_attention_heads", "n_head", "n_heads", "num_heads")
    latent = keys.whole("kv_lora_rank")
    own_dim = keys.whole("qk_nope_head_dim") if latent else 0
    head_dim = own_dim or keys.whole("head_dim", "kv_channels") or hidden // heads
    if head_dim < 1:
        raise UsageError(f"--model {where}: has {heads} heads in a hidden_size of {hidden} only.")
    layers = keys.size("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    family = str(keys.raw.get("model_type", ""))
    intermediate = keys.whole(
        *("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner"),
        *("ffn_dim", "ffn_hidden_dim", "hidden_dim"),
    )
    tied = keys.raw.get("tie_word_embeddings")
    experts = _experts(keys, layers)
    numbers = kept(keys.raw.get("quantization_config"), experts=bool(experts), layers=layers)
    states = _states(keys, layers, hidden)
    if states.get("state_layers", 0) >= layers:
        raise UsageError(f"--model {where}: none of its {layers} layers has keys and values.")
    window, window_layers = _window(keys, layers)
    return Shape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(keys, heads),
        head_dim=head_dim,
        intermediate=intermediate or 4 * hidden,
        vocab=keys.size("vocab_size", "padded_vocab_size", "n_vocab"),
        tied=family in TIED if tied is None else bool(tied),
        kv_lora_rank=latent,
        rope_dim=keys.whole("qk_rope_head_dim") if latent else 0,
        q_lora_rank=keys.whole("q_lora_rank") if latent else 0,
        value_dim=keys.whole("v_head_dim") if latent else 0,
        window=window,
        window_layers=window_layers,
        query_gate=keys.raw.get("attn_output_gate", family in GATED_ATTENTION) is True,
        matrices=2 if family in UNGATED else 3,
        other_params=tower_params(raw, hidden),
        weight_bytes=numbers.weight_bytes,
        expert_bytes=numbers.expert_bytes,
        computes=numbers.computes,
        context=keys.whole("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
        **states,
        **experts,
    )


class _Keys:
    """A config's keys, those of its language part over those around it."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.where = where
        self.raw = raw
        while part := next((p for p in _TEXT_PARTS if isinstance(self.raw.get(p), dict)), None):
            inner = self.raw[part]
            around = {key: value for key, value in self.raw.items() if key != part}
            self.raw = {**defaults(str(inner.get("model_type", ""))), **around, **inner}
        for part in _NAMED_PARTS:  # DBRX, MPT: what is outside counts first
            inner = self.raw.get(part)
            self.raw = {**(inner if isinstance(inner, dict) else {}), **self.raw}

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
        *("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv"),
        *("n_kv_heads", "kv_n_heads"),
    )
    if found:
        return found
    return 1 if keys.raw.get("multi_query") is True else heads


def _experts(keys: _Keys, layers: int) -> dict[str, int]:
    """Return the experts, in the spellings of Mixtral, Qwen, DeepSeek, Llama 4, Grok, DBRX."""
    experts = keys.whole(
        *("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
    )
    if not experts:
        return {}
    each = keys.whole("moe_intermediate_size", "expert_ffn_hidden_size")
    # Without a size of their own they have that of the net; Llama 4 calls the net's "_mlp".
    each = each or keys.size("intermediate_size", "ffn_hidden_size")
    shared = keys.whole(
        *("shared_expert_intermediate_size", "shared_intermediate_size")
    ) or each * keys.whole(
        *("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
    )
    if keys.raw.get("intermediate_size_mlp"):
        shared = each  # Llama 4 has one beside the routed ones
    if keys.raw.get("residual_moe") is True:  # Grok 2 has a net of its own beside them
        shared = keys.size("intermediate_size")
    active = keys.whole(
        *("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k"),
        *("top_k_experts", "top_k"),
    )
    return {
        "experts": experts,
        "experts_active": min(active or 1, experts),
        "moe_intermediate": each,
        "shared_intermediate": shared,
        "dense_layers": min(layers, _dense_layers(keys, layers)),
    }


def _dense_layers(keys: _Keys, layers: int) -> int:
    """Return how many layers of a model with experts have none."""
    kinds = keys.raw.get("mlp_layer_types")
    if isinstance(kinds, list) and kinds:
        return kinds.count("dense")
    often = keys.raw.get("moe_layer_freq")
    if isinstance(often, list):  # one a layer, 0: none
        return often.count(0)
    step = keys.whole(
        *("interleave_moe_layer_step", "moe_layer_freq", "decoder_sparse_step"),
        "moe_layer_interval",
    )
    first = keys.whole("first_k_dense_replace", "moe_layer_start_index")
    only = keys.raw.get("mlp_only_layers")
    return layers - (layers - first) // (step or 1) + (len(only) if isinstance(only, list) else 0)


def _states(keys: _Keys, layers: int, hidden: int) -> dict[str, int]:
    """Return the layers that keep a state in place of keys and values, and what of."""
    crossed = keys.raw.get("cross_attention_layers")
    if isinstance(crossed, list):  # Llama 3.2 Vision: they look at the picture
        return {"state_layers": len(crossed)}
    kinds = keys.raw.get("layer_types")
    every = keys.whole("full_attention_interval")
    if isinstance(kinds, list):
        count = sum(kind in STATE for kind in kinds)
    else:
        count = layers - layers // every if every and keys.raw.get("linear_num_key_heads") else 0
    if not count:
        return {}
    if keys.raw.get("mamba_n_heads"):  # Mamba 2 (Dao and Gu, 2024)
        heads, state = keys.size("mamba_n_heads"), keys.size("mamba_d_state")
        inner = keys.whole("mamba_d_head") * heads or keys.size("mamba_expand") * hidden
        mixed = inner + 2 * (keys.whole("mamba_n_groups") or 1) * state
        kernel = keys.whole("mamba_d_conv") or 4
        params = hidden * (inner + mixed + heads) + inner * hidden + mixed * kernel
        numbers = inner * state + mixed * (kernel - 1)
    else:  # gated delta rule (Yang et al., 2025)
        heads, width = keys.size("linear_num_value_heads"), keys.size("linear_value_head_dim")
        key_dim = keys.size("linear_key_head_dim")
        inner, mixed = (
            heads * width,
            heads * width + 2 * keys.size("linear_num_key_heads") * key_dim,
        )
        kernel = keys.whole("linear_conv_kernel_dim") or 4
        params = hidden * (inner + mixed + 2 * heads) + inner * hidden + mixed * kernel
        numbers = inner * key_dim + mixed * (kernel - 1)
    return {"state_layers": count, "state_numbers": numbers, "state_params": params}


def _window(keys: _Keys, layers: int) -> tuple[int, int]:
    """Return how far back attention reaches, and in how many layers; 0, 0: as far as there is."""
    if keys.raw.get("use_sliding_window") is False:
        return 0, 0
    window = keys.whole("sliding_window", "attention_chunk_size", "sliding_window_size")
    if not window:
        return 0, 0
    types = keys.raw.get("layer_types")
    if isinstance(types, list) and types:
        local = sum(kind in WINDOWED for kind in types)
        return (window, local) if local else (0, 0)
    pattern = keys.raw.get("sliding_window_pattern", keys.raw.get("_sliding_window_pattern"))
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        local = sum(pattern[layer % len(pattern)] == "L" for layer in range(layers))
        return (window, local) if local else (0, 0)
    every = keys.whole("sliding_window_pattern", "_sliding_window_pattern")
    if not every and keys.raw.get("model_type") in ("gemma3", "gemma3_text"):
        every = 6
    if not every and keys.raw.get("model_type") == "gemma2":
        every = 2
    if not every and keys.raw.get("attention_chunk_size"):
        every = 4  # Llama 4: every fourth layer sees all
    return window, layers - layers // every if every else layers
