"""What an ablation has shown, in words."""

from typing import Any

import pytest

from llmdyno.results import put_back


def row(knob: str, ratio: float, ci95: list[float], metric: str) -> dict[str, Any]:
    effect = {metric: {"ratio": ratio, "ci95": ci95}}
    return {"knob": knob, "from": 1, "to": 2, "effect": effect, "pairs": 3, "matters": True}


def said_under_slo(knob: str, ratio: float, ci95: list[float], met: dict[str, Any]) -> str:
    """Return what is said of two settings under an SLO, of which this one was put back."""
    study = {
        "slo": ["ttft:p99<1s"],
        "confirmation": {"decided_by": "token_rate"},
        "ablation": [row(knob, ratio, ci95, "token_rate") | {"slo_met": met}],
    }
    return put_back.which(study, [knob, "other"])


@pytest.mark.parametrize(
    ("metric", "gain", "cost"),
    [
        ("token_rate", (1.5, [1.4, 1.6]), (0.8, [0.7, 0.9])),
        ("ttft_ms_p50", (0.8, [0.7, 0.9]), (1.5, [1.4, 1.6])),
    ],
)
def test_a_setting_that_costs_is_no_reason_for_a_gain(
    metric: str, gain: tuple[float, list[float]], cost: tuple[float, list[float]]
) -> None:
    """Lower is better of a latency, higher of a rate."""
    study = {
        "confirmation": {"decided_by": metric},
        "ablation": [row("good", *gain, metric), row("bad", *cost, metric)],
    }

    said = put_back.which(study, ["good", "bad"])

    assert said.startswith("What did it is good (1 → 2): with it")
    assert ". Against it works bad (1 → 2): with it" in said


def test_what_the_slos_hang_on_did_it_whatever_it_costs() -> None:
    met = {"with": [True] * 3, "without": [False] * 3, "decides": True}
    said = said_under_slo("strict", 0.8, [0.7, 0.9], met)

    assert said.startswith(
        "What did it is strict (1 → 2): with it ttft:p99<1s is met in 3 of 3 runs, without it in 0"
        " of 3 runs and the token rate is"
    )
    assert "Against" not in said


def test_what_costs_the_slos_works_against_it_whatever_it_gains() -> None:
    met = {"with": [False] * 2, "without": [True] * 2, "decides": True}
    said = said_under_slo("wide", 1.2, [1.1, 1.3], met)

    assert said.startswith(
        "Against it works wide (1 → 2): with it ttft:p99<1s is met in 0 of 2 runs, without it in 2"
        " of 2 runs and the token rate is"
    )
    assert "What did it" not in said


def test_a_cost_that_may_meet_the_slos_is_neither_for_it_nor_against_it() -> None:
    """One run with it and one without show nothing of the SLOs; who put it back might lose them."""
    met = {"with": [True], "without": [False], "decides": False}
    said = said_under_slo("strict", 0.8, [0.7, 0.9], met)

    assert said.startswith(
        "Not shown to be for it or against it, by too few runs, is strict (1 → 2): with it"
        " ttft:p99<1s is met in 1 of 1 run, without it in 0 of 1 run and the token rate is"
    )
    assert "Against it works" not in said
    assert "What did it" not in said


def test_a_gain_that_may_cost_the_slos_is_neither_for_it_nor_against_it() -> None:
    met = {"with": [False], "without": [True], "decides": False}
    said = said_under_slo("wide", 1.2, [1.1, 1.3], met)

    assert said.startswith(
        "Not shown to be for it or against it, by too few runs, is wide (1 → 2): with it"
        " ttft:p99<1s is met in 0 of 1 run, without it in 1 of 1 run and the token rate is"
    )
    assert "Against it works" not in said
    assert "What did it" not in said


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        (
            [[0.9, 1.21]],
            "a is not shown to have an effect of its own; up to 21 % in the token rate",
        ),
        (
            [[0.7, 1.21]],
            "a is not shown to have an effect of its own; up to 30 % in the token rate",
        ),
        ([[0.5, 1.1]], "a is not shown to have an effect of its own; up to 2 times in the"),
        ([[0.3, 9.6]], "a is not shown to have an effect of its own; up to 9.6 times in the"),
        ([[0.0, 1.1]], "its own; up to any number of times in the token rate is"),
        ([[0.998, 1.0]], "its own; up to 0.2 % in the token rate is not ruled out."),
        (
            [[0.9, 1.21], [0.66, 1.3]],
            "of their own; up to 21 % (a) and 34 % (b) in the token rate are not ruled out.",
        ),
    ],
)
def test_beside_no_effect_stands_what_is_not_ruled_out(
    intervals: list[list[float]], said: str
) -> None:
    """Two pairs show little: that a setting has no effect is not what they say."""
    rows = [row(name, 1.0, ci95, "token_rate") for name, ci95 in zip("ab", intervals, strict=False)]
    study = {"confirmation": {"decided_by": "token_rate"}, "ablation": rows}

    assert said in put_back.which(study, ["a", "b"])


def test_without_an_interval_nothing_is_said_of_what_is_not_ruled_out() -> None:
    rows = [{**row("a", 1.0, [], "token_rate"), "matters": False}]
    study = {"confirmation": {"decided_by": "token_rate"}, "ablation": rows}

    assert put_back.which(study, ["a"]) == "a is not shown to have an effect of its own."
