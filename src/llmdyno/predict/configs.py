"""A model's config.json, in the spellings that hub configs use, into a Shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import files
from llmdyno.errors import UsageError
from llmdyno.predict.checkpoint import kept
from llmdyno.predict.config_keys import Keys
from llmdyno.predict.decoder import Shape
from llmdyno.predict.families import GATED_ATTENTION, TIED, UNGATED, WINDOWED, unknown
from llmdyno.predict.states import every, states_of
from llmdyno.predict.towers import tower_params


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
    keys = Keys(dict(raw), where)
    if why := unknown(keys.raw):
        raise UsageError(f"--model {where}: {why}; the predictor cannot say its speed or memory.")
    hidden = keys.size("hidden_size", "n_embd", "d_model", "dim", "model_dim")
    layers = keys.size("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    family = str(keys.raw.get("model_type", ""))
    latent = keys.whole("kv_lora_rank")
    intermediate = keys.whole(
        *("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner"),
        *("ffn_dim", "ffn_hidden_dim", "hidden_dim"),
    )
    tied = keys.raw.get("tie_word_embeddings")
    experts = _experts(keys, layers)
    numbers = kept(keys.raw.get("quantization_config"), experts=bool(experts), layers=layers)
    states = states_of(keys, layers, hidden)
    reads = keys.whole("num_kv_shared_layers")
    window, window_layers = _window(keys, layers - reads)
    sizes: dict[str, Any] = {"layers": layers} | _heads(keys, hidden) | experts | states
    if reads >= layers or (states and not _has_attention(sizes)):
        raise keys.wrong(f"none of its {layers} layers has keys and values")
    return Shape(
        name=name,
        hidden=hidden,
        intermediate=intermediate or 4 * hidden,
        vocab=keys.size("vocab_size", "padded_vocab_size", "n_vocab"),
        tied=family in TIED if tied is None else bool(tied),
        kv_lora_rank=latent,
        rope_dim=keys.whole("qk_rope_head_dim") if latent else 0,
        q_lora_rank=keys.whole("q_lora_rank") if latent else 0,
        value_dim=keys.whole("v_head_dim") if latent else 0,
        window=window,
        window_layers=window_layers,
        reading_layers=reads,
        layer_params=_beside(keys, hidden, layers),
        query_gate=keys.raw.get("attn_output_gate", family in GATED_ATTENTION) is True,
        matrices=2 if family in UNGATED else 3,
        other_params=tower_params(raw, hidden) + _tables(keys, layers),
        weight_bytes=numbers.weight_bytes,
        expert_bytes=numbers.expert_bytes,
        cache=numbers.cache,
        method=numbers.method,
        computes=numbers.computes,
        context=keys.whole("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
        **sizes,
    )


def _has_attention(sizes: Mapping[str, Any]) -> bool:
    """Whether any layer has keys and values, or the model is one that has none at all."""
    only = sizes.get("net_layers") == 0
    return only or sizes.get("state_beside", False) or sizes["state_layers"] < sizes["layers"]


def _heads(keys: Keys, hidden: int) -> dict[str, int]:
    """Return heads and their size; where there is no attention, those that GPUs share out."""
    if keys.raw.get("model_type") in ("mamba", "falcon_mamba"):
        return {"heads": (keys.whole("expand") or 2) * hidden, "kv_heads": 1, "head_dim": 1}
    heads = keys.size("num_attention_heads", "n_head", "n_heads", "num_heads")
    own = keys.whole("qk_nope_head_dim") if keys.whole("kv_lora_rank") else 0
    head_dim = own or keys.whole("head_dim", "attention_head_dim", "kv_channels") or hidden // heads
    if head_dim < 1:
        raise keys.wrong(f"has {heads} heads in a hidden_size of {hidden} only")
    alone = keys.raw.get("model_type") == "mamba2"
    return {
        "heads": heads,
        "kv_heads": 1 if alone else _kv_heads(keys, heads),
        "head_dim": head_dim,
    }


def _tables(keys: Keys, layers: int) -> int:
    """Return the parameters of Gemma 3n's tables of tokens, one a layer: looked up, never read."""
    width = keys.whole("hidden_size_per_layer_input")
    return layers * width * keys.whole("vocab_size_per_layer_input") if width else 0


def _beside(keys: Keys, hidden: int, layers: int) -> int:
    """Return what a layer of Gemma 3n has beside attention and its net.

    A low-rank path round attention, a gate for what its table gives, and its share of what joins
    and parts several streams (its modelling code in transformers, Gemma3nTextDecoderLayer).
    """
    width, streams = keys.whole("hidden_size_per_layer_input"), keys.whole("altup_num_inputs")
    low_rank = 2 * hidden * keys.whole("laurel_rank")
    joins = 2 * (streams - 1) * hidden * hidden // layers + hidden * streams if streams else 0
    return low_rank + 3 * hidden * width + joins


def _kv_heads(keys: Keys, heads: int) -> int:
    found = keys.whole(
        *("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv"),
        *("n_kv_heads", "kv_n_heads", "num_attention_groups"),
    )
    if found:
        return found
    return 1 if keys.raw.get("multi_query") is True else heads


def _experts(keys: Keys, layers: int) -> dict[str, int]:
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
        *("shared_expert_intermediate_size", "shared_intermediate_size"),
        "moe_shared_expert_intermediate_size",
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


def _dense_layers(keys: Keys, layers: int) -> int:
    """Return how many layers of a model with experts have none."""
    kinds = keys.raw.get("mlp_layer_types")
    if isinstance(kinds, list) and kinds:
        return kinds.count("dense")
    if keys.raw.get("expert_layer_period"):  # Jamba
        period, offset = keys.size("expert_layer_period"), keys.whole("expert_layer_offset")
        return layers - every(layers, period, offset)
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


def _window(keys: Keys, layers: int) -> tuple[int, int]:
    """Return how far back attention reaches, and in how many layers; 0, 0: as far as there is."""
    if keys.raw.get("use_sliding_window") is False:
        return 0, 0
    window = keys.whole("sliding_window", "attention_chunk_size", "sliding_window_size")
    if not window:
        return 0, 0
    types = keys.raw.get("layer_types")
    if isinstance(types, list) and types:
        local = sum(kind in WINDOWED for kind in types[:layers])
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
