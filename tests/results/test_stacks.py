"""What is told of the combinations of a study over engines and fronts."""

import io
from typing import Any

import pytest

from llmdyno import report
from llmdyno.results import findings, stacks
from llmdyno.results.study_doubts import changed_settings
from llmdyno.terminal.study import show_study
from report.page_text import words
from report_samples import GUIDE, study


def combined() -> dict[str, Any]:
    document = study()
    of = {"slo_met": True}
    document["baseline"] |= {"engine": "openvino", "front": "native"}
    document["best"] |= {"engine": "openvino", "front": "triton"}
    document["combinations"] = [
        {
            "engine": "openvino",
            "front": "native",
            "state": "measured",
            "why": None,
            "baseline": {"config": {}, "value": 300.0, **of},
            "trials": 2,
            "failed": 1,
            "best": {"config": {}, "value": 300.0, **of},
        },
        {
            "engine": "openvino",
            "front": "triton",
            "state": "best",
            "why": None,
            "baseline": {"config": {}, "value": 290.0, **of},
            "trials": 6,
            "failed": 0,
            "best": {"config": {"cache_size": 2}, "value": 500.0, **of},
        },
        {
            "engine": "vllm",
            "front": "native",
            "state": "left out",
            "why": "not installed.",
            "baseline": None,
            "best": None,
            "trials": 0,
            "failed": 0,
        },
    ]
    return document


def test_each_combination_is_told_and_the_best_is_named() -> None:
    first, best, out = stacks.combinations(combined())

    assert (first.trials, first.outcome, first.slo) == ("2, 1 failed", "all defaults", "met")
    assert (best.best, best.outcome) == ("500", "best of all: cache_size=2")
    assert (out.baseline, out.outcome) == ("-", "left out: not installed.")
    assert stacks.conclusion(combined()) == (
        "Best of 2 combinations (1 left out): openvino behind triton, told against the baseline"
        " of openvino behind native."
    )


def test_a_study_of_one_stack_says_nothing_of_combinations() -> None:
    assert not stacks.combinations(study())
    assert stacks.conclusion(study()) == ""


def test_terminal_and_page_have_the_table() -> None:
    stream = io.StringIO()
    show_study(combined(), [], stream)

    assert "openvino behind triton" in stream.getvalue()
    page = words(report.study_page(combined(), GUIDE))
    assert "Best of 2 combinations (1 left out)" in page
    assert "left out: not installed." in page


def test_only_what_differs_from_its_own_baseline_is_told_of_a_combination() -> None:
    document = combined()
    base = {"cache_size": 1, "block_size": 32}
    for one in document["combinations"][:2]:
        one["baseline"]["config"] = base
    document["combinations"][0]["best"]["config"] = base
    document["combinations"][1]["best"]["config"] = {"cache_size": 1, "max_num_seqs": 64}

    first, best, _ = stacks.combinations(document)

    assert first.outcome == "its baseline"
    assert best.outcome == "best of all: max_num_seqs=64, block_size unset"


def test_what_another_engine_sets_is_no_changed_setting() -> None:
    document = combined()
    document["baseline"]["config"] = {"of_the_other": 3}
    document["combinations"][1]["baseline"]["config"] = {"cache_size": 1}
    document["best"]["config"] = {"cache_size": 2}

    assert changed_settings(document, {}) == ["cache_size"]


def test_the_page_names_the_engine_of_each_trial_and_tells_it_against_its_own_baseline() -> None:
    document = combined()
    document["baseline"]["config"] = {"of_the_other": 3}
    document["combinations"][0]["baseline"]["config"] = {"of_the_other": 3}
    document["combinations"][1]["baseline"]["config"] = {"cache_size": 1}
    document["trials"] = [
        {"id": 1, "state": "measured", "value": 4.0, "config": {"cache_size": 1, "b": 2}},
        {"id": 2, "state": "measured", "value": 5.0, "config": {"of_the_other": 3}},
    ]
    document["trials"][0] |= {"engine": "openvino", "front": "triton"}
    document["trials"][1] |= {"engine": "openvino", "front": "native"}

    page = words(report.study_page(document, GUIDE))

    assert "than the baseline of its own engine and front" in page
    assert "1 openvino behind triton measured 4.00" in page
    assert "2 openvino behind native measured 5.00" in page
    assert "b = 2 2 openvino" in page
    assert "of_the_other = default" not in page
    assert "as the baseline" in page[page.index("2 openvino behind native measured") :]


def test_a_page_of_two_engines_names_both_versions() -> None:
    document = combined()
    document["spec"] = {**document.get("spec", {}), "seed": 7}
    document["combinations"][0] |= {"engine": "sglang", "engine_version": "0.5.17"}
    document["combinations"][1] |= {"engine_version": "2026.2"}
    document["combinations"][2] |= {"engine_version": "0.26.0"}  # left out

    page = words(report.study_page(document, GUIDE))

    both = "sglang 0.5.17, openvino 2026.2"
    assert f"Engines compared: {both}." in page  # what was run
    assert f"Engines compared {both}" in page  # the table of it
    assert f"{both}, seed 7." in page  # how it is repeated
    assert "sglang behind native 0.5.17" in page
    assert "openvino behind triton 2026.2" in page


def test_a_study_of_one_engine_has_no_engines_to_compare() -> None:
    assert stacks.engines(combined()) == []  # two fronts of it; vLLM was left out
    assert "Engines compared" not in words(report.study_page(study(), GUIDE))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([], ""),
        (["a"], " What its changed setting (a) adds was not measured."),
        (["a", "b"], " What each of its 2 changed settings (a and b) adds was not measured."),
    ],
)
def test_without_an_ablation_nothing_is_told_as_measured(changed: list[str], said: str) -> None:
    document = combined() | {"ablation": []}
    change = "openvino behind native → openvino behind triton"
    whole = f"No setting alone: what serves the model changed, too ({change}).{said}"

    assert findings.which_setting(document, changed) == whole


def test_an_ablation_of_the_winner_of_several_is_told_as_one() -> None:
    said = findings.which_setting(combined(), ["enable_prefix_caching", "max_num_batched_tokens"])

    assert "Its settings were measured on its own engine and front. What did it is" in said
