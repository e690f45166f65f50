"""What engines write when they fail, word for word from their sources, and the class it gets."""

from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.processes import diagnosis

MESSAGES: tuple[tuple[str, str, str], ...] = (
    # tensorrt-llm: NVIDIA/TensorRT-LLM's py_executor_creator.py and llmapi/llm.py, its issues 167,
    # 260, 494, 1838, 2846, NVIDIA/nim-deploy's 18, NVIDIA/TensorRT's 2195, and users' reports.
    (
        "tensorrt-llm",
        "RuntimeError: Executor creation failed due to insufficient GPU memory.",
        "out-of-memory",
    ),
    (
        "tensorrt-llm",
        (
            "E1128 16:31:49.479096 227 backend_model.cc:634] ERROR: Failed to create instance:"
            " unexpected error when creating modelInstanceState: maxTokensInPagedKvCache must be"
            " large enough to process at least 1 sequence to completion"
        ),
        "out-of-memory",
    ),
    (
        "tensorrt-llm",
        (
            "[TensorRT-LLM][ERROR] Assertion failed: maxTokensInPagedKvCache (128) must be large"
            " enough to process at least 1 sequence to completion"
        ),
        "out-of-memory",
    ),
    (
        "tensorrt-llm",
        (
            "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n,"
            " mCudaStream->get()): out of memory"
        ),
        "out-of-memory",
    ),
    (
        "tensorrt-llm",
        (
            "[TRT-LLM] [E] Failed to parse the arguments for the LLM constructor: 1 validation"
            " error for TrtLlmArgs"
        ),
        "bad-config",
    ),
    (
        "tensorrt-llm",
        "TypeError: LlmArgs.__init__() got an unexpected keyword argument 'enable_attention_dp'",
        "bad-config",
    ),
    (
        "tensorrt-llm",
        (
            "[TensorRT-LLM][ERROR] 6: The engine plan file is not compatible with this version of"
            " TensorRT, expecting library version 9.2.0.5 got 9.3.0.1, please rebuild."
        ),
        "bad-config",
    ),
    (
        "tensorrt-llm",
        (
            "[TRT] [E] 1: [stdArchiveReader.cpp::StdArchiveReader::35] Error Code 1: Serialization"
            " (Serialization assertion safeVersionRead == safeSerializationVersion failed.Version"
            " tag does not match."
        ),
        "bad-config",
    ),
    (
        "tensorrt-llm",
        "[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine.",
        "bad-config",
    ),
    (
        "tensorrt-llm",
        "ImportError: libmpi.so.12: cannot open shared object file: No such file or directory",
        "missing-library",
    ),
    (
        "tensorrt-llm",
        (
            "executorWorker: error while loading shared libraries: libnvinfer.so.10: cannot open"
            " shared object file: No such file or directory"
        ),
        "missing-library",
    ),
    (
        "vllm",
        (
            "ValueError: Free memory on device cuda:0 (9.9/139.8 GiB) on startup is less than"
            " desired GPU memory utilization (0.92, 128.6 GiB)."
        ),
        "out-of-memory",
    ),
    (
        "vllm",
        (
            "ValueError: To serve at least one request with the model's max seq len (131072), (16.0"
            " GiB KV cache is needed, which is larger than the available KV cache memory (9.1 GiB)."
        ),
        "out-of-memory",
    ),
    ("vllm", "RuntimeError: Failed to infer device type, please set", "gpu-unavailable"),
    ("vllm", "RuntimeError: No CUDA GPUs are available", "gpu-unavailable"),
    (
        "lmdeploy",
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "gpu-unavailable",
    ),
    (
        "sglang",
        "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "gpu-unavailable",
    ),
    ("tensorrt-llm", "cudaErrorNoDevice: no CUDA-capable device is detected", "gpu-unavailable"),
    ("vllm", "NVMLError_LibRmVersionMismatch: Driver/library version mismatch", "gpu-unavailable"),
    (
        "vllm",
        "vllm: error: argument --kv-cache-dtype: invalid choice: 'int8'",
        "bad-config",
    ),
    (
        "sglang",
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current"
            " value: mem_fraction_static=0.2"
        ),
        "out-of-memory",
    ),
    (
        "sglang",
        (
            "ValueError: Loaded weights leave no GPU memory for the KV cache under"
            " --mem-fraction-static=0.1. Raise --mem-fraction-static above 0.145"
        ),
        "out-of-memory",
    ),
    (
        "sglang",
        "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "out-of-memory",
    ),
    (
        "sglang",
        (
            "RuntimeError: No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS) or platform plugin is"
            " available."
        ),
        "gpu-unavailable",
    ),
    (
        "sglang",
        "AssertionError: chunked_prefill_size must be divisible by page_size",
        "bad-config",
    ),
    (
        "sglang",
        "launch_server.py: error: unrecognized arguments: --cuda-graph-max-bs-decode 64",
        "bad-config",
    ),
    ("lmdeploy", "RuntimeError: No enough gpu memory for kv cache.", "out-of-memory"),
    (
        "lmdeploy",
        "AssertionError: No enough gpu memory for state cache. Please reduce max_batch_size.",
        "out-of-memory",
    ),
    ("lmdeploy", "AssertionError: invalid cache_max_entry_count", "bad-config"),
    (
        "tgi",
        (
            "RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to decrease"
            " `--max-batch-prefill-tokens`"
        ),
        "out-of-memory",
    ),
    (
        "tgi",
        'Error: ArgumentValidation("`max_input_tokens must be < `max_total_tokens`")',
        "bad-config",
    ),
    ("tgi", "error: unexpected argument '--max-seqs' found", "bad-config"),
    ("tgi", "ERROR text-generation-server not found in PATH", "missing-library"),
    ("tgi", "Error: DownloadError", "model-not-found"),
    (
        "mlc-llm",
        (
            "TVMError: Check failed: (output_res.IsOk()) is false: Insufficient GPU memory error:"
            " The available single GPU memory is 19314.976 MB"
        ),
        "out-of-memory",
    ),
    (
        "mlc-llm",
        "FileNotFoundError: Cannot find model ./dist/m, directory does not exist",
        "model-not-found",
    ),
)


@pytest.mark.parametrize(("engine", "message", "kind"), MESSAGES)
def test_a_message_gets_its_class(engine: str, message: str, kind: str) -> None:
    launch = plugins.load("engines", engine).launch(
        "org/model", {}, artifact=None, host="127.0.0.1", port=8000
    )

    found, quoted = diagnosis.diagnose(["Loading weights", message, "Exiting"], launch)

    assert found == kind
    assert message[:500] in quoted


# Outputs of servers that did not start on an H200 (SGLang 0.5.17, LMDeploy 0.18.0), shortened.
@pytest.mark.parametrize(
    ("engine", "log", "kind", "quoted"),
    [
        ("sglang", "sglang-flag.txt", "bad-config", "unrecognized arguments: --no-such-flag=3"),
        ("sglang", "sglang-length.txt", "bad-config", "context_length (9000000) is greater than"),
        ("lmdeploy", "lmdeploy-flag.txt", "bad-config", "unrecognized arguments: --no-such-flag=3"),
        ("sglang", "sglang-memory.txt", "out-of-memory", "CUDA out of memory. Tried to allocate"),
        (
            "lmdeploy",
            "lmdeploy-memory.txt",
            "out-of-memory",
            "CUDA out of memory. Tried to allocate",
        ),
        ("sglang", "sglang-cache.txt", "out-of-memory", "leave no GPU memory for the KV cache"),
    ],
)
def test_a_real_log_is_told_by_the_line_that_decides(
    engine: str, log: str, kind: str, quoted: str
) -> None:
    launch = plugins.load("engines", engine).launch(
        "org/model", {}, artifact=None, host="127.0.0.1", port=8000
    )
    written = (Path(__file__).parent / "logs" / log).read_bytes()

    found, said = diagnosis.diagnose(diagnosis.lines(written), launch)

    assert found == kind
    assert quoted in said
    assert said.count("\n    ") == 1, "one line, not the usage before it"
