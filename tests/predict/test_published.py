"""Models by their config.json: parameters, bytes of weights and of a token's cache as published.

`published.json` has each config without what the predictor never looks at. Parameters and
gigabytes are those of the checkpoint on the hub (multi-token prediction left out: no engine loads
it unless it is told to), the cache's bytes are 16-bit keys and values, or latent vectors, of all
layers that keep any.
"""

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdyno.errors import UsageError
from llmdyno.predict.configs import read_config, shape_from
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.hybrids import CONFIGS
from llmdyno.predict.memory import weight_bytes
from llmdyno.predict.server import Setup, server_of
from model_configs import LLAMA

MODELS = json.loads(Path(__file__).with_name("published.json").read_text())


@pytest.mark.parametrize("model", MODELS, ids=[each["model"] for each in MODELS])
def test_a_config_gives_what_was_published(model: dict[str, Any]) -> None:
    shape = shape_from(model["config"], model["model"])
    assert shape.params / 1e9 == pytest.approx(model["params_billion"], rel=0.01)
    assert 2 * shape.cache_layers * shape.kv_numbers == model["kv_bytes_token"]
    if model["gigabytes"]:
        assert weight_bytes(shape) / 1e9 == pytest.approx(model["gigabytes"], rel=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "it is no decoder .model_type t5"),
        ({"model_type": "bert"}, "it is no decoder .model_type bert"),
        ({"block_configs": [{}]}, "blocks that differ from layer to layer .block_configs"),
        ({"hybrid_override_pattern": "M-*x"}, "blocks have 'x', of which no sum is known"),
        ({"hybrid_override_pattern": "M-*"}, "no mamba_n_heads above 0"),
        ({"attn_layer_period": 8, "attn_layer_offset": 40, "mamba_d_state": 16}, "none of its 32"),
        ({"attn_layer_period": 8}, "no mamba_d_state above 0"),
        ({"linear_attn_config": {"num_heads": 1}}, "linear_attn_config., .* known of kimi_linear"),
        ({"num_kv_shared_layers": 20}, "num_kv_shared_layers., .* known of gemma3n only"),
        ({"global_head_dim": 512}, "heads of another size in some layers .global_head_dim"),
        ({"moe_latent_size": 1024}, "experts in a space of their own .moe_latent_size"),
        ({"num_mem_blocks": 2}, "attention blocks that several layers share .num_mem_blocks"),
        ({"layer_types": ["full_attention", "rwkv"]}, "layer_types has 'rwkv'"),
        ({"layer_types": ["mamba"]}, "no layer of layer_types is attention"),
        ({"layer_types": ["mamba", "attention"]}, "no mamba_n_heads above 0"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "no linear_num_value_heads"),
        ({"cross_attention_layers": [0] * 32}, "none of its 32 layers has keys and values"),
        ({"hidden_size": 16}, "has 32 heads in a hidden_size of 16 only"),
        ({"attn_type_list": [0, 1]}, "attn_type_list has linear attention"),
        ({"text_config": {"model_type": "unheard_of"}, "hidden_size": None}, "no hidden_size"),
    ],
)
def test_what_no_sum_is_known_of_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        shape_from(LLAMA | change, "model")


@pytest.mark.parametrize(
    ("quantised", "weight", "expert", "computes"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, 8, 0, "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4, 0, ""),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8, 0, ""),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5, 0, ""),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8, 0, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5, 0, "fp4"),
        # Attention as it was: only the experts are small.
        ({"quant_method": "mxfp4"}, 16, 4.25, ""),
        (
            {"quant_method": "compressed-tensors", "ignore": ["re:.*self_attn.*"]}
            | {"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 32}}}},
            *(16, 4.5, ""),
        ),
        (  # every layer by its number
            {
                "quant_method": "fp8",
                "modules_to_not_convert": [
                    f"model.layers.{layer}.self_attn.{part}_proj"
                    for layer in range(32)
                    for part in "qo"
                ],
            },
            *(16, 8, ""),
        ),
        (  # half of them; a tower's, and another kind of attention, are none of the decoder's
            {
                "quant_method": "fp8",
                "modules_to_not_convert": [
                    *(
                        f"model.layers.{layer}.self_attn.{part}_proj"
                        for layer in range(16)
                        for part in "qo"
                    ),
                    *(f"model.visual.blocks.{block}.attn.proj" for block in range(40)),
                    *(f"model.layers.{layer}.linear_attn.out_proj" for layer in range(40)),
                    "re:.*visual.*attn.*",
                ],
            },
            *(8, 0, "fp8"),
        ),
        # 8 bits for inputs, too, or for the weights alone.
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized"}
            | {
                "config_groups": {
                    "a": {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {}}
                }
            },
            *(8, 0, "int8"),
        ),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"}
            | {"config_groups": {"a": {"weights": {"num_bits": 8, "type": "int"}}}},
            *(8, 0, ""),
        ),
        ("none", 16, 0, ""),
    ],
)
def test_how_weights_are_kept(
    quantised: object, weight: float, expert: float, computes: str
) -> None:
    config = LLAMA | {"num_local_experts": 8, "quantization_config": quantised}
    shape = shape_from(config, "model")
    assert (shape.weight_bytes * 8, shape.expert_bytes * 8) == (weight, expert)
    assert shape.computes == computes


def test_what_model_optimizer_writes_beside_the_config_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(tmp_path / "config.json", "model").weight_bytes == 2.0
    apart = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(apart))
    assert read_config(tmp_path / "config.json", "model").weight_bytes == 1.0


def test_an_encoder_of_sound_counts_and_one_without_sizes_does_not() -> None:
    plain = shape_from(LLAMA, "model").params
    whisper = {"d_model": 1280, "encoder_layers": 32, "encoder_ffn_dim": 5120}
    heard = shape_from({"text_config": LLAMA, "audio_config": whisper}, "model").params
    assert heard - plain == pytest.approx(0.65e9, rel=0.02)  # 637 M, and what joins it
    assert shape_from({"text_config": LLAMA, "audio_config": {}}, "model").params == plain


_JUNK: tuple[Any, ...] = (
    None,
    0,
    -1,
    7,
    1e300,
    float("nan"),
    "x",
    True,
    [],
    {},
    [1, 2],
    {"a": 1},
    [None],
    10**8,
)


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_junk_in_a_config_ends_in_a_shape_or_in_one_sentence(rng: Random) -> None:
    """Whatever a key holds: a server can be made of the shape, or the key is named."""
    known = [*(each["config"] for each in MODELS), *CONFIGS.values()]
    config = json.loads(json.dumps(rng.choice(known)))
    for _ in range(rng.choice((1, 2, 3))):
        inner = config
        while True:
            key = rng.choice(sorted(inner))
            if not (isinstance(inner[key], dict) and inner[key] and rng.random() < 0.7):
                break
            inner = inner[key]
        inner[key] = copy.deepcopy(rng.choice(_JUNK))  # the next round may change it
    try:
        server_of(Setup("vllm", shape_from(config, "model"), gpu_of("h200")))
    except UsageError as error:
        said = str(error)
    else:
        return
    assert said.startswith("--model")
