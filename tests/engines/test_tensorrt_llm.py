"""What TensorRT-LLM is told, against the names in its own sources. It is not started here."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli import flags as ask
from llmdyno.engines._trtllm.build_knobs import BUILD, CHECKPOINT, SHARED
from llmdyno.engines._trtllm.pytorch_knobs import PYTORCH
from llmdyno.engines._trtllm.template_knobs import SERVE_PATHS, TEMPLATE
from llmdyno.engines.tensorrt_llm import ENGINE
from llmdyno.errors import UsageError
from llmdyno.fronts import native
from llmdyno.knobs import Config, Knob, Value, check, default
from llmdyno.serve.stack import Stack

EXAMPLES = Path(__file__).parents[2] / "examples" / "tensorrt-llm-2024"
MODEL = "./Meta-Llama-3-8B-Instruct"
OLD: Config = {"backend": "tensorrt", "version": "0.10.0"}
LAST: Config = {"backend": "tensorrt", "version": "1.2.1"}
HOST, PORT = "127.0.0.1", 8000

# What trtllm-build takes, of what we set.
BUILD_TABLE = json.loads(
    (Path(__file__).parent / "arguments" / "tensorrt_llm.json").read_text(encoding="utf-8")
)["build"]
BUILD_FLAGS = {flag[2:] for flag in BUILD_TABLE}
# The template's keys in 0.10, of all that are not another model's.
TEMPLATE_0_10 = {
    *("batch_scheduler_policy", "batching_strategy", "decoding_mode", "enable_chunked_context"),
    *("enable_kv_cache_reuse", "enable_trt_overlap", "exclude_input_in_output"),
    *("kv_cache_free_gpu_mem_fraction", "lora_cache_gpu_memory_fraction"),
    *("lora_cache_host_memory_bytes", "lora_cache_max_adapter_size"),
    *(
        "lora_cache_optimal_adapter_size",
        "max_attention_window_size",
        "max_queue_delay_microseconds",
    ),
    *("max_tokens_in_paged_kv_cache", "medusa_choices", "normalize_log_probs"),
    *("cancellation_check_period_ms", "stats_check_period_ms", "iter_stats_max_iterations"),
    *("request_stats_max_iterations", "gpu_weights_percent", "kv_cache_host_memory_bytes"),
    *("kv_cache_onboard_blocks", "sink_token_length", "triton_backend"),
}


@pytest.fixture(autouse=True)
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENSORRT_LLM_EXAMPLES", raising=False)
    folder = tmp_path / MODEL
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def document(config: Config) -> Any:
    launch = ENGINE.launch(MODEL, config, artifact=Path("artifact"), host=HOST, port=PORT)
    (text,) = launch.files.values()
    return json.loads(text)


def test_the_sizes_of_graphs_are_numbers_in_the_document() -> None:
    config: Config = {"cuda_graph_batch_sizes": "1,8,64", "print_iter_log": True}

    assert document(config) == {
        "cuda_graph_config": {"batch_sizes": [1, 8, 64]},
        "print_iter_log": True,
    }


def test_the_template_keys_of_0_10_are_the_knobs_of_0_10() -> None:
    had = {knob.name for knob in TEMPLATE if knob.defaults[-1][0] in {"0.9", "0.10"}}

    assert had == TEMPLATE_0_10
    assert set(SERVE_PATHS) <= {knob.name for knob in TEMPLATE}


def test_every_build_knob_is_a_flag_of_trtllm_build() -> None:
    gone = {"max_output_len"}
    for knob in BUILD:
        assert knob.name in BUILD_FLAGS | gone
    config: dict[str, Value] = {**LAST, "max_seq_len": 4096, "tensor_parallel_size": 2}
    for knob in (*BUILD, *SHARED):
        value = default(knob, "1.2.1")
        if knob.name not in config and knob.name not in gone and value is not None:
            config[knob.name] = value
    (_, build) = ENGINE.build(MODEL, config, Path("artifact"))
    assert {word[2:] for word in build.argv if word.startswith("--")} <= BUILD_FLAGS
    assert build.argv[-2:] == ("--workers", "2")


@pytest.mark.parametrize("knob", BUILD, ids=[knob.name for knob in BUILD])
def test_a_build_knob_is_written_as_trtllm_build_reads_it(knob: Knob) -> None:
    if knob.name not in BUILD_FLAGS:
        assert knob.until == "0.12"
        return
    kind, theirs, *choices = BUILD_TABLE[f"--{knob.name}"]
    for value in knob.choices or ((True, False) if knob.kind == "bool" else (8,)):
        argv = ENGINE.build(MODEL, {**LAST, knob.name: value}, Path("artifact"))[1].argv
        word = argv[argv.index(f"--{knob.name}") + 1]
        assert not choices or word in choices[0]
        assert kind != "int" or int(word) == value
    ours = default(knob, "1.2.1")
    as_word = {True: "enable", False: "disable"}.get(ours) if isinstance(ours, bool) else ours
    assert theirs in {as_word, "…"}


def test_the_pytorch_road_builds_nothing_and_reads_a_typed_document() -> None:
    config: Config = {
        "max_batch_size": 512,
        "free_gpu_memory_fraction": 0.92,
        "enable_block_reuse": False,
        "max_attention_window": "4096,32768",
        "capacity_scheduler_policy": "MAX_UTILIZATION",
        "enable_chunked_prefill": True,
        "cuda_graph_max_batch_size": 512,
        "cuda_graph_padding": True,
        "stream_interval": 4,
        "tokens_per_block": 64,
        "dtype": "bfloat16",
        "speculative_decoding": "NGram",
        "max_draft_len": 3,
        "torch_compile": True,
    }

    assert ENGINE.build(MODEL, config, Path("artifact")) == ()
    ENGINE.check("org/model", config)
    launch = ENGINE.launch("org/model", config, artifact=None, host=HOST, port=PORT)
    (path,) = launch.files
    assert launch.argv == (
        *("trtllm-serve", "org/model", "--host", HOST, "--port", "8000"),
        *("--max_batch_size", "512", "--extra_llm_api_options", path),
    )
    assert json.loads(launch.files[path]) == {
        "kv_cache_config": {
            "free_gpu_memory_fraction": 0.92,
            "enable_block_reuse": False,
            "max_attention_window": [4096, 32768],
            "tokens_per_block": 64,
        },
        "dtype": "bfloat16",
        "scheduler_config": {"capacity_scheduler_policy": "MAX_UTILIZATION"},
        "enable_chunked_prefill": True,
        "cuda_graph_config": {"max_batch_size": 512, "enable_padding": True},
        "stream_interval": 4,
        "speculative_config": {"decoding_type": "NGram", "max_draft_len": 3},
        "torch_compile_config": {},
    }
    assert document({"cuda_graph": False}) == {"cuda_graph_config": None}


def test_equal_settings_are_one_file_and_none_are_no_file() -> None:
    one, same, other = (
        ENGINE.launch("org/model", config, artifact=None, host=HOST, port=PORT).files
        for config in ({"stream_interval": 2}, {"stream_interval": 2}, {"stream_interval": 3})
    )

    assert one == same
    assert set(one) != set(other)
    bare = ENGINE.launch("org/model", {}, artifact=None, host=HOST, port=PORT)
    assert not bare.files
    assert "--extra_llm_api_options" not in bare.argv


def test_an_engine_is_served_with_its_runtime_keys() -> None:
    config: Config = {
        **LAST,
        "kv_cache_free_gpu_mem_fraction": 0.9,
        "batch_scheduler_policy": "guaranteed_no_evict",
        "enable_chunked_context": True,
        "max_queue_delay_microseconds": 100,
    }
    launch = ENGINE.launch(MODEL, config, artifact=Path("artifact"), host=HOST, port=PORT)

    assert launch.argv[:7] == (
        *("trtllm-serve", "artifact/engine", "--tokenizer", MODEL),
        *("--backend", "tensorrt", "--host"),
    )
    assert document(config) == {
        "kv_cache_config": {"free_gpu_memory_fraction": 0.9},
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "enable_chunked_prefill": True,
    }
    assert any("only Triton reads max_queue_delay" in doubt for doubt in launch.doubts)
    with pytest.raises(UsageError, match="run dyno build first"):
        ENGINE.launch(MODEL, LAST, artifact=None, host=HOST, port=PORT)
    with pytest.raises(UsageError, match=r"serves engines from 0\.20 on; use --front triton"):
        ENGINE.launch(MODEL, OLD, artifact=Path("artifact"), host=HOST, port=PORT)


CHECKPOINTS: tuple[tuple[Config, tuple[str, ...]], ...] = (
    ({"dtype": "bfloat16"}, ("examples/llama/convert_checkpoint.py", "--dtype", "bfloat16")),
    (
        {"quantization": "int8_weight_only", "kv_cache_quantization": "int8"},
        (
            *("examples/llama/convert_checkpoint.py", "--use_weight_only"),
            *("--weight_only_precision", "int8", "--int8_kv_cache"),
        ),
    ),
    (
        {"quantization": "int4_awq", "awq_block_size": 128, "calib_size": 32},
        (
            *("examples/quantization/quantize.py", "--qformat", "int4_awq"),
            *("--awq_block_size", "128", "--calib_size", "32"),
        ),
    ),
    (
        {"quantization": "fp8", "kv_cache_quantization": "fp8", "tensor_parallel_size": 2},
        (
            *("examples/quantization/quantize.py", "--tp_size", "2"),
            *("--qformat", "fp8", "--kv_cache_dtype", "fp8"),
        ),
    ),
    (
        {"kv_cache_quantization": "fp8"},
        (
            *("examples/quantization/quantize.py", "--qformat", "full_prec"),
            *("--kv_cache_dtype", "fp8"),
        ),
    ),
    ({"version": "1.2.1"}, ("examples/models/core/llama/convert_checkpoint.py",)),
)


@pytest.mark.parametrize(("config", "words"), CHECKPOINTS)
def test_a_checkpoint_is_converted_or_quantised(config: Config, words: tuple[str, ...]) -> None:
    config = {**OLD, **config}
    check(config, ENGINE.knobs)
    ENGINE.check(MODEL, config)
    first, _ = ENGINE.build(MODEL, config, Path("artifact"))

    place = ("--model_dir", MODEL, "--output_dir", "artifact/checkpoint")
    assert first.argv == ("python3", words[0], *place, *words[1:])


def test_the_scripts_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORRT_LLM_EXAMPLES", "/app/tensorrt_llm/examples")
    first, _ = ENGINE.build(MODEL, OLD, Path("artifact"))

    assert first.argv[1] == "/app/tensorrt_llm/examples/llama/convert_checkpoint.py"


# The rows of what BentoML set in June and in July 2024, and the commands of its README.
BEFORE = """\
image nvcr.io/nvidia/tritonserver:24.04-trtllm-python-py3
tensorrt_llm 0.9.0
python3
  examples/llama/convert_checkpoint.py
  --model_dir ./Meta-Llama-3-8B-Instruct
  --output_dir artifact/checkpoint
  --dtype bfloat16
trtllm-build
  --checkpoint_dir artifact/checkpoint
  --output_dir artifact/engine
  --max_input_len 512
  --gemm_plugin bfloat16
  --gpt_attention_plugin bfloat16
  --paged_kv_cache enable
  --use_paged_context_fmha enable
  --max_batch_size 64
config.pbtxt
  batching_strategy:inflight_fused_batching
  max_queue_delay_microseconds:0
  max_beam_width:1
  max_attention_window_size:2560
  kv_cache_free_gpu_mem_fraction:0.95
  exclude_input_in_output:true
  enable_kv_cache_reuse:true
  triton_max_batch_size:64
  decoupled_mode:true
  preprocessing_instance_count:1
  postprocessing_instance_count:1
  bls_instance_count:1
  accumulate_tokens:false
"""
AFTER = """\
image nvcr.io/nvidia/tritonserver:24.06-trtllm-python-py3
tensorrt_llm 0.10.0
python3
  examples/llama/convert_checkpoint.py
  --model_dir ./Meta-Llama-3-8B-Instruct
  --output_dir artifact/checkpoint
  --dtype bfloat16
trtllm-build
  --checkpoint_dir artifact/checkpoint
  --output_dir artifact/engine
  --max_input_len 2048
  --multiple_profiles enable
  --gemm_plugin bfloat16
  --gpt_attention_plugin bfloat16
  --paged_kv_cache enable
  --use_paged_context_fmha enable
  --max_batch_size 2048
  --max_num_tokens 2048
config.pbtxt
  triton_backend:tensorrtllm
  batching_strategy:inflight_fused_batching
  max_queue_delay_microseconds:0
  max_beam_width:1
  max_attention_window_size:2560
  kv_cache_free_gpu_mem_fraction:0.9
  exclude_input_in_output:true
  enable_chunked_context:true
  triton_max_batch_size:2048
  decoupled_mode:true
  preprocessing_instance_count:1
  postprocessing_instance_count:8
  bls_instance_count:1
  accumulate_tokens:false
"""
OF_THE_FRONT = {
    *("triton_max_batch_size", "decoupled_mode", "preprocessing_instance_count"),
    *("postprocessing_instance_count", "bls_instance_count", "accumulate_tokens"),
}


@pytest.mark.parametrize(("name", "lines"), [("before", BEFORE), ("after", AFTER)])
def test_what_was_set_in_2024_comes_out_line_by_line(name: str, lines: str) -> None:
    show = runpy.run_path(str(EXAMPLES / "show.py"))

    assert show["lines"](EXAMPLES / f"{name}.toml") == lines.splitlines()


@pytest.mark.parametrize("name", ["before", "after"])
def test_what_was_set_in_2024_is_accepted_with_its_doubt(name: str) -> None:
    study = ask.study_spec(ask.read_toml(EXAMPLES / f"{name}.toml"))
    config = {knob: v for knob, v in study.baseline.items() if knob not in OF_THE_FRONT}

    check(config, ENGINE.knobs)
    ENGINE.check(study.model, config)


# Each is refused in one sentence: the settings, and words of it.
WRONG: tuple[tuple[Config, str], ...] = (
    ({"version": "0.10.0"}, "the PyTorch road came with 1.0; set backend=tensorrt"),
    ({"version": "latest"}, "version=latest: must be a release such as 0.10.0"),
    ({**LAST, "version": "1.4.0rc1"}, "builds no engines any more, 1.3.0rc20 was the last"),
    ({**LAST, "version": "1.3.0rc21"}, "builds no engines any more"),
    ({"kv_cache_free_gpu_mem_fraction": 0.9}, "use free_gpu_memory_fraction instead"),
    ({"gemm_plugin": "auto"}, "gemm_plugin=auto has no effect while backend=pytorch"),
    ({"enable_chunked_context": True}, "use enable_chunked_prefill instead"),
    ({**LAST, "enable_block_reuse": True}, "use enable_kv_cache_reuse instead"),
    ({**OLD, "max_seq_len": 4096}, "version 0.10.0 does not have it; it came with 0.11"),
    ({**LAST, "max_output_len": 512}, "was removed in 0.12"),
    ({**OLD, "reduce_fusion": True}, "version 0.10.0 does not have it"),
    ({**OLD, "version": "0.9.0", "cancellation_check_period_ms": 50}, "it came with 0.10"),
    ({"version": "1.0.0", "sampler_type": "TorchSampler"}, "it came with 1.1"),
    ({"version": "1.4.0rc4", "sampler_type": "TRTLLMSampler"}, "PyTorch's sampler is the only one"),
    ({"max_batch_size": 512, "max_num_tokens": 256}, "set max_num_tokens to at least 512"),
    ({"free_gpu_memory_fraction": 1.0}, "set at most 0.95"),
    ({**OLD, "kv_cache_free_gpu_mem_fraction": 1.0}, "set at most 0.95"),
    ({"free_gpu_memory_fraction": 90.0}, "must be a number from 0.05 to 1.0"),
    ({"max_attention_window": "2048", "max_seq_len": 4096}, "would be silently forgotten"),
    ({"max_attention_window": "wide"}, "must be tokens, or tokens a layer with commas between"),
    (
        {**OLD, "max_attention_window_size": "2560", "max_input_len": 2048, "max_output_len": 1024},
        "is less than the 3072 tokens of a sequence",
    ),
    ({**LAST, "max_input_len": 4096, "max_seq_len": 4096}, "leaves no room for an answer"),
    ({**OLD, "enable_kv_cache_reuse": True}, "needs an engine built with use_paged_context_fmha"),
    ({**OLD, "enable_chunked_context": True}, "needs an engine built with use_paged_context_fmha"),
    (
        {**LAST, "use_paged_context_fmha": False, "enable_kv_cache_reuse": True},
        "needs an engine built with use_paged_context_fmha=true",
    ),
    ({**OLD, "paged_kv_cache": False}, "excludes in-flight batching"),
    ({**OLD, "gpt_attention_plugin": "disable"}, "excludes in-flight batching"),
    ({**OLD, "use_paged_context_fmha": True, "context_fmha": False}, "needs context_fmha=true"),
    ({**LAST, "gemm_plugin": "fp8"}, "needs quantization=fp8, not unset"),
    ({**LAST, "use_fp8_context_fmha": True}, "use_fp8_context_fmha=true needs quantization=fp8"),
    ({**OLD, "dtype": "bfloat16", "gpt_attention_plugin": "float16"}, "differ: set both alike"),
    ({**OLD, "awq_block_size": 64}, "awq_block_size=64 has no effect with quantization=unset"),
    ({**OLD, "quantization": "nvfp4"}, "quantization=nvfp4 came with 0.17"),
    ({**OLD, "quantization": "int3"}, "quantization=int3: must be one of fp8"),
    (
        {**OLD, "quantization": "int4_weight_only", "kv_cache_quantization": "fp8"},
        "does not go with quantization=int4_weight_only",
    ),
    ({**LAST, "reduce_fusion": True}, "tensor_parallel_size is 1"),
    ({**LAST, "cuda_graph_cache_size": 8}, "no effect without cuda_graph_mode=true"),
    ({**OLD, "medusa_choices": "{0}"}, "no effect without decoding_mode=medusa"),
    ({**OLD, "sink_token_length": 4}, "no effect without max_attention_window_size"),
    ({"cuda_graph": False, "cuda_graph_padding": True}, "no effect while cuda_graph=false"),
    (
        {"cuda_graph_batch_sizes": "1,2", "cuda_graph_max_batch_size": 2},
        "excludes cuda_graph_max_batch_size=2",
    ),
    ({"cuda_graph_batch_sizes": "1;2"}, "must be batch sizes with commas between"),
    ({"cuda_graph": False, "cuda_graph_batch_sizes": "8"}, "no effect while cuda_graph=false"),
    ({"enable_prefix_aware_scheduling": False}, "does not have it; it came with 1.3.0rc26"),
    ({"version": "1.0.0", "perf_metrics_max_requests": 9}, "it came with 1.1"),
    ({"version": "1.4.0", "perf_metrics_max_requests": 9}, "keeps no times of requests any more"),
    ({"version": "1.0.0", "tokens_per_block": 64}, "with backend=pytorch it came with 1.1"),
    ({"enable_block_reuse": False, "host_cache_size": 1 << 30}, "enable_block_reuse=false"),
    ({"context_chunking_policy": "EQUAL_PROGRESS"}, "without enable_chunked_prefill=true"),
    ({"batch_wait_max_tokens_ratio": 0.5}, "needs batch_wait_timeout_iters above 0"),
    ({"max_draft_len": 3}, "no effect without speculative_decoding"),
    ({"version": "1.3.0", "speculative_decoding": "Eagle3"}, "Eagle3 needs speculative_model"),
    ({"speculative_decoding": "NGram"}, "NGram needs max_draft_len: set how many tokens"),
    (
        {"speculative_decoding": "Eagle", "speculative_model": "org/heads"},
        "Eagle needs max_draft_len",
    ),
    (
        {"speculative_decoding": "DraftTarget", "speculative_model": "org/small"},
        "DraftTarget needs max_draft_len",
    ),
    (
        {"version": "1.3.0", "speculative_decoding": "PARD", "speculative_model": "org/pard"},
        "PARD needs max_draft_len",
    ),
    (
        {"speculative_decoding": "AUTO", "max_draft_len": 3},
        "max_draft_len=3 is ignored with speculative_decoding=AUTO",
    ),
    (
        {"speculative_decoding": "AUTO", "speculative_model": "org/small"},
        "speculative_model=org/small is ignored with speculative_decoding=AUTO",
    ),
    (
        {"speculative_decoding": "NGram", "max_draft_len": 3, "speculative_model": "org/small"},
        "NGram, which needs no other model",
    ),
    ({"speculative_max_concurrency": 8}, "no effect without speculative_decoding"),
    ({"moe_backend": "AUTO"}, "moe_backend=AUTO came with 1.3, and version is 1.2.1"),
    ({"version": "1.4.0rc4", "moe_backend": "WIDEEP"}, "was removed in 1.4"),
    ({"attention_dp_balance": True}, "without enable_attention_dp=true"),
    (
        {"enable_attention_dp": True, "attention_dp_timeout_iters": 9},
        "without attention_dp_balance=true",
    ),
    (
        {
            "version": "1.3.0",
            "enable_attention_dp": True,
            "attention_dp_cache_routing": True,
            "attention_dp_conversation_affinity": True,
        },
        "set one of the two",
    ),
    ({"torch_compile_inductor": True}, "no effect without torch_compile=true"),
    ({"enable_piecewise_cuda_graph": True}, "no effect without torch_compile=true"),
    (
        {"version": "1.3.0", "torch_compile": True, "enable_piecewise_cuda_graph": True},
        "version 1.3.0 has prefill_cuda_graph_backend=piecewise for it",
    ),
    (
        {"prefill_cuda_graph_backend": "piecewise"},
        "version 1.2.1 says torch_compile=true and enable_piecewise_cuda_graph=true",
    ),
    (
        {
            "version": "1.3.0",
            "prefill_cuda_graph_backend": "breakable",
            "torch_compile": True,
        },
        "breakable does not go with torch_compile=true",
    ),
    (
        {"version": "1.3.0", "prefill_capture_num_tokens": "256"},
        "no effect while prefill_cuda_graph_backend=disabled",
    ),
    ({"version": "1.3.0", "disk_cache_size": 1 << 40}, "needs disk_cache_path: name a folder"),
    (
        {"version": "1.3.0", "disk_cache_size": 1 << 40, "disk_cache_path": "/mnt/cache"},
        "only used with use_kv_cache_manager_v2=true",
    ),
    ({"version": "1.3.0", "disk_cache_path": "/mnt/cache"}, "no effect without disk_cache_size"),
    ({"num_serve_frontends": 4}, "does not have it; it came with 1.3.0rc26"),
    ({"max_gpu_total_bytes": 9, "version": "1.0.0"}, "does not have it; it came with 1.1"),
    ({"waiting_queue_policy": "priority", "version": "1.3.0rc1"}, "priority came with 1.3.0rc26"),
    ({"allreduce_strategy": "NCCL_SYMMETRIC", "version": "1.0.0"}, "set NCCL or AUTO"),
    (
        {
            "enable_chunked_prefill": True,
            "version": "1.2.1",
            "context_chunking_policy": "FORCE_CHUNK",
        },
        "context_chunking_policy=FORCE_CHUNK came with 1.3.0rc26",
    ),
    (
        {"version": "1.2.0", "speculative_decoding": "Eagle3", "speculative_model": "org/heads"},
        "speculative_decoding=Eagle3 came with 1.3",
    ),
    ({"capacity_scheduler_policy": "max_utilization"}, "must be one of GUARANTEED_NO_EVICT"),
    ({"free_gpu_mem_fraction": 0.9}, "Did you mean 'free_gpu_memory_fraction'"),
)


@pytest.mark.parametrize(("config", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_wrong_config_is_refused_in_one_sentence(config: Config, words: str) -> None:
    stack = Stack(engine=ENGINE, front=native.FRONT, model=MODEL)
    with pytest.raises(UsageError) as refused:
        stack.check(config)

    sentence = str(refused.value)
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))


def test_a_model_that_cannot_be_converted_is_refused() -> None:
    with pytest.raises(UsageError, match=r"converts a local folder with a config\.json"):
        ENGINE.check("org/model", LAST)
    (Path(MODEL) / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(UsageError, match="we know no converter for model_type 'whisper'"):
        ENGINE.check(MODEL, LAST)
    with pytest.raises(UsageError, match=r"--model ./none: there is no such folder"):
        ENGINE.check("./none", {})


def test_what_is_seldom_meant_is_said_and_not_refused() -> None:
    def doubts(config: Config) -> str:
        ENGINE.check(MODEL, config)
        artifact = Path("artifact")
        return " ".join(
            ENGINE.launch(MODEL, config, artifact=artifact, host=HOST, port=PORT).doubts
        )

    assert doubts({"max_batch_size": 64, "cuda_graph_batch_sizes": "8,64"}) == ""
    assert "more than 64 sequences" in doubts({"cuda_graph_batch_sizes": "8,64"})
    assert "cuda_graph_max_batch_size reaches 128, less than max_batch_size=2048" in doubts({})
    assert doubts({"max_batch_size": 128}) == ""
    assert "max_num_tokens=1024 is less than max_batch_size=2048" in doubts(
        {"max_num_tokens": 1024}
    )
    policy: Config = {"max_batch_size": 64, "capacity_scheduler_policy": "MAX_UTILIZATION"}
    assert "pauses requests when the KV cache runs out" in doubts(policy)
    quantised: Config = {**LAST, "quantization": "fp8", "gemm_plugin": "auto"}
    assert "often slower than TensorRT's own kernels" in doubts(quantised)


# Each is what a release would take; the sentence that a refusal of one of them gave is a slip.
RIGHT: tuple[Config, ...] = (
    {"speculative_decoding": "AUTO"},
    {"speculative_decoding": "MTP"},
    {"speculative_decoding": "MTP", "max_draft_len": 3, "speculative_max_concurrency": 16},
    {"version": "1.4.0rc4", "speculative_decoding": "MTP", "speculative_model": "org/heads"},
    {"speculative_decoding": "Eagle", "speculative_model": "org/heads", "max_draft_len": 3},
    {"version": "1.1.0", "return_perf_metrics": True, "batch_wait_timeout_iters": 3},
    {"torch_compile": True, "enable_piecewise_cuda_graph": True, "torch_compile_streams": 2},
    {
        "version": "1.3.0rc26",
        "prefill_cuda_graph_backend": "piecewise",
        "prefill_capture_num_tokens": "256,4096",
        "torch_compile_inductor": True,
    },
    {"version": "1.3.0", "prefill_cuda_graph_backend": "breakable"},
    {"enable_attention_dp": True, "attention_dp_balance": True, "attention_dp_timeout_iters": 9},
    {
        "version": "1.3.0",
        "disk_cache_size": 1 << 40,
        "disk_cache_path": "/mnt/cache",
        "use_kv_cache_manager_v2": "true",
        "disk_prefetch_num_reqs": 8,
    },
    {"version": "1.3.0", "num_serve_frontends": 4, "waiting_queue_policy": "priority"},
    {"moe_backend": "CUTLASS", "moe_max_num_tokens": 8192, "max_gpu_total_bytes": 1 << 34},
)


@pytest.mark.parametrize("config", RIGHT, ids=[" ".join(config) for config in RIGHT])
def test_what_a_release_takes_is_taken(config: Config) -> None:
    Stack(engine=ENGINE, front=native.FRONT, model=MODEL).check(config)


def test_every_knob_of_a_road_says_which_road() -> None:
    assert {knob.needs for knob in (*CHECKPOINT, *BUILD, *TEMPLATE)} == {("backend", "tensorrt")}
    assert {knob.needs for knob in PYTORCH} == {("backend", "pytorch")}
    names = {knob.name for knob in ENGINE.knobs}
    assert {knob.instead for knob in ENGINE.knobs} - {""} <= names
