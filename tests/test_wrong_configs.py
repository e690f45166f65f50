"""Configs that cannot work, through the real command line: refused before anything starts.

Most of these engines are not installed here. That is told only to whom the config is right.
"""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmdyno import plugins

Dyno = Callable[..., subprocess.CompletedProcess[str]]

# Engine, model, settings, and what the one sentence must hold: the knob, its value, what is right.
WRONG: tuple[tuple[str, str, Sequence[str], Sequence[str]], ...] = (
    # The engine, the front, the model.
    ("vlm", "org/m", (), ("no 'vlm'", "Did you mean 'vllm'?")),
    ("sg-lang", "org/m", (), ("no 'sg-lang'", "Did you mean 'sglang'?")),
    ("openvino", "tinny", (), ("tinny", "tiny")),
    ("vllm", "/no/such/folder", (), ("--model /no/such/folder", "no such folder")),
    ("sglang", "./missing", (), ("--model ./missing", "no such folder")),
    ("lmdeploy", "llama", (), ("--model llama", "org/name")),
    ("tgi", "~/missing", (), ("--model ~/missing", "no such folder")),
    ("mlc-llm", "org/m", (), ("--model org/m", "HF://org/name")),
    ("mlc-llm", "HF://m", (), ("--model HF://m", "write HF://org/name")),
    ("mlc-llm", ".", (), ("has no mlc-chat-config.json", "convert_weight")),
    # One setting.
    ("vllm", "org/m", ("max_num_seqs=0",), ("max_num_seqs=0", "from 1 to 16,384")),
    ("vllm", "org/m", ("max_num_seqs=many",), ("max_num_seqs=many", "a whole number")),
    ("vllm", "org/m", ("gpu_memory_utilization=90",), ("utilization=90", "0.05 to 1.0")),
    ("vllm", "org/m", ("gpu_memory_utilization=nan",), ("utilization=nan", "0.05 to 1.0")),
    ("vllm", "org/m", ("kv_cache_dtype=int8",), ("kv_cache_dtype=int8", "fp8_e4m3")),
    ("vllm", "org/m", ("enforce_eager=maybe",), ("enforce_eager=maybe", "true or false")),
    ("vllm", "org/m", ("max_num_seq=8",), ("max_num_seq=8", "Did you mean 'max_num_seqs'?")),
    ("vllm", "org/m", ("max_num_seqs",), ("--set max_num_seqs", "write knob=value")),
    ("sglang", "org/m", ("chunked_prefill_size=5000",), ("=5000", "4096, 8192")),
    ("sglang", "org/m", ("schedule_policy=sjf",), ("schedule_policy=sjf", "lpm")),
    ("sglang", "org/m", ("tp_size=2", "tp_size=4"), ("tp_size=4", "is set twice")),
    ("lmdeploy", "org/m", ("cache_max_entry_count=1.5",), ("count=1.5", "0.05 to 0.98")),
    ("lmdeploy", "org/m", ("quant_policy=2",), ("quant_policy=2", "one of 0, 4, 8")),
    ("tgi", "org/m", ("quantize=int4",), ("quantize=int4", "eetq")),
    ("tgi", "org/m", ("max_waiting_tokens=-1",), ("max_waiting_tokens=-1", "from 0 to")),
    ("mlc-llm", "HF://o/m", ("mode=fast",), ("mode=fast", "server")),
    ("openvino", "tiny", ("cache_size=lots",), ("cache_size=lots", "whole number")),
    # Settings that do not go together.
    (
        "vllm",
        "org/m",
        ("max_num_seqs=512", "max_num_batched_tokens=256"),
        ("max_num_batched_tokens=256", "max_num_seqs=512"),
    ),
    (
        "vllm",
        "org/m",
        ("enforce_eager=true", "max_cudagraph_capture_size=512"),
        ("max_cudagraph_capture_size=512", "enforce_eager=true"),
    ),
    ("vllm", "org/m", ("spec_tokens=4",), ("spec_tokens=4", "set spec_method=ngram")),
    ("vllm", "org/m", ("spec_method=ngram",), ("spec_method=ngram", "spec_tokens=4")),
    (
        "vllm",
        "org/m",
        ("enable_prefix_caching=false", "prefix_caching_hash_algo=xxhash"),
        ("prefix_caching_hash_algo=xxhash", "set enable_prefix_caching=true"),
    ),
    (
        "sglang",
        "org/m",
        ("chunked_prefill_size=-1", "enable_mixed_chunk=true"),
        ("enable_mixed_chunk=true", "chunked_prefill_size=-1"),
    ),
    (
        "sglang",
        "org/m",
        ("disable_radix_cache=true", "schedule_policy=lpm"),
        ("schedule_policy=lpm", "set schedule_policy=fcfs"),
    ),
    (
        "sglang",
        "org/m",
        ("cuda_graph_backend_decode=disabled", "cuda_graph_max_bs_decode=64"),
        ("cuda_graph_max_bs_decode=64", "cuda_graph_backend_decode=disabled"),
    ),
    ("lmdeploy", "org/m", ("quant_policy=16",), ("quant_policy=16", "backend=pytorch")),
    ("lmdeploy", "org/m", ("eager_mode=true",), ("eager_mode=true", "set backend=pytorch")),
    ("lmdeploy", "org/m", ("cache_block_seq_len=16",), ("seq_len=16", "multiple of 32")),
    ("lmdeploy", "org/m", ("communicator=cuda-ipc",), ("communicator=cuda-ipc", "set tp")),
    (
        "tgi",
        "org/m",
        ("max_input_tokens=4096", "max_total_tokens=4096"),
        ("max_input_tokens=4096", "raise max_total_tokens"),
    ),
    ("tgi", "org/m", ("dtype=float16", "quantize=fp8"), ("dtype=float16", "quantize=fp8")),
    (
        "tgi",
        "org/m",
        ("attention=paged", "prefix_caching=true"),
        ("prefix_caching=true", "set attention=flashinfer"),
    ),
    (
        "mlc-llm",
        "HF://o/m",
        ("mode=interactive", "max_num_sequence=8"),
        ("max_num_sequence=8", "set mode=server"),
    ),
    ("mlc-llm", "HF://o/m", ("attention_sink_size=4",), ("sink_size=4", "sliding_window_size")),
    (
        "openvino",
        "tiny",
        ("cache_size=1", "num_kv_blocks=9"),
        ("cache_size=1", "set one of the two"),
    ),
    # Another engine's names.
    ("sglang", "org/m", ("gpu_memory_utilization=0.9",), ("vllm", "mem_fraction_static")),
    ("vllm", "org/m", ("mem_fraction_static=0.9",), ("sglang", "gpu_memory_utilization")),
    ("lmdeploy", "org/m", ("kv_cache_dtype=fp8",), ("vllm", "quant_policy")),
    ("openvino", "tiny", ("max_running_requests=9",), ("sglang", "max_num_seqs")),
    ("tgi", "org/m", ("max_num_batched_tokens=9",), ("vllm", "max_batch_prefill_tokens")),
    ("mlc-llm", "HF://o/m", ("tp_size=2",), ("sglang", "tensor_parallel_shards")),
    ("vllm", "org/m", ("waiting_served_ratio=1",), ("tgi has", "nothing here does the same")),
)


@pytest.mark.parametrize(
    "case", WRONG, ids=[f"{engine} {model} {' '.join(sets)}" for engine, model, sets, _ in WRONG]
)
def test_a_wrong_config_is_refused_in_one_sentence(
    case: tuple[str, str, Sequence[str], Sequence[str]], dyno: Dyno, tmp_path: Path
) -> None:
    engine, model, settings, words = case
    sets = [word for setting in settings for word in ("--set", setting)]

    done = dyno("serve", "--engine", engine, "--model", model, *sets)

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("dyno: ")
    assert "not installed" not in sentence
    for word in words:
        assert word in sentence
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_front_is_refused(dyno: Dyno) -> None:
    done = dyno("serve", "--engine", "vllm", "--model", "org/m", "--front", "nativ")

    assert done.returncode == 2
    assert "no 'nativ'. Did you mean 'native'?" in done.stderr


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy", "tgi", "mlc-llm"])
def test_a_right_config_is_told_what_to_install(engine: str, dyno: Dyno) -> None:
    if plugins.load("engines", engine).version() is not None:
        pytest.skip(f"{engine} is installed here")
    model = "HF://org/name" if engine == "mlc-llm" else "org/name"

    done = dyno("serve", "--engine", engine, "--model", model)

    assert done.returncode == 2
    assert f"--engine {engine}: it is not installed here; " in done.stderr
    assert len(done.stderr.splitlines()) == 1
