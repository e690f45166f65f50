"""What a study of TensorRT-LLM begins with: trtllm-bench's closed form, BentoML's of 2024."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmdyno.engines import Circumstances, Sizes
from llmdyno.engines._trtllm.starts import (
    BENTOML_2024,
    BENTOML_2024_PYTORCH,
    closed_form,
    starts,
)
from llmdyno.engines.tensorrt_llm import ENGINE
from llmdyno.knobs import Config

GIB = 2.0**30
AFTER = Path(__file__).parents[2] / "examples" / "tensorrt-llm-2024" / "after.toml"
LLAMA_8B = Sizes(params=8.03e9, weight_bytes=16.06e9, layers=32, kv_heads=8, head_dim=128)
LLAMA_70B = Sizes(params=70.6e9, weight_bytes=141.2e9, layers=80, kv_heads=8, head_dim=128)


def known(config: Config | None = None, **given: Any) -> Circumstances:
    fields: dict[str, Any] = {
        "baseline": config or {},
        "model": LLAMA_8B,
        "gpu_bytes": 80 * GIB,
        "prompt_tokens": 1000,
        "answer_tokens": 200,
    }
    return Circumstances(**{**fields, **given})


# Worked out by hand from the formula: (80 GiB - weights) x fraction / bytes a token / length.
@pytest.mark.parametrize(
    ("given", "batch", "tokens"),
    [
        # 58.5 GiB hold 399.6 requests of 1,200 tokens; 6 tokens a step each.
        ({}, 512, 2560),
        # Half the bytes a token: 799.2 requests.
        ({"config": {"kv_cache_dtype": "fp8"}}, 896, 5120),
        # 48.7 requests of 9,840 tokens: the least of both.
        ({"prompt_tokens": 6000, "answer_tokens": 3840}, 64, 2048),
        # 2 x 80 GiB - 131.5 GiB: 25.7 GiB, in 320 KiB a token 70.1 requests.
        ({"model": LLAMA_70B, "config": {"tensor_parallel_size": 2}}, 96, 2048),
        # 4,096 at most, and 32,768 tokens.
        ({"prompt_tokens": 100, "answer_tokens": 4, "gpu_bytes": 400 * GIB}, 4096, 32768),
        # 891.1 requests on both GPUs, 445.6 of them in each of the two stages.
        ({"config": {"pipeline_parallel_size": 2}}, 512, 2816),
    ],
)
def test_the_sizes_are_those_that_trtllm_bench_computes(
    given: dict[str, Any], batch: int, tokens: int
) -> None:
    config = given.pop("config", None)

    assert closed_form(known(config, **given), "1.2.1") == (batch, tokens)


@pytest.mark.parametrize(
    "given",
    [
        {"model": None},
        {"gpu_bytes": None},
        {"prompt_tokens": None},
        {"answer_tokens": None},
        {"model": LLAMA_70B},  # does not fit one GPU
    ],
)
def test_without_the_facts_nothing_is_computed(given: dict[str, Any]) -> None:
    circumstances = known(**given)

    assert closed_form(circumstances, "1.2.1") is None
    assert starts(circumstances, "1.2.1") == (BENTOML_2024_PYTORCH,)


def test_each_road_has_its_own_names() -> None:
    computed, tuned = starts(known(), "1.2.1")
    assert computed == {
        "max_batch_size": 512,
        "max_num_tokens": 2560,
        "cuda_graph_max_batch_size": 512,
        "cuda_graph_padding": True,
    }
    assert tuned == BENTOML_2024_PYTORCH

    built, of_2024 = starts(known({"backend": "tensorrt"}), "1.2.1")
    assert built == {"max_batch_size": 512, "max_num_tokens": 2560}
    assert of_2024 == BENTOML_2024
    names = {knob.name for knob in ENGINE.knobs}
    assert {*computed, *tuned, *built} <= names


def test_what_bentoml_had_set_is_what_the_example_sets() -> None:
    example = tomllib.loads(AFTER.read_text())["baseline"]

    assert {**example, "gemm_plugin": "auto"}.items() >= BENTOML_2024.items()
