"""The predictor's best configs are tried first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.cli.flags import study_spec
from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import forecasts
from llmdyno.tune.folder import stack_of
from llmdyno.tune.foreseen import FORESEEN_MAX, expected, foreseen
from llmdyno.tune.search import space
from llmdyno.units import Lengths

ASKED = {
    "engine": "vllm",
    "model": "meta-llama/Llama-3.1-8B",
    "users": "10,100",
    "isl": "1000",
    "osl": "200",
    "predict_on": "h200",
    "search": "max_num_seqs,max_num_batched_tokens",
    "trial_duration": "10s",
}
FEW: dict[str, Value] = {"max_num_seqs": 16}


def found(
    *candidates: Mapping[str, Value], baseline: Mapping[str, Value] = FEW, **given: Any
) -> list[dict[str, Value]]:
    study = study_spec({**ASKED, **given})
    study = msgspec.structs.replace(study, baseline=baseline)
    stack = stack_of(study)
    searched = space(stack.knobs, only=study.search, allow_altered_output=False, baseline=baseline)
    return foreseen(study, stack, searched, candidates)


def test_the_best_of_the_simulation_are_searched_knobs_and_none_is_given_twice() -> None:
    first = found()

    assert len(first) == FORESEEN_MAX
    assert all(one.keys() <= {"max_num_seqs", "max_num_batched_tokens"} for one in first)
    seats = [one["max_num_seqs"] for one in first]
    assert all(isinstance(one, int) and one > 16 for one in seats)  # 16 hold 84 users back
    assert first[0] not in found(first[0])
    assert len(found(trials=1)) == 1


def test_a_baseline_that_is_predicted_best_has_no_better() -> None:
    roomy: dict[str, Value] = {"max_num_seqs": 256, "max_num_batched_tokens": 8192}

    assert found(baseline=roomy, users="1", search="max_num_seqs") == []


def test_without_a_gpu_nothing_is_foreseen() -> None:
    assert found(predict_on="") == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"predict_on": "h2000"}, "--gpu h2000: no such GPU is known here"),
        ({"model": "nobody/knows"}, "--model nobody/knows: its shape is not known here"),
        ({"objective": "ttft:p50"}, "--predict-on h200: ranks configs by token rate"),
        ({"slo": "inter_chunk:p99<1s"}, "inter_chunk"),
    ],
)
def test_what_the_predictor_cannot_know_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        found(**given)


@pytest.mark.parametrize("name", ["chat", "chat-system", "agent", "synthetic"])
def test_the_prompts_are_those_of_the_study(name: str) -> None:
    """A chat's 61 tokens had been simulated as 256."""
    asked = {**ASKED, "workload": name, "osl": "256", "users": "100"}
    if name != "synthetic":
        del asked["isl"]
    study = msgspec.structs.replace(study_spec(asked), baseline={})
    plan = Plan(
        model=study.model,
        gpu="h200",
        engines=("vllm",),
        osl=study.workload.osl or Lengths("fixed", 0),
        isl=study.workload.isl or Lengths("uniform", 1536, 2560),  # an agent's
        workload=name,
        users=(100,),
        duration_s=10.0,
    )

    (said,) = expected(study, stack_of(study), [{}])

    assert said == {**forecasts(plan, [{}])[0], "config": {}}


def test_prompts_of_a_file_are_not_simulated(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Say why.", "output_tokens": 5}\n')
    asked = {**ASKED, "workload": "file", "dataset": str(prompts), "users": "100"}
    del asked["isl"]
    study = study_spec(asked)

    (said,) = expected(study, stack_of(study), [{}])

    assert said["token_rate"] > 0
