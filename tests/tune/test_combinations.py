"""Which engines and fronts of a study can work, and what each is asked."""

from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.errors import UsageError
from llmdyno.tune.combinations import Combination, combinations, read_settings
from llmdyno.tune.spec import Study


def spec(**given: Any) -> Study:
    asked = {"engine": "timed.engine,faulty.engine", "model": "m", "users": "2"}
    return flags.study_spec({**asked, **given})


def own(found: Combination) -> Study:
    assert found.study is not None
    return found.study


def test_a_list_of_a_file_is_as_names_with_commas() -> None:
    listed = spec(engine=["timed.engine", "faulty.engine"], front=["native"])

    assert listed == spec()
    assert listed.engines == ("timed.engine", "faulty.engine")
    assert listed.combines
    assert not spec(engine="timed.engine").combines


def test_what_cannot_work_is_left_out_with_the_reason() -> None:
    found = combinations(spec(engine="timed.engine,vllm", front="native,triton"))

    left = {one.name: one.why for one in found if one.study is None}
    assert found[0].name == "timed.engine behind native"
    assert set(left) == {"vllm behind native", "vllm behind triton"}
    assert "not installed" in str(left["vllm behind native"])


def test_each_has_the_knobs_that_are_its_own() -> None:
    study = spec(
        baseline={"itl_ms": 30, "mode": "good"},
        candidates=[{"fast": True}, {"itl_ms": 10}],
        search="fast",
        trials=8,
    )

    timed, other = combinations(study)

    assert own(timed).baseline == {"itl_ms": 30, "mode": "good"}
    assert own(other).baseline == {"itl_ms": 30}
    assert own(timed).candidates == ({"itl_ms": 10},)
    assert own(other).candidates == ({"fast": True}, {"itl_ms": 10})
    assert own(other).search == ("fast",)
    assert (own(timed).engine, own(timed).budget_s) == ("timed.engine", None)


def test_settings_are_read_as_the_knobs_that_they_name() -> None:
    assert read_settings(spec(), ["fast=true", "itl_ms=12"]) == {"fast": True, "itl_ms": 12}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"engine": "timed.engine,vlm"}, "no 'vlm'"),
        ({"engine": "timed.engine,timed.engine"}, "names timed.engine twice"),
        ({"engine": "timed.engine,"}, "has an empty name"),
        ({"engine": "vllm,sglang"}, "no combination can work here"),
        ({"baseline": {"nothing": 1}}, "nothing: is a knob of no combination"),
        ({"search": "nothing"}, "--search nothing: is a knob of no combination"),
        ({"candidates": [{"fast": True, "mode": "good"}]}, "no combination has all of its knobs"),
        ({"trials": 1}, "--trials 1: 2 combinations"),
        ({"engine_arg": ["--a=b"]}, "say whose, as in timed.engine:--a=b"),
        ({"engine_arg": ["timed.engine:--port=1"]}, "dyno sets --port itself"),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        combinations(spec(**given))
