"""What a config.json does not say because its family's code says it, and what no Shape can hold."""

from collections.abc import Mapping
from typing import Any

# Families whose feed-forward net has two matrices, no gate.
UNGATED = frozenset(
    "gpt2 gpt_neo gpt_neox gptj gpt_bigcode opt bloom falcon phi mpt starcoder2 stablelm_alpha"
    " nemotron nemotron_h".split()
)
# Families that share the table of tokens with the logits unless they say otherwise.
TIED = frozenset(
    "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text mamba cohere cohere2 gpt2 gpt_bigcode opt"
    " bloom falcon mpt smollm3".split()
)
# Families whose attention passes a gate.
GATED_ATTENTION = frozenset(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe_text"))

_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size"),
)
# The defaults of transformers' classes, in that order. A multimodal model's config leaves out of
# its language part whatever is equal to them.
_DEFAULTS: dict[str, tuple[int, ...]] = {
    "gemma": (3072, 24576, 28, 16, 16, 256, 256000),
    "gemma2": (2304, 9216, 26, 8, 4, 256, 256000),
    "gemma3_text": (2304, 9216, 26, 8, 4, 256, 262208),
    "llama": (4096, 11008, 32, 32, 0, 0, 32000),
    "mistral": (4096, 14336, 32, 32, 8, 0, 32000),
    "phi3": (3072, 8192, 32, 32, 0, 0, 32064),
    "qwen2": (4096, 22016, 32, 32, 32, 0, 151936),
    "qwen3": (4096, 22016, 32, 32, 32, 128, 151936),
}
_WINDOWS = {"gemma2": 4096, "gemma3_text": 4096}

# Kinds of layers whose sums are known: keys and values of all tokens, of a window, or a state.
ATTENTION = ("full_attention", "attention", "global_attention")
WINDOWED = ("sliding_attention", "chunked_attention", "local_attention")
STATE = ("linear_attention", "mamba")
# Keys of models that are made of something else, and what that is.
_ELSE = {
    "block_configs": "blocks that differ from layer to layer",
    "hybrid_layer_pattern": "layers of a pattern of its own",
    "ssm_cfg": "state-space layers in mamba-ssm's own spelling",
    "block_types": "recurrent blocks",
    "full_attn_idxs": "layers of a short convolution",
    "num_mem_blocks": "attention blocks that several layers share",
    "global_head_dim": "heads of another size in some layers",
    "moe_latent_size": "experts in a space of their own",
}
# The same of such keys, and the one family whose sums are known.
_ELSE_BUT_IN = (
    ("linear_attn_config", "a linear attention of its own", "kimi_linear"),
    ("num_kv_shared_layers", "layers that share keys and values", "gemma3n"),
    ("hidden_size_per_layer_input", "a table of tokens for each layer", "gemma3n"),
)
_NO_DECODERS = frozenset(
    "bert roberta xlm-roberta deberta-v2 distilbert electra albert modernbert clip siglip vit"
    " whisper wav2vec2 nomic_bert".split()
)


def defaults(family: str) -> Mapping[str, int]:
    """Return the sizes that a multimodal config may leave out of a language part of this family."""
    found = dict(zip(_SIZES, _DEFAULTS.get(family, ()), strict=False))
    if family in _WINDOWS:
        found["sliding_window"] = _WINDOWS[family]
    return {name: size for name, size in found.items() if size}


def unknown(config: Mapping[str, Any]) -> str:
    """Return why no Shape can hold a model; empty: it can."""
    family = str(config.get("model_type", ""))
    if config.get("is_encoder_decoder") or family in _NO_DECODERS:
        return f"it is no decoder (model_type {family})"
    for key, what in _ELSE.items():
        if config.get(key):
            return f"it has {what} ({key}), whose bytes and FLOPs are not known here"
    for key, what, of in _ELSE_BUT_IN:
        if config.get(key) and family.removesuffix("_text") != of:
            return f"it has {what} ({key}), whose bytes and FLOPs are known of {of} only"
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        for kind in kinds:
            if kind not in (*ATTENTION, *WINDOWED, *STATE):
                return f"layer_types has {kind!r}, whose bytes and FLOPs are not known here"
        if not any(kind in (*ATTENTION, *WINDOWED) for kind in kinds):
            return "no layer of layer_types is attention"
    own = config.get("attn_type_list")
    if isinstance(own, list) and any(one != 1 for one in own):
        return "attn_type_list has linear attention, whose bytes and FLOPs are not known here"
    return ""
