"""A server by its config: what an engine sets by itself on a GPU, and what a checkpoint says."""

from typing import Any

import msgspec
import pytest

from llmdyno.knobs import Config
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.server import Setup, memory_of, not_simulated, server_of
from llmdyno.predict.shapes import shape_of

LLAMA = shape_of("llama-3.1-8b")


@pytest.mark.parametrize(
    ("engine", "gpu", "sequences", "tokens", "graph"),
    [
        ("vllm", "a100", 256, 2048, 256),  # 80 GiB, but vLLM names it as an exception
        ("vllm", "h100", 1024, 8192, 512),
        ("vllm", "l40s", 256, 2048, 256),
        ("sglang", "t4", 2048, 2048, 8),
        ("sglang", "rtx 5090", 2048, 4096, 48),
        ("sglang", "l40s", 2048, 4096, 32),
        ("sglang", "h200", 2048, 8192, 256),
        ("sglang", "b200", 2048, 16384, 512),
        ("lmdeploy", "a100", 384, 8192, None),
        ("lmdeploy", "gh200", 1024, 8192, None),
        ("lmdeploy", "b200", 128, 8192, None),  # its table of names has no newer one
    ],
)
def test_what_an_engine_sets_by_itself_depends_on_the_gpu(
    engine: str, gpu: str, sequences: int, tokens: int, graph: int | None
) -> None:
    found = server_of(Setup(engine, LLAMA, gpu_of(gpu)))
    assert (found.rules.sequences, found.rules.tokens) == (sequences, tokens)
    assert graph in (None, found.graphs.decode_max)


@pytest.mark.parametrize(
    ("gpu", "gpus", "graph"),
    [
        ("t4", 4, 8),
        ("rtx 5090", 4, 160),
        ("l40s", 2, 32),
        ("l40s", 4, 160),
        ("h100", 2, 256),
        ("h100", 4, 512),
        ("b200", 4, 512),
    ],
)
def test_sglang_has_larger_graphs_where_four_gpus_share_each_layer(
    gpu: str, gpus: int, graph: int
) -> None:
    found = server_of(Setup("sglang", LLAMA, gpu_of(gpu), config={"tp_size": gpus}))
    assert found.graphs.decode_max == graph


@pytest.mark.parametrize(
    ("engine", "method", "config", "numbers"),
    [
        ("vllm", "compressed-tensors", {}, 1),
        ("vllm", "modelopt", {"kv_cache_dtype": "auto"}, 1),
        ("vllm", "modelopt", {"kv_cache_dtype": "bfloat16"}, 2),
        ("sglang", "modelopt", {}, 1),
        ("sglang", "compressed-tensors", {}, 2),
        ("lmdeploy", "modelopt", {}, 2),
    ],
)
def test_a_checkpoint_says_in_what_its_keys_and_values_are_kept(
    engine: str, method: str, config: dict[str, Any], numbers: int
) -> None:
    shape = msgspec.structs.replace(LLAMA, cache="fp8", method=method)
    setup = Setup(engine, shape, gpu_of("h200"), config=config)
    assert memory_of(setup, 1000).kv_bytes_token == 2 * 8 * 128 * 32 * numbers
    assert server_of(setup).work.kv_bytes == 2 * 8 * 128 * 32 * numbers


def test_settings_that_no_forecast_has_are_named() -> None:
    config: Config = {"max_num_seqs": 64, "stream_interval": 8, "dtype": "bfloat16", "of_front": 3}
    assert not_simulated("vllm", config) == "stream_interval=8"
    assert not_simulated("vllm", {"stream_interval": 1}) == ""  # its own default


def test_what_an_engine_does_not_look_at_is_not_said_to_be_left_out() -> None:
    """OpenVINO's max_num_seqs binds only without split-fuse, and then it is simulated."""
    config: Config = {"max_num_seqs": 26, "INFERENCE_NUM_THREADS": 0}
    config = {**config, "INFERENCE_PRECISION_HINT": "f32"}
    for own in (config, {**config, "dynamic_split_fuse": False}):
        assert not_simulated("openvino", own) == "INFERENCE_PRECISION_HINT=f32"


def test_no_threads_are_the_engines_own_choice() -> None:
    """0 leaves it to OpenVINO, which takes one a core."""
    cpu = msgspec.structs.replace(gpu_of("h200"), name="cpu", cores=8)

    def flops(**config: int) -> float:
        return server_of(Setup("openvino", LLAMA, cpu, config=config)).work.flops

    assert flops(INFERENCE_NUM_THREADS=0) == flops() == flops(INFERENCE_NUM_THREADS=8)
    assert flops(INFERENCE_NUM_THREADS=2) == flops() / 4
