"""LMDeploy: what its command line gets; starting it is for a machine with a GPU."""

from collections.abc import Mapping

import pytest

from llmdyno.engines.lmdeploy import ENGINE
from llmdyno.errors import UsageError
from llmdyno.knobs import Value


def test_a_config_is_flags_of_the_api_server() -> None:
    config: dict[str, Value] = {"tp": 4, "max_batch_size": 256}

    launch = ENGINE.launch("org/model", config, artifact=None, host="127.0.0.1", port=8000)

    start = launch.argv.index("serve")
    assert launch.argv[start : start + 7] == (
        *("serve", "api_server", "org/model"),
        *("--server-name", "127.0.0.1", "--server-port", "8000"),
    )
    assert launch.argv[start + 7 :] == ("--tp", "4", "--max-batch-size", "256")
    assert launch.gpus == 4


WRONG: tuple[tuple[Mapping[str, Value], str], ...] = (
    ({"quant_policy": 16}, "quant_policy=16 is an fp8 cache, which TurboMind does not have"),
    ({"cache_block_seq_len": 48}, "cache_block_seq_len=48 is no multiple of 32"),
    ({"communicator": "cuda-ipc"}, "communicator=cuda-ipc has no effect while tp=1"),
    (
        {"num_gpu_blocks": 100, "cache_max_entry_count": 0.8},
        "cache_max_entry_count=0.8 has no effect beside num_gpu_blocks=100",
    ),
)


@pytest.mark.parametrize(("config", "words"), WRONG)
def test_what_it_would_refuse_late_is_refused_before_a_start(
    config: Mapping[str, Value], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        ENGINE.check("org/model", config)


RIGHT: tuple[Mapping[str, Value], ...] = (
    {},
    {"backend": "pytorch", "quant_policy": 16, "cache_block_seq_len": 48},
    {"communicator": "cuda-ipc", "tp": 2},
    {"num_gpu_blocks": 0, "cache_max_entry_count": 0.8},
)


@pytest.mark.parametrize("config", RIGHT)
def test_right_combinations_pass(config: Mapping[str, Value]) -> None:
    ENGINE.check("org/model", config)
