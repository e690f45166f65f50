"""The same setting in another engine: formulas by hand, and names that the engines have."""

import pytest

from llmdyno import plugins
from llmdyno.knobs import Knob, MemoryShare
from llmdyno.serve.equivalents import (
    EXAMPLE,
    GIB,
    Memory,
    cache_bytes,
    elsewhere,
    formula,
    like,
    share_for,
)

# The arithmetic of each engine's own source, for 80 GiB, 16 of weights, 4 of activations, 2 others.
CROWDED = Memory(total=80 * GIB, weights=16 * GIB, activations=4 * GIB, others=2 * GIB)
CACHE_GIB = {
    "tensorrt-llm": 0.9 * (80 - (2 + 16 + 4)),
    "vllm": 0.9 * 80 - 16 - 4,
    "sglang": (80 - 2 - 16) - (80 - 2) * (1 - 0.9),
    "lmdeploy": 0.9 * (80 - 2 - 16),
}


def knob(engine: str, name: str) -> Knob:
    found: Knob = next(k for k in plugins.load("engines", engine).knobs if k.name == name)
    return found


RULES: dict[str, MemoryShare] = {
    engine: rules[0]
    for engine in plugins.names("engines")
    if (rules := [k.memory_share for k in plugins.load("engines", engine).knobs if k.memory_share])
}


def test_every_engine_with_a_share_of_memory_is_reckoned_by_hand() -> None:
    assert set(RULES) == set(CACHE_GIB)


@pytest.mark.parametrize("engine", CACHE_GIB)
def test_a_share_gives_the_cache_of_the_engines_own_arithmetic(engine: str) -> None:
    size_bytes = cache_bytes(RULES[engine], 0.9, CROWDED)

    assert size_bytes / GIB == pytest.approx(CACHE_GIB[engine])
    assert share_for(RULES[engine], size_bytes, CROWDED) == pytest.approx(0.9)


def test_the_same_number_is_not_the_same_cache() -> None:
    assert len({round(gib, 3) for gib in CACHE_GIB.values()}) == len(CACHE_GIB)


def test_the_formulas_are_those_of_the_engines() -> None:
    assert {engine: formula(rule) for engine, rule in RULES.items()} == {
        "tensorrt-llm": "cache = share x (total - others - weights - activations)",
        "vllm": "cache = share x total - weights - activations",
        "sglang": "cache = share x (total - others) - weights",
        "lmdeploy": "cache = share x (total - others - weights)",
    }


def test_nine_tenths_of_what_is_free_is_more_of_the_whole_in_vllm() -> None:
    # (16 + 4 + 0.9 x 60) / 80
    size_bytes = cache_bytes(RULES["tensorrt-llm"], 0.9, EXAMPLE)
    assert share_for(RULES["vllm"], size_bytes, EXAMPLE) == pytest.approx(0.925)


def test_every_purpose_is_served_by_several_engines() -> None:
    every = [
        k for engine in plugins.names("engines") for k in plugins.load("engines", engine).knobs
    ]
    lonely = {k.means for k in every if k.means and len(like(k)) == 1}

    assert not lonely  # else a purpose is misspelt
    assert len({k.means for k in every if k.means}) == 20


def test_the_guide_speaks_of_the_others() -> None:
    fraction = knob("tensorrt-llm", "kv_cache_free_gpu_mem_fraction")
    shares = elsewhere("tensorrt-llm", fraction, 0.9)
    assert shares[0].endswith(
        "0.9 is 54.0 GiB with 80 GiB of memory, 16 of weights and 4 of activations"
    )
    assert any(words.startswith("in vllm: gpu_memory_utilization=0.925") for words in shares)
    assert any(
        words.startswith("in tensorrt-llm: free_gpu_memory_fraction=")
        for words in elsewhere("vllm", knob("vllm", "gpu_memory_utilization"), 0.9)
    )
    assert "in vllm: max_num_seqs" in elsewhere(
        "tensorrt-llm", knob("tensorrt-llm", "max_batch_size"), None
    )
    assert "in sglang: disable_radix_cache, but true and false change places" in elsewhere(
        "vllm", knob("vllm", "enable_prefix_caching"), None
    )
    assert elsewhere("vllm", knob("vllm", "dtype"), None) == ()
