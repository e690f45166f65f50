"""The shapes of well-known models, from the config.json that each has on the hub.

A row is what every decoder has, in this order: layers, hidden, heads, kv_heads, head_dim,
intermediate, vocab. Names are compared without case, dashes and dots.
"""

from typing import Any

import msgspec

from llmdyno.predict.decoder import Shape, canonical

_ROWS: dict[str, tuple[int, int, int, int, int, int, int]] = {
    "Llama-2-7B": (32, 4096, 32, 32, 128, 11008, 32000),
    "Llama-2-13B": (40, 5120, 40, 40, 128, 13824, 32000),
    "Llama-2-70B": (80, 8192, 64, 8, 128, 28672, 32000),
    "Llama-3-8B": (32, 4096, 32, 8, 128, 14336, 128256),
    "Llama-3-70B": (80, 8192, 64, 8, 128, 28672, 128256),
    "Llama-3.1-8B": (32, 4096, 32, 8, 128, 14336, 128256),
    "Llama-3.1-70B": (80, 8192, 64, 8, 128, 28672, 128256),
    "Llama-3.1-405B": (126, 16384, 128, 8, 128, 53248, 128256),
    "Llama-3.2-1B": (16, 2048, 32, 8, 64, 8192, 128256),
    "Llama-3.2-3B": (28, 3072, 24, 8, 128, 8192, 128256),
    "Llama-3.2-11B": (40, 4096, 32, 8, 128, 14336, 128256),
    "Llama-3.2-90B": (100, 8192, 64, 8, 128, 28672, 128256),
    "Llama-3.3-70B": (80, 8192, 64, 8, 128, 28672, 128256),
    "Llama-4-Scout-17B": (48, 5120, 40, 8, 128, 16384, 202048),
    "Llama-4-Maverick-17B": (48, 5120, 40, 8, 128, 16384, 202048),
    "Qwen2.5-0.5B": (24, 896, 14, 2, 64, 4864, 151936),
    "Qwen2.5-1.5B": (28, 1536, 12, 2, 128, 8960, 151936),
    "Qwen2.5-3B": (36, 2048, 16, 2, 128, 11008, 151936),
    "Qwen2.5-7B": (28, 3584, 28, 4, 128, 18944, 152064),
    "Qwen2.5-14B": (48, 5120, 40, 8, 128, 13824, 152064),
    "Qwen2.5-32B": (64, 5120, 40, 8, 128, 27648, 152064),
    "Qwen2.5-72B": (80, 8192, 64, 8, 128, 29568, 152064),
    "Qwen3-0.6B": (28, 1024, 16, 8, 128, 3072, 151936),
    "Qwen3-1.7B": (28, 2048, 16, 8, 128, 6144, 151936),
    "Qwen3-4B": (36, 2560, 32, 8, 128, 9728, 151936),
    "Qwen3-8B": (36, 4096, 32, 8, 128, 12288, 151936),
    "Qwen3-14B": (40, 5120, 40, 8, 128, 17408, 151936),
    "Qwen3-32B": (64, 5120, 64, 8, 128, 25600, 151936),
    "Qwen3-30B-A3B": (48, 2048, 32, 4, 128, 6144, 151936),
    "Qwen3-235B-A22B": (94, 4096, 64, 4, 128, 12288, 151936),
    "Qwen3-Coder-480B-A35B": (62, 6144, 96, 8, 128, 8192, 151936),
    "Mistral-7B": (32, 4096, 32, 8, 128, 14336, 32768),
    "Mixtral-8x7B": (32, 4096, 32, 8, 128, 14336, 32000),
    "Mixtral-8x22B": (56, 6144, 48, 8, 128, 16384, 32768),
    "Mistral-Nemo": (40, 5120, 32, 8, 128, 14336, 131072),
    "Mistral-Small-24B": (40, 5120, 32, 8, 128, 32768, 131072),
    "Mistral-Small-2409": (56, 6144, 48, 8, 128, 16384, 32768),
    "Mistral-Large": (88, 12288, 96, 8, 128, 28672, 32768),
    "Ministral-8B": (36, 4096, 32, 8, 128, 12288, 131072),
    "Gemma-2-2B": (26, 2304, 8, 4, 256, 9216, 256000),
    "Gemma-2-9B": (42, 3584, 16, 8, 256, 14336, 256000),
    "Gemma-2-27B": (46, 4608, 32, 16, 128, 36864, 256000),
    "Gemma-3-1B": (26, 1152, 4, 1, 256, 6912, 262144),
    "Gemma-3-4B": (34, 2560, 8, 4, 256, 10240, 262208),
    "Gemma-3-12B": (48, 3840, 16, 8, 256, 15360, 262208),
    "Gemma-3-27B": (62, 5376, 32, 16, 128, 21504, 262208),
    "Phi-3-mini": (32, 3072, 32, 32, 96, 8192, 32064),
    "Phi-3-medium": (40, 5120, 40, 10, 128, 17920, 32064),
    "Phi-3.5-MoE": (32, 4096, 32, 8, 128, 6400, 32064),
    "Phi-4": (40, 5120, 40, 10, 128, 17920, 100352),
    "Phi-4-mini": (32, 3072, 24, 8, 128, 8192, 200064),
    "DeepSeek-V2": (60, 5120, 128, 128, 128, 12288, 102400),
    "DeepSeek-V2-Lite": (27, 2048, 16, 16, 128, 10944, 102400),
    "DeepSeek-V3": (61, 7168, 128, 128, 128, 18432, 129280),
    "DeepSeek-R1-Distill-Qwen-1.5B": (28, 1536, 12, 2, 128, 8960, 151936),
    "gpt-oss-20b": (24, 2880, 64, 8, 64, 2880, 201088),
    "gpt-oss-120b": (36, 2880, 64, 8, 64, 2880, 201088),
    "SmolLM2-135M": (30, 576, 9, 3, 64, 1536, 49152),
    "SmolLM2-360M": (32, 960, 15, 5, 64, 2560, 49152),
    "SmolLM2-1.7B": (24, 2048, 32, 32, 64, 8192, 49152),
    "SmolLM3-3B": (36, 2048, 16, 4, 128, 11008, 128256),
    "TinyLlama-1.1B": (22, 2048, 32, 4, 64, 5632, 32000),
    "GLM-4.5": (92, 5120, 96, 8, 128, 12288, 151552),
    "GLM-4.5-Air": (46, 4096, 96, 8, 128, 10944, 151552),
    "Kimi-K2": (61, 7168, 64, 64, 128, 18432, 163840),
    "MiniMax-M2": (62, 3072, 48, 8, 128, 1536, 200064),
    "Qwen2-57B-A14B": (28, 3584, 28, 4, 128, 18944, 151936),
    "Qwen3-Next-80B-A3B": (48, 2048, 16, 2, 256, 5120, 151936),
    "Gemma-2B": (18, 2048, 8, 1, 256, 16384, 256000),
    "Gemma-7B": (28, 3072, 16, 16, 256, 24576, 256000),
    "Command-R": (40, 8192, 64, 64, 128, 22528, 256000),
    "Command-R-plus": (64, 12288, 96, 8, 128, 33792, 256000),
    "Command-R7B": (32, 4096, 32, 8, 128, 14336, 256000),
    "OLMo-2-7B": (32, 4096, 32, 32, 128, 11008, 100352),
    "OLMo-2-13B": (40, 5120, 40, 40, 128, 13824, 100352),
    "OLMo-2-32B": (64, 5120, 40, 8, 128, 27648, 100352),
    "OLMoE-1B-7B": (16, 2048, 16, 16, 128, 1024, 50304),
    "Yi-34B": (60, 7168, 56, 8, 128, 20480, 64000),
    "EXAONE-4.0-32B": (64, 5120, 40, 8, 128, 27392, 102400),
    "Granite-3.1-8B": (40, 4096, 32, 8, 128, 12800, 49155),
    "StarCoder2-15B": (40, 6144, 48, 4, 128, 24576, 49152),
}


def _experts(count: int, active: int, each: int, shared: int = 0, dense: int = 0) -> dict[str, int]:
    return {
        "experts": count,
        "experts_active": active,
        "moe_intermediate": each,
        "shared_intermediate": shared,
        "dense_layers": dense,
    }


def _latent(queries: int) -> dict[str, int]:
    return {"kv_lora_rank": 512, "rope_dim": 64, "q_lora_rank": queries}


_FP8 = {"weight_bytes": 1.0, "computes": "fp8"}
_MXFP4 = 4.25 / 8  # 4 bits and a scale of 8 for each 32 weights

# What a model has beside its row.
_MORE: dict[str, dict[str, Any]] = {
    # A "17B" of Llama 4: experts in every layer, or in every second one.
    "Llama-4-Scout-17B": _experts(16, 1, 8192, 8192)
    | {"window": 8192, "window_layers": 36, "other_params": 842_000_000},
    "Llama-4-Maverick-17B": _experts(128, 1, 8192, 8192, dense=24)
    | {"window": 8192, "window_layers": 36, "other_params": 842_000_000},
    "Qwen3-30B-A3B": _experts(128, 8, 768),
    "Qwen3-235B-A22B": _experts(128, 8, 1536),
    "Qwen3-Coder-480B-A35B": _experts(160, 8, 2560),
    "Mixtral-8x7B": _experts(8, 2, 14336),
    "Mixtral-8x22B": _experts(8, 2, 16384),
    "Phi-3.5-MoE": _experts(16, 2, 6400),
    "DeepSeek-V2": _experts(160, 6, 1536, 3072, dense=1) | _latent(1536),
    "DeepSeek-V2-Lite": _experts(64, 6, 1408, 2816, dense=1) | _latent(0),
    "DeepSeek-V3": _experts(256, 8, 2048, 2048, dense=3) | _latent(1536) | _FP8,
    "Kimi-K2": _experts(384, 8, 2048, 2048, dense=1) | _latent(1536) | _FP8,
    "GLM-4.5": _experts(160, 8, 1536, 1536, dense=3),
    "GLM-4.5-Air": _experts(128, 8, 1408, 1408, dense=1),
    "MiniMax-M2": _experts(256, 8, 1536) | _FP8,
    "Qwen2-57B-A14B": _experts(64, 8, 2560, 20480),
    # Three layers of four keep a state: 32 heads of 128 by 128, and 3 inputs of a convolution.
    "Qwen3-Next-80B-A3B": _experts(512, 10, 512, 512)
    | {"state_layers": 36, "state_bytes": 1097728, "state_params": 33718272, "query_gate": True},
    "OLMoE-1B-7B": _experts(64, 8, 1024),
    "Command-R7B": {"window": 4096, "window_layers": 24},
    "EXAONE-4.0-32B": {"window": 4096, "window_layers": 48},
    "StarCoder2-15B": {"matrices": 2, "window": 4096},
    # Eight layers look at a picture, and keep nothing of the text.
    "Llama-3.2-11B": {"state_layers": 8, "other_params": 810_000_000},
    "Llama-3.2-90B": {"state_layers": 20, "other_params": 840_000_000},
    "gpt-oss-20b": _experts(32, 4, 2880)
    | {"window": 128, "window_layers": 12, "expert_bytes": _MXFP4},
    "gpt-oss-120b": _experts(128, 4, 2880)
    | {"window": 128, "window_layers": 18, "expert_bytes": _MXFP4},
    "Gemma-2-2B": {"window": 4096, "window_layers": 13},
    "Gemma-2-9B": {"window": 4096, "window_layers": 21},
    "Gemma-2-27B": {"window": 4096, "window_layers": 23},
    "Gemma-3-1B": {"window": 512, "window_layers": 22},
    "Gemma-3-4B": {"window": 1024, "window_layers": 29, "other_params": 420_000_000},
    "Gemma-3-12B": {"window": 1024, "window_layers": 40, "other_params": 421_000_000},
    "Gemma-3-27B": {"window": 1024, "window_layers": 52, "other_params": 423_000_000},
}

_TIED = (
    *("Llama-3.2-1B", "Llama-3.2-3B", "Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-3B"),
    *("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Phi-4-mini", "SmolLM3-3B"),
    *("SmolLM2-135M", "SmolLM2-360M", "SmolLM2-1.7B", "Granite-3.1-8B"),
    *(name for name in _ROWS if name.startswith("Command")),
    *(name for name in _ROWS if name.startswith("Gemma")),
)

# Tokens that a model was made for, by how its name begins; the longest beginning counts.
_CONTEXTS = {
    "Llama-2": 4096,
    "Llama-3-": 8192,
    "Llama-3": 131072,
    "Llama-4-Scout": 10485760,
    "Llama-4-Maverick": 1048576,
    "Qwen2.5": 32768,
    "Qwen2.5-7": 131072,
    "Qwen2.5-14": 131072,
    "Qwen2.5-32": 131072,
    "Qwen3": 40960,
    "Qwen3-Coder": 262144,
    "Mistral": 32768,
    "Mistral-Nemo": 131072,
    "Mistral-Large": 131072,
    "Ministral": 131072,
    "Mixtral": 32768,
    "Mixtral-8x22B": 65536,
    "Gemma-2": 8192,
    "Gemma-3": 131072,
    "Gemma-3-1B": 32768,
    "Phi-3": 4096,
    "Phi-3.5": 131072,
    "Phi-4": 16384,
    "Phi-4-mini": 131072,
    "DeepSeek": 163840,
    "DeepSeek-V2-Lite": 32768,
    "gpt-oss": 131072,
    "SmolLM2": 8192,
    "SmolLM3": 65536,
    "GLM-4.5": 131072,
    "Kimi-K2": 131072,
    "MiniMax-M2": 196608,
    "Qwen2-57B": 65536,
    "Qwen3-Next": 262144,
    "Gemma": 8192,
    "Command": 131072,
    "OLMo": 4096,
    "Yi": 4096,
    "EXAONE-4.0": 131072,
    "Granite": 131072,
    "StarCoder2": 16384,
    "TinyLlama": 2048,
}

# Other names of the same shape.
_ALIASES: dict[str, tuple[str, ...]] = {
    "Llama-3-8B": ("llama3", "llama3:8b", "Llama-8B"),
    "Llama-3.1-8B": ("llama3.1", "DeepSeek-R1-Distill-Llama-8B"),
    "Llama-3-70B": ("Llama-70B",),
    "Llama-3.1-405B": ("Llama-405B",),
    "Llama-3.2-11B": ("Llama-3.2-11B-Vision",),
    "Llama-3.2-90B": ("Llama-3.2-90B-Vision",),
    "Llama-3.3-70B": ("llama3.3", "DeepSeek-R1-Distill-Llama-70B"),
    "Llama-4-Scout-17B": ("Llama-4-Scout",),
    "Llama-4-Maverick-17B": ("Llama-4-Maverick",),
    "Qwen2.5-0.5B": ("Qwen2-0.5B", "Qwen2.5-Coder-0.5B"),
    "Qwen2.5-1.5B": ("Qwen2-1.5B", "Qwen2.5-Coder-1.5B", "Qwen2.5-Math-1.5B"),
    "Qwen2.5-3B": ("Qwen2.5-Coder-3B",),
    "Qwen2.5-7B": (
        *("Qwen2-7B", "Qwen2.5-Coder-7B", "Qwen2.5-Math-7B"),
        "DeepSeek-R1-Distill-Qwen-7B",
    ),
    "Qwen2.5-14B": ("Qwen2.5-Coder-14B", "DeepSeek-R1-Distill-Qwen-14B"),
    "Qwen2.5-32B": (*("Qwen2.5-Coder-32B", "QwQ-32B", "DeepSeek-R1-Distill-Qwen-32B"),),
    "Qwen2.5-72B": ("Qwen2-72B", "Qwen2.5-Math-72B"),
    "Qwen3-8B": ("DeepSeek-R1-0528-Qwen3-8B",),
    "Qwen3-30B-A3B": ("Qwen3-Coder-30B-A3B", "Qwen3-30B"),
    "Qwen3-235B-A22B": ("Qwen3-235B",),
    "Qwen3-Coder-480B-A35B": ("Qwen3-Coder-480B",),
    "Mistral-7B": ("Mistral",),
    "Mixtral-8x7B": ("Mixtral",),
    "Mistral-Nemo": ("Mistral-Nemo-12B",),
    "Mistral-Small-24B": (
        *("Mistral-Small", "Mistral-Small-3"),
        *("Devstral-Small", "Magistral-Small"),
    ),
    "Mistral-Small-2409": ("Codestral-22B", "Mistral-Small-22B"),
    "Mistral-Large": ("Mistral-Large-2407", "Mistral-Large-123B"),
    "Phi-3-mini": ("Phi-3.5-mini", "Phi-3-mini-3.8B"),
    "Phi-3-medium": ("Phi-3-medium-14B",),
    "Phi-4": ("Phi-4-reasoning", "Phi-4-14B"),
    "Phi-4-mini": ("Phi-4-mini-reasoning",),
    "DeepSeek-V2": ("DeepSeek-V2.5", "DeepSeek-Coder-V2"),
    "DeepSeek-V2-Lite": ("DeepSeek-Coder-V2-Lite",),
    "DeepSeek-V3": ("DeepSeek-V3.1", "DeepSeek-R1"),
    "Kimi-K2": ("Kimi-K2-0905",),
    "GLM-4.5": ("GLM-4.6",),
    "Command-R": ("c4ai-command-r",),
    "Command-R-plus": ("c4ai-command-r-plus",),
    "Command-R7B": ("c4ai-command-r7b", "c4ai-command-r7b-12-2024"),
    "OLMo-2-7B": ("OLMo-2-1124-7B",),
    "OLMo-2-13B": ("OLMo-2-1124-13B",),
    "OLMo-2-32B": ("OLMo-2-0325-32B",),
    "Yi-34B": ("Yi-1.5-34B",),
    "Granite-3.1-8B": ("Granite-3.2-8B", "Granite-3.3-8B"),
    "SmolLM2-135M": ("SmolLM-135M",),
    "SmolLM2-360M": ("SmolLM-360M",),
    "SmolLM2-1.7B": ("SmolLM-1.7B",),
    "TinyLlama-1.1B": ("TinyLlama",),
}


# Models that are another one with a tower for pictures: which, and the tower's parameters.
_TOWERS: dict[str, tuple[str, int]] = {
    "Qwen2.5-VL-3B": ("Qwen2.5-3B", 669_000_000),
    "Qwen2.5-VL-7B": ("Qwen2.5-7B", 677_000_000),
    "Qwen2.5-VL-32B": ("Qwen2.5-32B", 689_000_000),
    "Qwen2.5-VL-72B": ("Qwen2.5-72B", 705_000_000),
    "Qwen2-VL-2B": ("Qwen2.5-1.5B", 665_000_000),
    "Qwen2-VL-7B": ("Qwen2.5-7B", 676_000_000),
    "Qwen3-VL-8B": ("Qwen3-8B", 576_000_000),
    "Qwen3-VL-30B-A3B": ("Qwen3-30B-A3B", 539_000_000),
    "Mistral-Small-3.1-24B": ("Mistral-Small-24B", 440_000_000),
    "Mistral-Small-3.2-24B": ("Mistral-Small-24B", 440_000_000),
    "Pixtral-12B": ("Mistral-Nemo", 434_000_000),
}


def _shape(name: str) -> Shape:
    layers, hidden, heads, kv_heads, head_dim, intermediate, vocab = _ROWS[name]
    beginnings = [beginning for beginning in _CONTEXTS if name.startswith(beginning)]
    return Shape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocab=vocab,
        tied=name in _TIED,
        context=_CONTEXTS[max(beginnings, key=len)],
        **_MORE.get(name, {}),
    )


SHAPES: dict[str, Shape] = {
    **{canonical(name): _shape(name) for name in _ROWS},
    **{canonical(alias): _shape(name) for name, more in _ALIASES.items() for alias in more},
    **{
        canonical(name): msgspec.structs.replace(_shape(base), name=name, other_params=tower)
        for name, (base, tower) in _TOWERS.items()
    },
}
