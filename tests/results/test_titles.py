"""Short titles, from keys and from objectives."""

import pytest

from llmdyno.results import titles


@pytest.mark.parametrize(
    ("name", "title", "lower"),
    [
        ("ttft_ms_p50", "TTFT p50", True),
        ("ttft:p99", "TTFT p99", True),
        ("token_rate:mean", "token rate", False),
        ("token_rate", "token rate", False),
        ("goodput:mean", "goodput", False),
        ("joules", "joules", None),
    ],
)
def test_metrics_and_objectives_have_short_titles(
    name: str, title: str, lower: bool | None
) -> None:
    assert titles.title(name) == title
    assert titles.lower_is_better(name) is lower
