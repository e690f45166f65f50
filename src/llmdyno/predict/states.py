"""Layers that keep a state of a sequence in place of keys and values: how many, how large, of what.

A state has as many bytes after a million tokens as after one. Its sums are those of the engines
(vLLM: model_executor/layers/mamba/mamba_utils.py): the inputs that a convolution looks back at, in
16 bits, and what the recurrence keeps, in 16 bits unless the config asks for 32.
"""

from collections.abc import Sequence
from typing import Any

from llmdyno.predict.config_keys import Keys
from llmdyno.predict.families import STATE

_CONVOLVED_BYTES = 2
# Keys that say in which numbers the recurrence keeps what it keeps.
_PRECISIONS = ("mamba_ssm_dtype", "mamba_ssm_cache_dtype")
# Nemotron-H: what a block is, as a letter of a pattern or as a word of a list.
_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_BLOCKS = _LETTERS | {word: word for word in _LETTERS.values()}


def states_of(keys: Keys, layers: int, hidden: int) -> dict[str, Any]:
    """Return the fields of a Shape that say which layers keep a state, and of what.

    Raises:
        UsageError: a size is missing; names the key.
    """
    raw = keys.raw
    crossed = raw.get("cross_attention_layers")
    if isinstance(crossed, list):  # Llama 3.2 Vision: they look at the picture
        return {"state_layers": len(crossed)}
    blocks = _blocks(keys)
    if blocks:
        return _of_blocks(blocks) | _mamba2(keys, hidden)
    if raw.get("model_type") in ("mamba", "falcon_mamba"):
        return _only(layers) | _mamba1(keys, hidden)
    if raw.get("model_type") == "mamba2":
        return _only(layers) | _mamba2(keys, hidden)
    if raw.get("mamba_d_ssm"):  # Falcon-H1: every layer has both, side by side
        return {"state_layers": layers, "state_beside": True} | _mamba2(keys, hidden)
    count = _count(keys, layers)
    if not count:
        return {}
    if raw.get("linear_attn_config"):
        each = _kimi_delta(keys, hidden)
    elif raw.get("attn_layer_period"):
        each = _mamba1(keys, hidden)
    elif raw.get("mamba_n_heads") or "mamba" in (raw.get("layer_types") or ()):
        each = _mamba2(keys, hidden)
    else:
        each = _gated_delta(keys, hidden)
    return {"state_layers": count} | each


def _count(keys: Keys, layers: int) -> int:
    """Return how many layers keep a state and no keys and values."""
    kinds, indices = keys.raw.get("layer_types"), keys.raw.get("attn_layer_indices")
    if isinstance(kinds, list):
        return sum(kind in STATE for kind in kinds)
    if isinstance(indices, list):  # Bamba
        return layers - len(indices)
    if keys.raw.get("attn_layer_period"):  # Jamba
        return layers - every(
            layers, keys.size("attn_layer_period"), keys.whole("attn_layer_offset")
        )
    linear = keys.raw.get("linear_attn_config")
    if isinstance(linear, dict):  # Kimi Linear
        own = linear.get("kda_layers")
        return len(own) if isinstance(own, list) else 0
    interval = keys.whole("full_attention_interval")
    return layers - layers // interval if interval and keys.raw.get("linear_num_key_heads") else 0


def every(layers: int, period: int, offset: int) -> int:
    """Return how many of the layers are an offset beyond a multiple of a period."""
    return len(range(offset, layers, period))


def _blocks(keys: Keys) -> list[str]:
    """Return Nemotron-H's blocks in their order, each a mixer or a net; empty: it is another."""
    found = keys.raw.get("hybrid_override_pattern") or (
        keys.raw.get("layers_block_type") if keys.raw.get("model_type") == "nemotron_h" else None
    )
    if not isinstance(found, str | list):
        return []
    blocks = [_BLOCKS.get(one, "") if isinstance(one, str) else "" for one in found]
    if "" in blocks:
        raise keys.wrong(f"blocks have {found[blocks.index('')]!r}, of which no sum is known here")
    return blocks


def _of_blocks(blocks: Sequence[str]) -> dict[str, Any]:
    """Return the layers of blocks: a layer here is one that mixes tokens."""
    states, nets = blocks.count("mamba"), blocks.count("mlp")
    return {
        "layers": states + blocks.count("attention"),
        "net_layers": nets + blocks.count("moe"),
        "dense_layers": nets,
        "state_layers": states,
    }


def _only(layers: int) -> dict[str, Any]:
    """Return a model of nothing else: no attention, no feed-forward net."""
    return {"state_layers": layers, "net_layers": 0}


def _mamba1(keys: Keys, hidden: int) -> dict[str, Any]:
    """Return a selective state space (Gu and Dao, 2023)."""
    expand = keys.whole("mamba_expand", "expand") or 2
    state = keys.size("mamba_d_state", "state_size")
    inner = expand * hidden
    rank = keys.rank("mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
    kernel = keys.whole("mamba_d_conv", "conv_kernel") or 4
    params = 3 * hidden * inner + inner * (rank + 2 * state) + rank * inner
    return {
        "state_bytes": _bytes(keys, inner * state, inner * (kernel - 1)),
        "state_params": params + inner * (state + kernel),
    }


def _mamba2(keys: Keys, hidden: int) -> dict[str, Any]:
    """Return a structured state space (Dao and Gu, 2024)."""
    heads = keys.size("mamba_n_heads", "mamba_num_heads", "num_heads")
    state = keys.size("mamba_d_state", "ssm_state_size", "state_size")
    width = keys.whole("mamba_d_head", "mamba_head_dim", "head_dim")
    expand = keys.whole("mamba_expand", "expand") or 2
    inner = keys.whole("mamba_d_ssm") or width * heads or expand * hidden
    mixed = inner + 2 * (keys.whole("mamba_n_groups", "n_groups") or 1) * state
    kernel = keys.whole("mamba_d_conv", "conv_kernel") or 4
    return {
        "state_bytes": _bytes(keys, inner * state, mixed * (kernel - 1)),
        "state_params": hidden * (inner + mixed + heads) + inner * hidden + mixed * kernel,
    }


def _gated_delta(keys: Keys, hidden: int) -> dict[str, Any]:
    """Return a gated delta rule (Yang et al., 2025)."""
    heads, width = keys.size("linear_num_value_heads"), keys.size("linear_value_head_dim")
    key_dim = keys.size("linear_key_head_dim")
    inner = heads * width
    mixed = inner + 2 * keys.size("linear_num_key_heads") * key_dim
    kernel = keys.whole("linear_conv_kernel_dim") or 4
    return {
        "state_bytes": _bytes(keys, inner * key_dim, mixed * (kernel - 1)),
        "state_params": hidden * (inner + mixed + 2 * heads) + inner * hidden + mixed * kernel,
    }


def _kimi_delta(keys: Keys, hidden: int) -> dict[str, Any]:
    """Return a delta rule with a gate for each channel (Kimi Linear, 2025).

    Its recurrence is kept in 32 bits whatever is asked (vLLM: kda_state_dtype).
    """
    own = Keys(keys.raw["linear_attn_config"], keys.where)
    heads, width = own.size("num_heads"), own.size("head_dim")
    inner = heads * width
    kernel = own.whole("short_conv_kernel_size") or 4
    gates = 2 * width * (hidden + inner) + hidden * heads  # two of low rank, and one a head
    return {
        "state_bytes": 4 * inner * width + _CONVOLVED_BYTES * 3 * inner * (kernel - 1),
        "state_params": 4 * hidden * inner + gates + 3 * inner * kernel,
    }


def _bytes(keys: Keys, kept: int, convolved: int) -> int:
    """Return the bytes of a state of so many numbers in the recurrence and before it."""
    wide = any(keys.raw.get(key) == "float32" for key in _PRECISIONS)
    return kept * (4 if wide else 2) + convolved * _CONVOLVED_BYTES
