"""What a study says that it has not tested."""

from typing import Any

import pytest

from llmdyno.report import untested
from report_samples import GUIDE

NOTHING: dict[str, Any] = {"schema": "x", "comparison": None, "verdict": None, "refused": []}


@pytest.mark.parametrize(
    ("quality", "compared"),
    [
        (None, False),
        ({**NOTHING, "why": "the server died."}, False),
        (
            {**NOTHING, "lm_eval": {"tasks": [], "why": "lm-eval: it failed."}},
            False,
        ),  # --no-quality
        ({**NOTHING, "refused": [{"config": {"lossy": 9}, "said": []}]}, False),
        ({**NOTHING, "comparison": {"alone": {"prompts": 8}}}, True),
        ({**NOTHING, "lm_eval": {"tasks": [{"task": "t", "metric": "acc"}]}}, True),
    ],
)
def test_answers_are_untested_unless_something_compared_them(
    quality: dict[str, Any] | None, compared: bool
) -> None:
    said = untested.of_study({"quality": quality}, (), {})
    assert ("Whether the answers are as good: they were not compared." not in said) is compared


def test_what_another_engine_has_set_is_not_tried_of_the_winner() -> None:
    first, second = ({"engine": name, "front": "native"} for name in ("a", "b"))
    study: dict[str, Any] = {
        "baseline": {"config": {"cache_size": 4}, **first},
        "best": {"config": {}, **second},
        "combinations": [{"baseline": {"config": {}, "value": 1.0}, **second}],
        "trials": [
            {"config": {"enable_prefix_caching": True}, **first},
            {"config": {"max_num_batched_tokens": 64}, **second},
        ],
    }

    left = untested.untried(study, GUIDE)

    assert set(GUIDE) - set(left) == {"max_num_batched_tokens"}
    # The winner is its own engine's baseline: there is no setting whose effect is unknown.
    assert "What each changed setting gives by itself." not in untested.of_study(study, (), GUIDE)
    study["best"] = {"config": {"max_num_batched_tokens": 64}, **second}
    assert "What each changed setting gives by itself." in untested.of_study(study, (), GUIDE)
