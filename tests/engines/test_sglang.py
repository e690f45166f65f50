"""SGLang: what its command line gets; starting it is for a machine with a GPU."""

import sys
from collections.abc import Mapping

import pytest

from llmdyno.engines.sglang import ENGINE
from llmdyno.errors import UsageError
from llmdyno.knobs import Value


def test_the_server_is_this_pythons_with_its_metrics_on() -> None:
    config: dict[str, Value] = {"mem_fraction_static": 0.9, "tp_size": 2, "dp_size": 2}

    launch = ENGINE.launch("org/model", config, artifact=None, host="127.0.0.1", port=8000)

    assert launch.argv[:9] == (
        *(sys.executable, "-m", "sglang.launch_server", "--model-path", "org/model"),
        *("--host", "127.0.0.1", "--port", "8000"),
    )
    assert launch.argv[9] == "--enable-metrics"
    said = launch.argv[10:]
    assert said[said.index("--mem-fraction-static") + 1] == "0.9"
    assert launch.gpus == 4
    assert (launch.url, launch.model) == ("http://127.0.0.1:8000", "org/model")


WRONG: tuple[tuple[Mapping[str, Value], str], ...] = (
    (
        {"enable_mixed_chunk": True, "chunked_prefill_size": -1},
        "enable_mixed_chunk=true has no effect while chunked_prefill_size=-1",
    ),
    (
        {"chunked_prefill_size": 1000, "page_size": 64},
        "chunked_prefill_size=1000 is no multiple of page_size=64",
    ),
    (
        {"schedule_policy": "lpm", "disable_radix_cache": True},
        "schedule_policy=lpm orders by cached prefixes",
    ),
    (
        {"cuda_graph_max_bs_decode": 64, "cuda_graph_backend_decode": "disabled"},
        "cuda_graph_max_bs_decode=64 has no effect",
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
    {"chunked_prefill_size": 1024, "page_size": 64},
    {"chunked_prefill_size": -1, "page_size": 64},
    {"schedule_policy": "fcfs", "disable_radix_cache": True},
)


@pytest.mark.parametrize("config", RIGHT)
def test_right_combinations_pass(config: Mapping[str, Value]) -> None:
    ENGINE.check("org/model", config)
