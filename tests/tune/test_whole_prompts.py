"""A config that refuses the longest prompt of the load is told before it is started."""

from pathlib import Path

import pytest

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.entries import Step
from llmdyno.tune.folder import stack_of
from llmdyno.tune.spec import Study
from llmdyno.tune.whole_prompts import check_prompt, longest_prompt

WHOLE: dict[str, Value] = {"dynamic_split_fuse": False, "max_num_batched_tokens": 776}
OPENVINO = stack_of(Study(engine="openvino", model="tiny"))


def test_a_step_that_cannot_hold_the_longest_prompt_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        check_prompt(OPENVINO, WHOLE, 777)
    assert str(refused.value) == (
        "max_num_batched_tokens=776 is less than the longest prompt of this load, 777 tokens, and"
        " dynamic_split_fuse=false keeps prompts whole: it takes at least 777, or"
        " dynamic_split_fuse=true."
    )
    trtllm = stack_of(Study(engine="tensorrt-llm", model="m"))
    with pytest.raises(UsageError, match="max_num_tokens=512 is less than the longest prompt"):
        check_prompt(trtllm, {"enable_chunked_prefill": False, "max_num_tokens": 512}, 513)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (WHOLE, 776),
        (WHOLE, 0),  # nobody counted
        ({"max_num_batched_tokens": 64}, 777),
        ({"dynamic_split_fuse": True, "max_num_batched_tokens": 64}, 777),
        ({"dynamic_split_fuse": False}, 100_000),  # the engine's own choice of a step
    ],
)
def test_what_may_hold_it_is_not_refused(config: dict[str, Value], tokens: int) -> None:
    check_prompt(OPENVINO, config, tokens)


def test_an_engine_whose_scheduler_is_not_known_refuses_nothing() -> None:
    stack = stack_of(Study(engine="mlc-llm", model="m"))
    check_prompt(stack, {"prefill_chunk_size": 64}, 777)


def test_the_longest_prompt_is_that_of_all_runs(tmp_path: Path) -> None:
    """Of the shortest run few requests were completed; one failed before it had a summary."""
    runs = {"a": [700, 1042], "b": [947], "c": [0], "d": None}
    for name, most in runs.items():
        (tmp_path / name).mkdir()
        if most is not None:
            levels = [{"tokens": {"input_max": tokens}} for tokens in most]
            store.write_json(tmp_path / name / store.SUMMARY, {"levels": levels})
    steps = [Step(phase="trial", number=0, config={}, state="measured", run=run) for run in runs]
    unstarted = Step(phase="trial", number=1, config={}, state="predicted-infeasible")

    assert longest_prompt(tmp_path, [*steps, unstarted]) == 1042
    assert longest_prompt(tmp_path, steps[1:]) == 947
    assert longest_prompt(tmp_path, []) == 0
