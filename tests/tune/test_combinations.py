"""Which engines and fronts of a study can work, and what each is asked."""

from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.errors import HomeError, UsageError
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


def test_a_name_may_say_whose_it_is() -> None:
    study = spec(
        baseline={"itl_ms": 30, "faulty.engine:itl_ms": 40, "timed.engine:mode": "good"},
        candidates=[{"faulty.engine:itl_ms": 10}, {"itl_ms": 12, "timed.engine:idle": True}],
        search="timed.engine:itl_ms=5..50,fast",
        engine_arg=["timed.engine:--mine", "faulty.engine:--other=2"],
        trials=8,
    )

    timed, other = combinations(study)

    assert own(timed).baseline == {"itl_ms": 30, "mode": "good"}
    assert own(other).baseline == {"itl_ms": 40}
    assert own(timed).candidates == ({"itl_ms": 12, "idle": True},)
    assert own(other).candidates == ({"itl_ms": 10},)
    assert (own(timed).search, own(other).search) == (("itl_ms=5..50",), ("fast",))
    assert (own(timed).engine_args, own(other).engine_args) == (("--mine",), ("--other=2",))
    assert read_settings(spec(), ["fast=true", "timed.engine:itl_ms=12", "itl_ms=9"]) == {
        "fast": True,
        "itl_ms": 9,
        "timed.engine:itl_ms": 12,
    }


def test_what_is_said_of_an_engine_that_is_left_out_waits_for_it() -> None:
    study = spec(engine="timed.engine,vllm", baseline={"vllm:max_num_seqs": 8})

    assert own(combinations(study)[0]).baseline == {}


def test_what_waits_for_an_engine_may_be_searched_and_tried_beside_others() -> None:
    study = spec(
        engine="timed.engine,vllm",
        search="itl_ms,vllm:max_num_seqs",
        candidates=[{"vllm:max_num_seqs": 64, "max_num_batched_tokens": 4096}, {"itl_ms": 9}],
    )

    timed, left = combinations(study)

    assert left.study is None
    assert (own(timed).search, own(timed).candidates) == (("itl_ms",), ({"itl_ms": 9},))


def test_a_variable_that_is_wrong_leaves_no_engine_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO_VLLM_PYTHON", "/no/such/python")

    with pytest.raises(HomeError, match="DYNO_VLLM_PYTHON=/no/such/python: give the Python"):
        combinations(spec(engine="timed.engine,vllm"))


@pytest.mark.parametrize(("name", "told"), [("itl_ms", True), ("timed.engine:itl_ms", False)])
def test_who_said_whose_it_is_is_not_told_how(name: str, *, told: bool) -> None:
    with pytest.raises(UsageError, match="itl_ms=slow: must be") as refused:
        combinations(spec(baseline={name: "slow"}))

    assert ("as in timed.engine:KNOB=VALUE" in str(refused.value)) == told


def test_a_setting_that_is_wrong_is_told_as_it_was_written() -> None:
    with pytest.raises(UsageError, match=r"^--set timed\.engine:nonsense=1: no knob 'nonsense'"):
        read_settings(spec(), ["timed.engine:nonsense=1"])


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
        ({"baseline": {"timed.engine:fast": True}}, "timed.engine:fast: is a knob of no"),
        ({"baseline": {"faulty:fast": True}}, "faulty:fast: is a knob of no combination"),
        ({"baseline": {"itl_ms": "slow"}}, "itl_ms=slow: .* as in timed.engine:KNOB=VALUE"),
        ({"engine_arg": ["timed.engine:--port=1"]}, "dyno sets --port itself"),
        (
            {"engine": "timed.engine,vllm", "baseline": {"vllm:nonsense": 1}},
            r"\[baseline\] vllm:nonsense: is no knob of vllm",
        ),
        (
            {"engine": "timed.engine,vllm", "search": "itl_ms,vllm:max_num_seq"},
            "--search vllm:max_num_seq: is no knob of vllm. Did you mean 'max_num_seqs'",
        ),
        (
            {"engine": "timed.engine,vllm", "candidates": [{"vllm:nonsense": 1}]},
            "candidate 1: vllm:nonsense: is no knob of vllm",
        ),
        (
            {"engine": "timed.engine,vllm", "search": "vllm:max_num_seqs"},
            "name nothing that .* would try. vllm behind native is left out: .*not installed",
        ),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        combinations(spec(**given))
