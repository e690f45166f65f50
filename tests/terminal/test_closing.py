"""The lines that a study ends with: each is true and whole when it is quoted alone."""

import io
from typing import Any

import pytest

from llmdyno.terminal.closing import closing_lines
from llmdyno.terminal.study import show_study
from report_samples import study


def with_ratio(key: str, **ratio: Any) -> dict[str, Any]:
    document = study()
    document["confirmation"]["ratio"][key] = ratio
    return document


def test_three_lines_say_what_was_gained_and_by_what() -> None:
    assert closing_lines(study()) == [
        "Token rate at 100 users: 525 -> 1,630 tok/s, 3.1 times as high (2.8 to 3.4)",
        "TTFT p50: 4.30 s -> 910 ms, 4.7 times shorter (4.2 to 5.3)",
        (
            "Settings: enable_prefix_caching=true, max_num_batched_tokens=2048"
            " (most by enable_prefix_caching)"
        ),
    ]


def test_the_values_are_those_of_the_pairs_that_gave_the_ratio() -> None:
    document = with_ratio("token_rate", mean=6.02, ci95=[5.5, 6.6], before=1021.6, after=6150.9)

    assert closing_lines(document)[0].endswith(
        ": 1,022 -> 6,151 tok/s, 6 times as high (5.5 to 6.6)"
    )


def test_what_is_not_shown_says_so() -> None:
    document = with_ratio("ttft_ms_p50", mean=0.98, ci95=[0.7, 1.38])

    line = closing_lines(document)[1]
    assert line.endswith(", not shown to differ: 2 % shorter (30 % shorter to 38 % longer)")


@pytest.mark.parametrize("word", ["worse", "no difference", "not confirmed"])
def test_nothing_is_to_be_quoted_where_nothing_was_won(word: str) -> None:
    document = study()
    document["confirmation"]["verdict"] = word

    assert closing_lines(document) == []


def test_a_study_decided_by_another_metric_begins_with_it() -> None:
    document = with_ratio("goodput", mean=2.5, ci95=[2.1, 3.0], before=4.0, after=10.0)
    document["confirmation"]["decided_by"] = "goodput"

    lines = closing_lines(document)

    assert lines[0] == "Goodput at 100 users: 4.00 -> 10.0 req/s, 2.5 times as high (2.1 to 3)"
    assert lines[1].startswith("Token rate: ")


def test_a_difference_stands_where_a_run_had_0() -> None:
    difference = {"mean": -2.0, "ci95": [-3.0, -1.0]}
    document = with_ratio("ttft_ms_p50", mean=None, ci95=None, difference=difference)

    assert closing_lines(document)[1].endswith("-2.00 [-3.00, -1.00] ms")


def test_a_knob_is_named_as_the_main_one_only_where_its_interval_says_so() -> None:
    document = study()
    for one in document["ablation"]:
        one["effect"]["token_rate"] = {"ratio": 1.5, "ci95": [1.4, 1.6]}

    assert closing_lines(document)[-1].endswith("max_num_batched_tokens=2048")


def test_a_setting_that_was_taken_back_and_another_stack_are_named() -> None:
    document = study()
    document["baseline"]["config"] = {"cache_size": 4, "enable_prefix_caching": True}
    assert "cache_size left at its default" in closing_lines(document)[-1]
    assert "enable_prefix_caching" not in closing_lines(document)[-1].split(" (")[0]

    document["combinations"] = [{"engine": "vllm", "front": "native"}]
    document["baseline"] |= {"engine": "vllm", "front": "native"}
    document["best"] |= {"engine": "sglang", "front": "native"}
    assert closing_lines(document)[-1].startswith(
        "Settings: sglang behind native instead of vllm behind native, enable_prefix_caching=true"
    )


def test_they_are_the_last_that_a_study_prints() -> None:
    out = io.StringIO()
    show_study(study(), [], out)

    assert out.getvalue().splitlines()[-3:] == closing_lines(study())
