"""Configs that cannot work, through the real command line: refused before anything starts.

Most of these engines are not installed here. That is told only to whom the config is right.
"""

import os
import shlex
import socket
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
    # What a model or its precision forbids.
    ("vllm", "org/m/more", (), ("--model org/m/more", "org/name")),
    ("vllm", "org/m", ("quantization=fp8", "dtype=float32"), ("dtype=float32", "bfloat16 or")),
    ("vllm", "org/m", ("quantization=awq", "dtype=bfloat16"), ("quantization=awq", "set float16")),
    ("sglang", "org/m", ("quantization=gptq", "dtype=bfloat16"), ("dtype=bfloat16", "float16")),
    (
        "tgi",
        "org/m",
        ("max_batch_prefill_tokens=100", "max_input_tokens=200"),
        ("max_input_tokens=200", "raise max_batch_prefill_tokens"),
    ),
    (
        "tgi",
        "org/m",
        ("max_batch_prefill_tokens=900", "max_batch_total_tokens=800"),
        ("max_batch_prefill_tokens=900", "raise max_batch_total_tokens"),
    ),
    # A front's setting, and letters of the wrong size.
    ("openvino", "tiny", ("triton_max_batch_size=4",), ("--front triton", "front here is native")),
    ("openvino", "tiny", ("service_workers=4",), ("--front bentoml", "front here is native")),
    ("openvino", "tiny", ("ENABLE_PREFIX_CACHING=1",), ("Did you mean 'enable_prefix_caching'?",)),
    ("openvino", "", (), ("--model: is empty",)),
    ("", "tiny", (), ("engine: no ''", "Known: ")),
    ("../openvino", "tiny", (), ("'../openvino' is not a module", "ours are ")),
    ("openvino", "./none.gguf", (), ("./none.gguf: there is no such file",)),
)

# A whole command in a folder with these files, and what the one sentence must hold.
FILES = {
    "file": "a file\n",
    "bad.gguf": "no GGUF\n",
    "no_model/readme": "",
    "llama/config.json": '{"model_type": "llama", "num_attention_heads": 32}',
    "ir/openvino_model.xml": "<net/>",
    "quoted.toml": 'engine = "vllm"\nmodel = "org/m"\n[baseline]\nmax_num_seqs = "64"\n',
}
LLAMA = "--engine tensorrt-llm --model ./llama"
COMMANDS: tuple[tuple[str, Sequence[str]], ...] = (
    # Where to listen.
    ("serve --port 70000", ("'--port'", "70000", "1<=x<=65535")),
    ("serve --port -1", ("'--port'", "-1")),
    ("serve --port 0", ("'--port'", "1<=x<=65535")),
    ("serve --port eight", ("'--port'", "'eight' is not a valid int")),
    ("serve --host nowhere.invalid", ("--host nowhere.invalid", "no IPv4 address of this machine")),
    (
        "serve --front bentoml --host 192.0.2.1",
        ("--host 192.0.2.1", "no IPv4 address of this machine"),
    ),
    ("serve --host ''", ("--host: is empty", "127.0.0.1")),
    ("serve --port {busy}", ("--port {busy}", "another program listens there")),
    ("serve --front triton --port {busy}", ("--port {busy}", "name another port")),
    ("deploy --port 99999", ("'--port'", "1<=x<=65535")),
    ("deploy --front triton --port 65534", ("--port 65534", "from 1 to 65533")),
    # What to write, and where to.
    ("build --set weight_format=int8 --script no/s.sh", ("--script no/s.sh", "no folder no")),
    ("build --set weight_format=int8 --script no_model", ("--script no_model", "is a folder")),
    ("deploy -m tiny --out file", ("--out file", "is a file; name a folder")),
    ("deploy -m tiny --out file/below", ("--out file/below", "is a file; name a folder")),
    ("tune --model tiny --out file/below", ("--out file/below", "is a file; name a folder")),
    ("deploy -m tiny --image 'two words'", ("--image two words", "registry/name:tag")),
    ("deploy -m tiny --image name:tag@", ("--image name:tag@", "registry/name:tag")),
    ("deploy --out ''", ("--out: is empty",)),
    ("deploy --study no_model", ("no_model: holds no study", "dyno runs")),
    ("tune --workload file --dataset no.jsonl", ("--dataset no.jsonl", "cannot be read")),
    (
        "deploy --engine mlc-llm --model HF://o/m --target compose",
        ("no container image", "--image"),
    ),
    ("deploy -m tiny --target helm", ("--target helm", "compose, kubernetes")),
    # Models that are none.
    ("serve --model ./bad.gguf", ("bad.gguf", "does not begin as a GGUF does")),
    ("serve --model ./ir --front bentoml", ("ir has openvino_model.xml without its weights",)),
    ("serve --engine vllm --model ./no_model", ("--model ./no_model", "has no config.json")),
    ("serve --engine sglang --model ./no_model", ("--model ./no_model", "has no config.json")),
    ("serve --engine tgi --model ./file", ("--model ./file", "no such folder")),
    # GPUs that cannot share the model, or are not there.
    (
        "serve --engine vllm --model ./llama --set tensor_parallel_size=3",
        ("tensor_parallel_size=3", "a divisor of 32"),
    ),
    (f"serve {LLAMA} --set tensor_parallel_size=5", ("tensor_parallel_size=5", "divisor of 32")),
    (
        "serve --engine vllm --model ./llama --set tensor_parallel_size=8 --container docker",
        ("takes 8 GPUs", "2 can be seen here"),
    ),
    # TensorRT-LLM's settings of 2024.
    (
        (
            f"serve {LLAMA} --set backend=tensorrt --set version=0.10.0 --front triton"
            " --set enable_chunked_context=true"
        ),
        ("enable_chunked_context=true", "use_paged_context_fmha=true"),
    ),
    (
        (
            f"serve {LLAMA} --set backend=tensorrt --set version=0.10.0"
            " --set max_attention_window_size=0"
        ),
        ("max_attention_window_size=0", "must be tokens"),
    ),
    (
        f"serve {LLAMA} --set backend=tensorrt --set version=0.10.0",
        ("version=0.10.0", "use --front triton"),
    ),
    (
        f"serve {LLAMA} --set backend=tensorrt --set version=0.10.0 --front bentoml",
        ("version=0.10.0", "use --front triton"),
    ),
    (f"serve {LLAMA} --set backend=tensorrt --set version=0.8.0", ("version=0.8.0", "is 0.9.0")),
    (
        "tune --front triton --set decoupled_mode=false",
        ("decoupled_mode=false", "load streams", "leave it out"),
    ),
    # Words that no command has.
    ("serve --no-such-flag", ("No such option: --no-such-flag", "`dyno serve --help`")),
    ("tune --url http://a:1", ("No such option: --url", "a study starts", "dyno bench --url")),
    ("bench --trials 3", ("No such option: --trials", "it is a flag of dyno tune")),
    ("deploy", ("say what is deployed", "--study", "--engine")),
    ("serv", ("No such command 'serv'", "Did you mean 'serve'")),
    ("build --front triton", ("No such option: --front",)),
    ("knobs vlm", ("vlm: is no engine and no front.", "Did you mean 'vllm'")),
    ("knobs tritn", ("tritn: is no engine and no front.", "Did you mean 'triton'")),
    ("knobs openvino max_num_seqs more", ("unexpected extra argument",)),
    ("knobs native something", ("native: no knob 'something'. There is none.",)),
    ("artifacts lst", ("No such command 'lst'", "Did you mean 'list'")),
    ("tune quoted.toml", ('max_num_seqs="64"', "a whole number")),
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


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_wrong_command_is_refused_in_one_sentence(
    command: str, words: Sequence[str], dyno: Dyno, tmp_path: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    programs = tmp_path / "programs"
    programs.mkdir()
    fields = "NVIDIA H100, 81559, 580.1, 9.0, 1980, 700.00, Disabled"
    for name, script in (("nvidia-smi", f"echo '{fields}'\necho '{fields}'"), ("docker", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    before = sorted(tmp_path.rglob("*"))

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        done = dyno(
            *shlex.split(command.replace("{busy}", port)),
            PATH=f"{programs}:{os.environ['PATH']}",
            HF_HOME=str(tmp_path / "hub"),
        )

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("dyno: ")
    for word in words:
        assert word.replace("{busy}", port) in sentence
    assert sorted(tmp_path.rglob("*")) == before


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
