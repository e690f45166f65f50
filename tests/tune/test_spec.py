"""What the user asks of a study checks itself."""

import pytest

from llmdyno.errors import UsageError
from llmdyno.spec import Load
from llmdyno.tune.spec import Study


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trials": 0}, "--trials 0: must be at least 1."),
        ({"pairs": 1}, "--pairs 1: must be at least 2, or nothing is confirmed."),
        ({"budget_s": 0.0}, "--budget 0s: must be longer than 0."),
        ({"allow_altered_output": 2.0}, "--allow-altered-output 200%: must be at most 100%."),
        ({"confirm_until": 0.0}, "--confirm-until 0%: must be above 0%"),
        ({"confirm_levels": "some"}, "--confirm-levels some: must be last or all."),
        ({"max_pairs": 1}, "--max-pairs 1: must be at least 2, or nothing is confirmed."),
        (
            {"pairs": 5, "confirm_until": 0.03, "max_pairs": 4},
            "--max-pairs 4: must be at least 5, the number of --pairs.",
        ),
        ({"seed": 2**32}, "--seed 4294967296: must be below 4294967296 for a search."),
        ({"trials": 1, "candidates": ({"a": 1}, {"a": 2})}, "--trials 1: the 2 [[candidates]]"),
    ],
)
def test_a_study_that_cannot_be_is_one_sentence(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Study(**fields)  # type: ignore[arg-type]

    assert str(caught.value).startswith(words)


def test_configs_are_compared_at_the_most_users() -> None:
    assert Study(load=Load(users=(10, 100, 50), duration_s=60.0)).level == 100
