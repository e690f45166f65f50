"""Memory: the sum by hand, and how GPUs share it."""

import msgspec
import pytest

from llmdyno.predict.gpus import GIB, gpu_of
from llmdyno.predict.grid import shares
from llmdyno.predict.memory import Part, fit, weight_bytes
from llmdyno.predict.shapes import shape_of

LLAMA = shape_of("llama-3-8b")


def test_the_sum_by_hand() -> None:
    found = fit(LLAMA, gpu_of("h200"), Part(longest=1200, share=0.9))
    assert found.weights == pytest.approx(8.03e9 * 2, rel=0.001)
    assert found.kv_bytes_token == 2 * 8 * 128 * 32 * 2
    assert found.usable == pytest.approx(0.9 * 140.4 * GIB)
    assert found.cache == found.usable - found.weights - found.activations - found.graphs
    assert found.sequences == int(found.cache // (1200 * found.kv_bytes_token))
    assert found.fits
    assert f"{found.sequences} sequences of 1,200 tokens" in found.why


def test_weights_too_large_are_told_with_the_sum() -> None:
    found = fit(shape_of("llama-3.1-70b"), gpu_of("h100"), Part())
    assert not found.fits
    assert found.sequences == 0
    assert "weights 131.4 GiB" in found.why
    assert "> 71.6 GiB usable of H100 SXM's 79.6 GiB" in found.why


def test_a_sequence_too_long_is_told_with_the_sum() -> None:
    found = fit(LLAMA, gpu_of("rtx 4090"), Part(longest=131072))
    assert not found.fits
    assert found.why.endswith("but 131,072 tokens of KV cache take 16.0 GiB")


def test_gpus_share_weights_and_cache() -> None:
    model, h100 = shape_of("llama-3.1-70b"), gpu_of("h100")
    four = fit(model, h100, Part(tensor=4, longest=1000))
    two_by_two = fit(model, h100, Part(tensor=2, pipeline=2, longest=1000))
    whole = weight_bytes(model)
    assert four.weights == two_by_two.weights == whole / 4
    assert four.kv_bytes_token == two_by_two.kv_bytes_token == model.kv_numbers * 80 * 2 / 4
    # Sixteen GPUs for eight heads of keys: every head lies on two of them.
    assert fit(model, h100, Part(tensor=16)).kv_bytes_token == model.kv_numbers * 80 * 2 / 8
    # Latent attention: every GPU has the whole vector.
    deepseek = fit(shape_of("deepseek-v3"), gpu_of("h200"), Part(tensor=8))
    assert deepseek.kv_bytes_token == 576 * 61 * 2


def test_heads_are_shared_out_evenly_or_not_at_all() -> None:
    """As vLLM, SGLang and TensorRT-LLM refuse it."""
    found = fit(LLAMA, gpu_of("h200"), Part(tensor=3))
    assert not found.fits
    assert found.why.startswith("32 attention heads cannot be shared out evenly over 3 GPUs; these")
    assert found.why.endswith("can: 1, 2, 4, 8, 16, 32")
    assert fit(LLAMA, gpu_of("h200"), Part(tensor=4)).fits


def test_smaller_numbers_leave_more_room() -> None:
    h100 = gpu_of("h100")
    plain = fit(LLAMA, h100, Part(longest=1000))
    small = fit(LLAMA, h100, Part(longest=1000, weight_bytes=1.0, kv_bytes=1.0))
    assert small.weights < 0.6 * plain.weights
    assert small.kv_bytes_token == plain.kv_bytes_token / 2
    assert small.sequences > 2 * plain.sequences


def test_a_cache_set_by_hand_is_what_it_says_or_does_not_fit() -> None:
    h200 = gpu_of("h200")
    found = fit(LLAMA, h200, Part(longest=1200, cache_bytes=8e9, share=0.1))
    assert found.fits
    assert found.cache == 8e9
    huge = fit(LLAMA, h200, Part(longest=1200, cache_bytes=200e9))
    assert not huge.fits
    assert "the cache is to have 186.3 GiB" in huge.why


def test_a_share_of_what_the_weights_leave() -> None:
    h100 = gpu_of("h100")
    found = fit(LLAMA, h100, Part(share=0.9, share_of_free=True))
    left = h100.memory_bytes - found.weights - found.activations
    assert found.cache == pytest.approx(0.9 * left - found.graphs)


def test_gpus_are_laid_out_as_the_heads_can_be_shared_out() -> None:
    knob, qwen = "tensor_parallel_size", shape_of("qwen2.5-7b")  # 28 heads, 4 of keys

    assert shares(knob, {}, 8, qwen) == [({knob: 4}, 2), ({knob: 2}, 4), ({knob: 1}, 8)]
    # 40 heads, 10 of keys: 4 GPUs share the heads, but neither split nor copy those of keys.
    medium = msgspec.structs.replace(qwen, heads=40, kv_heads=10)
    assert [copies for _, copies in shares(knob, {}, 4, medium)] == [2, 4]
    found = fit(medium, gpu_of("h200"), Part(tensor=4))
    assert found.why.startswith("40 attention heads of which 10 have keys and values cannot")
    assert found.why.endswith("can: 1, 2, 5, 10, 20, 40")


def test_stages_share_layers_out_as_evenly_as_they_can() -> None:
    """The largest has to fit; there are no more stages than layers."""
    h200 = gpu_of("h200")
    one, three = fit(LLAMA, h200, Part()), fit(LLAMA, h200, Part(pipeline=3))
    assert three.weights == pytest.approx(one.weights * 11 / 32)  # 32 layers: 11, 11, 10
    assert three.kv_bytes_token == one.kv_bytes_token * 11 / 32
    assert fit(LLAMA, h200, Part(pipeline=33)).why == (
        "32 layers cannot be shared out over 33 stages"
    )
