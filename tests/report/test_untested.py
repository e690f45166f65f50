"""What a study says that it has not tested."""

from typing import Any

import pytest

from llmdyno.report import untested

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
