"""The same setting in another engine: formulas by hand, and names that the engines have."""

import pytest

from llmdyno import plugins
from llmdyno.serve.equivalents import (
    EXAMPLE,
    GIB,
    MEMORY,
    SAME,
    Memory,
    MemoryShare,
    convert,
    elsewhere,
)

# The arithmetic of each engine's own source, for 80 GiB, 16 of weights, 4 of activations, 2 others.
CROWDED = Memory(total=80 * GIB, weights=16 * GIB, activations=4 * GIB, others=2 * GIB)
CACHE_GIB = {
    "tensorrt-llm": 0.9 * (80 - (2 + 16 + 4)),
    "vllm": 0.9 * 80 - 16 - 4,
    "sglang": (80 - 2 - 16) - (80 - 2) * (1 - 0.9),
    "lmdeploy": 0.9 * (80 - 2 - 16),
}


@pytest.mark.parametrize("row", MEMORY, ids=lambda row: row.engine)
def test_a_share_gives_the_cache_of_the_engines_own_arithmetic(row: MemoryShare) -> None:
    assert row.cache_bytes(0.9, CROWDED) / GIB == pytest.approx(CACHE_GIB[row.engine])
    assert row.share(row.cache_bytes(0.9, CROWDED), CROWDED) == pytest.approx(0.9)


def test_the_same_number_is_not_the_same_cache() -> None:
    assert len({round(gib, 3) for gib in CACHE_GIB.values()}) == len(CACHE_GIB)


@pytest.mark.parametrize("engine", [row.engine for row in MEMORY])
@pytest.mark.parametrize("other", [row.engine for row in MEMORY])
def test_a_conversion_keeps_the_cache(engine: str, other: str) -> None:
    there = convert(engine, 0.9, other, CROWDED)
    sizes = {row.engine: row.cache_bytes for row in MEMORY}

    assert sizes[other](there, CROWDED) == pytest.approx(sizes[engine](0.9, CROWDED))
    assert convert(other, there, engine, CROWDED) == pytest.approx(0.9)


def test_nine_tenths_of_what_is_free_is_more_of_the_whole_in_vllm() -> None:
    # (16 + 4 + 0.9 x 60) / 80
    assert convert("tensorrt-llm", 0.9, "vllm", EXAMPLE) == pytest.approx(0.925)


def test_every_name_is_a_knob_where_we_have_the_engine() -> None:
    known = set(plugins.names("engines"))
    rows = [*({row.engine: row.knobs} for row in MEMORY), *(row.knobs for row in SAME)]
    for row in rows:
        for engine in known & set(row):
            names = {knob.name for knob in plugins.load("engines", engine).knobs}
            assert set(row[engine]) <= names, f"{engine}: {row[engine]}"


def test_the_guide_speaks_of_the_others() -> None:
    shares = elsewhere("tensorrt-llm", "kv_cache_free_gpu_mem_fraction", 0.9)
    assert shares[0].endswith(
        "0.9 is 54.0 GiB with 80 GiB of memory, 16 of weights and 4 of activations"
    )
    assert any(words.startswith("in vllm: gpu_memory_utilization=0.925") for words in shares)
    assert "in vllm: max_num_seqs" in elsewhere("tensorrt-llm", "max_batch_size", None)
    assert "in sglang: disable_radix_cache, but true and false change places" in elsewhere(
        "vllm", "enable_prefix_caching", None
    )
    assert elsewhere("vllm", "dtype", None) == ()
