"""Models whose layers are not all alike: parameters, caches and states as they were published."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import UsageError
from llmdyno.predict.configs import shape_from
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.memory import Part, fit
from llmdyno.predict.server import Setup, part_of, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.work import work_of
from model_configs import LLAMA

H200 = gpu_of("h200")
_QWEN_35: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "full_attention_interval": 4,
    "head_dim": 256,
    "mamba_ssm_dtype": "float32",
    "vocab_size": 248320,
}


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [  # model cards and papers; embeddings counted
        ("ai21labs/Jamba-v0.1", 51.6, 12.1),
        ("ai21labs/AI21-Jamba-1.5-Large", 398, 94),
        ("nvidia/Nemotron-H-8B-Base-8K", 8.1, 8.1),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", 8.89, 8.89),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6, 3.6),
        ("tiiuae/Falcon-H1-7B-Instruct", 7.59, 7.59),
        ("tiiuae/Falcon-H1-34B-Instruct", 33.6, 33.6),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 49.1, 3.48),
        ("mistralai/Mamba-Codestral-7B-v0.1", 7.29, 7.29),
        ("state-spaces/mamba-2.8b-hf", 2.768, 2.768),
        ("google/gemma-3n-E2B-it", 5.44, 2.44),  # 1.91 of them beside the table of tokens
        ("google/gemma-3n-E4B-it", 7.85, 4.52),
    ],
)
def test_parameters_are_those_that_were_published(
    name: str, billions: float, active: float
) -> None:
    shape = shape_of(name)
    logits = shape.head_params * (1 if shape.tied else 2)
    assert shape.params / 1e9 == pytest.approx(billions, rel=0.01)
    assert (shape.linear_params_active + logits) / 1e9 == pytest.approx(active, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "page"),
    [  # vLLM's "Setting attention block size to N tokens": the state of a layer in tokens of one
        (shape_of("Qwen/Qwen3-Next-80B-A3B-Instruct"), 544),
        (shape_of("nvidia/NVIDIA-Nemotron-Nano-9B-v2"), 672),
        (
            shape_from(
                _QWEN_35
                | {"hidden_size": 1024, "num_hidden_layers": 24, "linear_num_value_heads": 16}
                | {"num_attention_heads": 8, "num_key_value_heads": 2},
                "Qwen3.5-0.8B",
            ),
            544,
        ),
        (
            shape_from(
                _QWEN_35
                | {"hidden_size": 5120, "num_hidden_layers": 64, "linear_num_value_heads": 48}
                | {"num_attention_heads": 24, "num_key_value_heads": 4},
                "Qwen3.6-27B",
            ),
            784,
        ),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_a_state_takes_the_page_that_vllm_logs(shape: Any, page: int) -> None:
    assert 16 * math.ceil(shape.state_bytes / shape.layer_token_bytes(2.0, 1) / 16) == page


def test_the_cache_of_jamba_is_what_its_paper_says() -> None:
    """256 thousand tokens of 16-bit keys and values take 4 GB, those of Mixtral 32."""
    jamba, mixtral = shape_of("Jamba-v0.1"), shape_of("Mixtral-8x7B")
    assert 262144 * jamba.token_bytes(2.0, 1) == 4 * 2**30
    assert 262144 * mixtral.token_bytes(2.0, 1) == 32 * 2**30


def test_the_states_by_hand() -> None:
    """What the recurrence keeps, and three inputs of the convolution."""
    assert shape_of("Jamba-v0.1").state_bytes == 2 * (8192 * 16 + 3 * 8192)
    assert shape_of("Nemotron-H-8B").state_bytes == 2 * (128 * 64 * 128 + 3 * (8192 + 2 * 8 * 128))
    nano = 4 * 64 * 64 * 128 + 2 * 3 * (4096 + 2 * 8 * 128)  # the first in 32 bits
    assert shape_of("Nemotron-3-Nano-30B-A3B").state_bytes == nano
    assert shape_of("Kimi-Linear").state_bytes == 4 * 32 * 128 * 128 + 2 * 3 * 3 * 4096


@pytest.mark.parametrize(
    ("name", "mixing", "attending", "caching", "states"),
    [
        ("Jamba-v0.1", 32, 4, 4, 28),
        ("Nemotron-H-8B", 28, 4, 4, 24),
        ("Nemotron-3-Nano-30B-A3B", 29, 6, 6, 23),
        ("Falcon-H1-34B", 72, 72, 72, 72),  # side by side
        ("Kimi-Linear", 27, 7, 7, 20),
        ("Gemma-3n-E4B", 35, 35, 20, 0),  # 15 read what another keeps
        ("Mamba-Codestral-7B", 64, 0, 0, 64),
    ],
)
def test_which_layers_keep_what(
    name: str, mixing: int, attending: int, caching: int, states: int
) -> None:
    shape = shape_of(name)
    assert (shape.layers, shape.attention_layers) == (mixing, attending)
    assert (shape.cache_layers, shape.state_layers) == (caching, states)


def test_gemma_3n_reads_more_than_it_keeps() -> None:
    """Four of five layers look back 512 tokens, among those that keep and among those that read."""
    shape = shape_of("Gemma-3n-E4B")
    assert shape.kv_layer_tokens(10_000) == pytest.approx(4 * 10_000 + 16 * 512)
    work = work_of(shape, H200, 1, None, "bf16")
    read = (7 * 10_000 + 28 * 512) * shape.layer_token_bytes(2.0, 1)
    assert work.context_read(10_000, 1) * work.kv_bytes == pytest.approx(read)


def test_gpus_share_states_out_and_keys_and_values_as_far_as_there_are_heads() -> None:
    shape = shape_of("Nemotron-3-Nano-30B-A3B")  # 2 heads of keys and values, 64 of states
    found = fit(shape, H200, Part(tensor=8, longest=1000))
    keys_and_values = 6 * 1000 * 2 * 128 * 2
    assert found.longest_bytes == keys_and_values + 23 * shape.state_bytes / 8


def test_a_model_without_attention_holds_as_many_sequences_of_any_length() -> None:
    shape = shape_of("Mamba-Codestral-7B")
    setup = Setup("vllm", shape, H200)
    short, long = (fit(shape, H200, part_of(setup, length)) for length in (10, 100_000))
    assert short.longest_bytes == long.longest_bytes == 64 * shape.state_bytes
    assert "sequences of any length" in long.why
    rules = server_of(setup).rules
    assert rules.cache_tokens / rules.kept(100_000, 1) == pytest.approx(
        long.cache / long.longest_bytes
    )


def test_bamba_names_its_layers_of_attention() -> None:
    config: dict[str, Any] = LLAMA | {
        "model_type": "bamba",
        "attn_layer_indices": [9, 18, 27],
        "mamba_n_heads": 128,
        "mamba_d_head": 64,
        "mamba_d_state": 128,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
    }
    shape = shape_from(config, "Bamba-9B")
    assert shape.params / 1e9 == pytest.approx(9.78, rel=0.01)
    assert (shape.cache_layers, shape.state_layers) == (3, 29)


def test_blocks_may_be_named_by_words(tmp_path: Path) -> None:
    """As transformers 5 writes a config of Nemotron-H."""
    config = {
        "model_type": "nemotron_h",
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
    }
    letters = shape_from(config | {"hybrid_override_pattern": "M-*-"}, "letters")
    words = {"layers_block_type": ["mamba", "mlp", "attention", "mlp"]}
    (tmp_path / "config.json").write_text(json.dumps(config | words))
    assert shape_of(str(tmp_path)).params == letters.params


def test_blocks_of_a_model_without_attention_are_refused_in_a_sentence() -> None:
    shape = shape_of("mamba-2.8b")
    with pytest.raises(UsageError, match=r"^num_kv_blocks=400: mamba-2\.8b has no attention, and"):
        part_of(Setup("openvino", shape, H200, config={"num_kv_blocks": 400}), 100)
