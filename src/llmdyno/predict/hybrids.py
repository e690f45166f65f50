"""Well-known models whose layers are not all alike, by their own config.json on the hub.

Each stands here without what the predictor does not look at; `configs` makes the sum of it.
"""

from typing import Any

from llmdyno.predict.configs import shape_from
from llmdyno.predict.decoder import Shape, canonical

_JAMBA: dict[str, Any] = {
    "model_type": "jamba",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_dt_rank": 256,
    "mamba_expand": 2,
    "max_position_embeddings": 262144,
    "vocab_size": 65536,
}
_NEMOTRON: dict[str, Any] = {
    "model_type": "nemotron_h",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "vocab_size": 131072,
}
_FALCON: dict[str, Any] = {
    "model_type": "falcon_h1",
    "head_dim": 128,
    "mamba_d_head": 128,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "max_position_embeddings": 262144,
}
_GEMMA: dict[str, Any] = {
    "model_type": "gemma3n_text",
    "hidden_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "vocab_size": 262400,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "altup_num_inputs": 4,
    "laurel_rank": 64,
    "sliding_window": 512,
    "max_position_embeddings": 32768,
}
_GEMMA_KINDS = (*["sliding_attention"] * 4, "full_attention")

CONFIGS: dict[tuple[str, ...], dict[str, Any]] = {
    ("Jamba-v0.1", "Jamba-1.5-Mini", "AI21-Jamba-1.5-Mini", "AI21-Jamba-Mini-1.6"): _JAMBA,
    ("Jamba-1.5-Large", "AI21-Jamba-1.5-Large", "AI21-Jamba-Large-1.6"): _JAMBA
    | {"hidden_size": 8192, "intermediate_size": 24576, "num_hidden_layers": 72}
    | {"num_attention_heads": 64, "mamba_dt_rank": 512},
    ("Nemotron-H-8B",): _NEMOTRON
    | {"hidden_size": 4096, "intermediate_size": 21504, "num_hidden_layers": 52}
    | {"num_attention_heads": 32, "mamba_head_dim": 64, "max_position_embeddings": 8192}
    | {"hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"},
    ("Nemotron-Nano-9B-v2", "NVIDIA-Nemotron-Nano-9B-v2"): _NEMOTRON
    | {"hidden_size": 4480, "intermediate_size": 15680, "num_hidden_layers": 56}
    | {"num_attention_heads": 40, "mamba_head_dim": 80, "max_position_embeddings": 131072}
    | {"hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"},
    ("Nemotron-3-Nano-30B-A3B", "NVIDIA-Nemotron-3-Nano-30B-A3B"): _NEMOTRON
    | {"hidden_size": 2688, "intermediate_size": 1856, "num_hidden_layers": 52}
    | {"num_attention_heads": 32, "num_key_value_heads": 2, "max_position_embeddings": 262144}
    | {"mamba_num_heads": 64, "mamba_head_dim": 64, "mamba_ssm_cache_dtype": "float32"}
    | {"n_routed_experts": 128, "num_experts_per_tok": 6, "moe_intermediate_size": 1856}
    | {"n_shared_experts": 1, "moe_shared_expert_intermediate_size": 3712}
    | {"hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"},
    ("Falcon-H1-7B",): _FALCON
    | {"hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 44}
    | {"num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 130048}
    | {"mamba_d_ssm": 3072, "mamba_n_heads": 24, "mamba_n_groups": 1},
    ("Falcon-H1-34B",): _FALCON
    | {"hidden_size": 5120, "intermediate_size": 21504, "num_hidden_layers": 72}
    | {"num_attention_heads": 20, "num_key_value_heads": 4, "vocab_size": 261120}
    | {"mamba_d_ssm": 4096, "mamba_n_heads": 32, "mamba_n_groups": 2},
    ("Kimi-Linear-48B-A3B", "Kimi-Linear"): {
        "model_type": "kimi_linear",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 27,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "moe_intermediate_size": 1024,
        "num_experts": 256,
        "num_experts_per_token": 8,
        "num_shared_experts": 1,
        "linear_attn_config": {
            "num_heads": 32,
            "head_dim": 128,
            "short_conv_kernel_size": 4,
            "kda_layers": [layer for layer in range(1, 27) if layer % 4],
            "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        },
        "max_position_embeddings": 1048576,
        "vocab_size": 163840,
    },
    ("Gemma-3n-E2B",): {
        "model_type": "gemma3n",
        "text_config": _GEMMA
        | {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10}
        | {"layer_types": [*_GEMMA_KINDS * 6]},
    },
    ("Gemma-3n-E4B",): {
        "model_type": "gemma3n",
        "text_config": _GEMMA
        | {"num_hidden_layers": 35, "intermediate_size": 16384, "num_kv_shared_layers": 15}
        | {"layer_types": [*_GEMMA_KINDS * 7]},
    },
    ("Mamba-Codestral-7B",): {
        "model_type": "mamba2",
        "hidden_size": 4096,
        "num_hidden_layers": 64,
        "num_heads": 128,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "expand": 2,
        "vocab_size": 32768,
    },
    ("Mamba-2.8B",): {
        "model_type": "mamba",
        "hidden_size": 2560,
        "num_hidden_layers": 64,
        "state_size": 16,
        "time_step_rank": 160,
        "conv_kernel": 4,
        "expand": 2,
        "vocab_size": 50280,
    },
}

HYBRIDS: dict[str, Shape] = {
    canonical(name): shape_from(config, names[0])
    for names, config in CONFIGS.items()
    for name in names
}
