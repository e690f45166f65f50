"""What is refused before anything is predicted: too many GPUs, too short a sequence."""

from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.predict.checks import check_gpus, check_longest
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.options import Site
from llmdyno.predict.shapes import shape_of
from llmdyno.units import Lengths


def site(gpus: int) -> Site:
    return Site(
        engine="vllm",
        shape=shape_of("llama-3.1-8b"),
        gpu=gpu_of("h200"),
        gpus=gpus,
        isl=Lengths("fixed", 900),
        osl=Lengths("fixed", 100),
    )


@pytest.mark.parametrize(
    ("gpus", "config", "said"),
    [
        (2, {"tensor_parallel_size": 2}, ""),
        (8, {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2}, ""),
        (1, {"tensor_parallel_size": 2}, "tensor_parallel_size=2: takes 2 GPUs, and there is 1;"),
        (
            7,
            {"tensor_parallel_size": 2, "data_parallel_size": 4, "pipeline_parallel_size": 1},
            "tensor_parallel_size=2 data_parallel_size=4: takes 2 x 4 = 8 GPUs, and there are 7;",
        ),
    ],
)
def test_a_config_may_take_as_many_gpus_as_there_are(
    gpus: int, config: dict[str, Any], said: str
) -> None:
    if not said:
        check_gpus(site(gpus), config)
        return
    with pytest.raises(UsageError) as refused:
        check_gpus(site(gpus), config)
    assert str(refused.value).startswith(said)


def test_a_request_must_fit_into_the_longest_sequence() -> None:
    knobs = plugins.load("engines", "vllm").knobs
    check_longest(site(1), {"max_model_len": 1000}, knobs)
    with pytest.raises(UsageError, match=r"max_model_len=999: .* 1,000 tokens.*at least 1000"):
        check_longest(site(1), {"max_model_len": 999}, knobs)
