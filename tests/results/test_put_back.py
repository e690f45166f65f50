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
