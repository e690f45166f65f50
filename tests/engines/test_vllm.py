"""What vLLM's command line gets; starting it is for a machine with a GPU."""

from collections.abc import Mapping

import pytest

from llmdyno.engines import vllm
from llmdyno.errors import UsageError
from llmdyno.fronts import native
from llmdyno.knobs import Value, parse_settings
from llmdyno.serve.stack import Stack

FLAGS: Mapping[str, tuple[str, ...]] = {
    "max_num_seqs=64": ("--max-num-seqs", "64"),
    "gpu_memory_utilization=0.9": ("--gpu-memory-utilization", "0.9"),
    "enable_prefix_caching=false": ("--no-enable-prefix-caching",),
    "enable_chunked_prefill=true": ("--enable-chunked-prefill",),
    "enforce_eager=true": ("--enforce-eager",),
    "enforce_eager=false": (),
    "kv_cache_dtype=fp8": ("--kv-cache-dtype", "fp8"),
    "block_size=32": ("--block-size", "32"),
    "kv_cache_memory_bytes=8000000000": ("--kv-cache-memory-bytes", "8000000000"),
}


@pytest.mark.parametrize("setting", FLAGS)
def test_a_setting_is_a_flag(setting: str) -> None:
    config = parse_settings([setting], vllm.KNOBS)
    launch = vllm.ENGINE.launch("org/model", config, artifact=None, host="127.0.0.1", port=8000)

    start = launch.argv.index("serve")
    assert launch.argv[start : start + 6] == (
        *("serve", "org/model", "--host", "127.0.0.1", "--port", "8000"),
    )
    assert launch.argv[start + 6 :] == FLAGS[setting]


WRONG: tuple[tuple[Mapping[str, Value], str], ...] = (
    ({"max_num_seqs": 512, "max_num_batched_tokens": 256}, "is less than max_num_seqs=512"),
    (
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048, "max_model_len": 8192},
        "a prompt must fit one step whole",
    ),
)


@pytest.mark.parametrize(("config", "words"), WRONG)
def test_combinations_that_vllm_refuses_are_refused_before_a_start(
    config: Mapping[str, Value], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        vllm.ENGINE.check("org/model", config)


def test_without_vllm_the_sentence_says_what_to_install() -> None:
    if vllm.ENGINE.version() is not None:
        pytest.skip("vLLM is installed here")

    stack = Stack(engine=vllm.ENGINE, front=native.FRONT, model="org/model")
    with pytest.raises(UsageError, match="pip install vllm"):
        stack.require_engine()
