"""Shapes: the parameters that a model is known to have come out of its sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import UsageError
from llmdyno.predict.configs import shape_from
from llmdyno.predict.shapes import Shape, shape_of
from model_configs import LLAMA


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 6.74, 6.74),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8.03, 8.03),
        ("llama3.1:8b", 8.03, 8.03),
        ("meta-llama/Llama-3.1-405B", 405.9, 405.9),
        ("meta-llama/Llama-3.2-1B", 1.24, 1.24),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 108.6, 18.0),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 401.6, 18.0),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62, 7.62),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30.5, 3.35),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, 12.9),
        ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", 24.0, 24.0),
        ("mistralai/Mistral-Small-Instruct-2409", 22.2, 22.2),
        ("google/gemma-3-27b-it", 27.4, 27.4),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 8.29),
        ("moonshotai/Kimi-K2-Instruct-0905", 1026.0, 32.9),
        ("zai-org/GLM-4.5-Air", 106.9, 13.4),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7, 3.87),
        ("CohereForAI/c4ai-command-r-plus", 103.8, 103.8),
        ("allenai/OLMo-2-1124-7B-Instruct", 7.30, 7.30),
        ("microsoft/phi-4", 14.7, 14.7),
        ("deepseek-ai/DeepSeek-V2-Lite", 15.7, 2.66),
        ("deepseek-ai/DeepSeek-R1-0528", 671.0, 37.6),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", 70.6, 70.6),
        ("openai/gpt-oss-20b", 20.9, 4.19),
        ("openai/gpt-oss-120b", 116.8, 5.71),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.10, 1.10),
    ],
)
def test_known_models_have_their_parameters(name: str, billions: float, active: float) -> None:
    shape = shape_of(name)
    around = shape.params - shape.linear_params
    assert shape.params / 1e9 == pytest.approx(billions, rel=0.01)
    assert (shape.linear_params_active + around) / 1e9 == pytest.approx(active, rel=0.01)


def test_names_say_how_weights_are_kept() -> None:
    assert shape_of("meta-llama/Llama-3.1-8B").weight_bytes == 2.0
    assert shape_of("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic").weight_bytes == 1.0
    assert shape_of("Qwen/Qwen2.5-7B-Instruct-AWQ").weight_bytes == (4 + 20 / 128) / 8
    assert shape_of("openai/gpt-oss-120b").bytes_as_shipped == pytest.approx(65.2e9, rel=0.01)


def test_our_own_models_have_shapes() -> None:
    assert shape_of("tiny").layers == 4
    assert shape_of("small").hidden == 512


@pytest.mark.parametrize("name", ["llama-3.1-9b", "no-org/Llama-3.1-8b-turbo", "quen3-8b"])
def test_unknown_names_get_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match=r"its shape is not known here.*Nearest: .*8B"):
        shape_of(name)


def test_a_folder_a_file_and_the_hub_cache_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    of_folder, of_file = shape_of(str(tmp_path)), shape_of(str(tmp_path / "config.json"))
    assert of_folder.params == of_file.params == shape_of("llama-3-8b").params
    cached = tmp_path / "hub/models--an-org--a-model/snapshots/0a1b"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": 2}))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert shape_of("an-org/a-model").layers == 2


def test_a_user_without_a_home_has_no_hub_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(UsageError, match="an-org/a-model: its shape is not known here"):
        shape_of("an-org/a-model")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (  # GPT-2
            {"n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257, "model_type": "gpt2"},
            {"intermediate": 3072, "kv_heads": 12, "matrices": 2, "tied": True},
        ),
        (  # Falcon
            {
                "hidden_size": 4544,
                "num_attention_heads": 71,
                "num_hidden_layers": 32,
                "multi_query": True,
                "vocab_size": 65024,
                "model_type": "falcon",
            },
            {"kv_heads": 1, "head_dim": 64, "intermediate": 4 * 4544},
        ),
        (  # ChatGLM
            LLAMA
            | {"num_key_value_heads": None, "multi_query_group_num": 2, "ffn_hidden_size": 13696}
            | {"intermediate_size": None, "kv_channels": 128},
            {"kv_heads": 2, "intermediate": 13696},
        ),
        (  # multimodal: the language part's sizes count
            {"text_config": LLAMA, "vision_config": {"hidden_size": 1}, "hidden_size": 7},
            {"hidden": 4096, "layers": 32},
        ),
        (  # Mixtral
            LLAMA | {"num_local_experts": 8, "num_experts_per_tok": 2},
            {"experts": 8, "experts_active": 2, "moe_intermediate": 14336, "dense_layers": 0},
        ),
        (  # Qwen 3 MoE
            LLAMA
            | {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
            | {"decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False}
            | {"sliding_window": 4096, "head_dim": 128},
            {"experts": 128, "moe_intermediate": 768, "window": 0},
        ),
        (  # DeepSeek V3
            LLAMA
            | {"n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048}
            | {"first_k_dense_replace": 3, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
            | {"qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536}
            | {"moe_layer_freq": 1, "quantization_config": {"quant_method": "fp8"}},
            {"dense_layers": 3, "shared_intermediate": 2048, "rope_dim": 64, "weight_bytes": 1.0},
        ),
        (  # Llama 4 Maverick
            LLAMA
            | {"num_local_experts": 128, "intermediate_size_mlp": 16384, "intermediate_size": 8192}
            | {"interleave_moe_layer_step": 2, "attention_chunk_size": 8192},
            {"dense_layers": 16, "moe_intermediate": 8192, "shared_intermediate": 8192}
            | {"intermediate": 16384, "window": 8192, "window_layers": 24},
        ),
        (  # gpt-oss
            LLAMA
            | {"num_local_experts": 32, "experts_per_token": 4, "num_experts_per_tok": 4}
            | {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128}
            | {"quantization_config": {"quant_method": "mxfp4"}},
            {"window": 128, "window_layers": 16, "weight_bytes": 2.0, "expert_bytes": 4.25 / 8},
        ),
        (  # AWQ; compressed-tensors with weights of 8 bits
            LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}},
            {"weight_bytes": (4 + 20 / 128) / 8},
        ),
        (
            LLAMA
            | {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
                }
            },
            {"weight_bytes": 1.0},
        ),
    ],
)
def test_the_spellings_of_hub_configs(
    config: dict[str, object], expected: dict[str, float]
) -> None:
    shape = shape_from(config, "model")
    assert {key: getattr(shape, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "no hidden_size above 0"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers is 'many'"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"num_attention_heads": 0}, "no num_attention_heads above 0"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 1e300}, "hidden_size is 1e"),
        ({"block_types": ["recurrent", "attention"]}, "recurrent blocks"),
        ({"full_attn_idxs": [2, 5]}, "layers of a short convolution"),
    ],
)
def test_nonsense_in_a_config_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        shape_from(LLAMA | change, "model")


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"'])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json: (cannot be read|must be)"):
        shape_of(str(tmp_path))


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json\.$"):
        shape_of(str(tmp_path))
    adapter = tmp_path / "adapter_config.json"
    adapter.write_text(json.dumps({"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}))
    with pytest.raises(UsageError, match=r"a LoRA adapter; plan its base model, --model meta-llam"):
        shape_of(str(tmp_path))
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"model\.gguf: give the config\.json that its weights"):
        shape_of(str(weights))


def test_windows_forget() -> None:
    gemma = shape_of("google/gemma-3-27b-it")
    assert gemma.kv_layer_tokens(500) == 62 * 500
    assert gemma.kv_layer_tokens(8192) == 52 * 1024 + 10 * 8192


def test_layers_with_a_state_keep_no_more_of_a_long_sequence() -> None:
    shape = shape_of("Qwen3-Next-80B-A3B")
    assert shape.cache_layers == 12
    assert shape.kv_layer_tokens(2000) == 12 * 2000
    assert shape.state_layers * shape.state_bytes == 36 * 2 * 548864


def test_latent_attention_keeps_one_vector() -> None:
    assert shape_of("deepseek-v3").kv_numbers == 576
    assert isinstance(shape_of("deepseek-v3"), Shape)
    assert shape_of("llama-3-8b").kv_numbers == 2 * 8 * 128


@pytest.mark.parametrize(
    ("quantised", "cache", "bits"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8", 8),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
            "fp8",
            4.5,
        ),
        ({"quant_method": "fp8", "kv_cache_scheme": None}, "", 8),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}},
            },
            "",
            4.25,
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
            "",
            8,
        ),
    ],
)
def test_a_checkpoint_says_how_weights_and_cache_are_kept(
    quantised: dict[str, Any], cache: str, bits: float
) -> None:
    shape = shape_from(LLAMA | {"quantization_config": quantised}, "a model")
    assert (shape.cache, shape.weight_bytes * 8) == (cache, bits)


def test_keys_shared_by_groups_of_heads_are_counted() -> None:
    """Step 3 calls them attention groups."""
    sizes = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert shape_from(sizes | {"num_attention_groups": 1}, "a model").kv_heads == 1
