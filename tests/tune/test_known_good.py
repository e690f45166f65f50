"""A study begins with what its engine names."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from llmdyno.cli.flags import study_spec
from llmdyno.knobs import Value
from llmdyno.machine import hardware
from llmdyno.tune.folder import stack_of
from llmdyno.tune.known_good import known_good
from llmdyno.tune.search import space

ASKED: dict[str, Any] = {
    "engine": "tensorrt-llm",
    "model": "meta-llama/Llama-3.1-8B",
    "users": "100",
    "isl": "1000",
    "osl": "200",
    "predict_on": "h100",
    "trials": 30,
}
NONE: dict[str, Value] = {}


def found(
    *candidates: Mapping[str, Value], baseline: Mapping[str, Value] = NONE, **given: Any
) -> list[dict[str, Value]]:
    asked = {name: value for name, value in {**ASKED, **given}.items() if value is not None}
    study = study_spec(asked)
    study = msgspec.structs.replace(study, baseline=baseline)
    stack = stack_of(study)
    searched = space(stack.knobs, only=study.search, allow_altered_output=False, baseline=baseline)
    return known_good(study, stack, searched, candidates)


def test_the_closed_form_comes_first_then_the_values_of_2024() -> None:
    computed, tuned = found()

    assert computed == {
        "max_batch_size": 512,
        "max_num_tokens": 2560,
        "cuda_graph_max_batch_size": 512,
        "cuda_graph_padding": True,
    }
    assert tuned == {"max_num_tokens": 2048, "enable_chunked_prefill": True}


def test_only_what_is_searched_and_not_tried_anyway_is_taken() -> None:
    (first,) = found(search="max_batch_size")

    assert first == {"max_batch_size": 512}
    assert found({"max_batch_size": 512}, search="max_batch_size") == []
    assert found(search="num_postprocess_workers") == []
    assert len(found(trials=4)) == 1
    assert found(trials=1) == []


def test_a_config_that_the_release_refuses_is_left_out() -> None:
    # Each sequence needs a token a step: the baseline's 256 tokens are less than 512 sequences.
    assert found(baseline={"max_num_tokens": 256}, search="max_batch_size") == []


def test_without_a_gpu_or_a_known_model_the_values_of_2024_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: ())
    assert len(found(predict_on="")) == 1
    assert len(found(model="nobody/knows")) == 1
    assert len(found(isl=None)) == 1


def test_the_gpu_of_this_machine_is_taken_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields: dict[str, Any] = dict.fromkeys(hardware.Gpu.__struct_fields__)
    here = hardware.Gpu(**{**fields, "memory_mib": 40960.0})
    monkeypatch.setattr(hardware, "gpus", lambda: (here,))

    assert found(predict_on="")[0]["max_batch_size"] == 160


def test_an_engine_that_names_none_has_none() -> None:
    assert found(engine="vllm") == []
