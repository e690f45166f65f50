"""What an ablation has shown, in words."""

from typing import Any

import pytest

from llmdyno.results import put_back


def row(knob: str, ratio: float, ci95: list[float], metric: str) -> dict[str, Any]:
    effect = {metric: {"ratio": ratio, "ci95": ci95}}
    return {"knob": knob, "from": 1, "to": 2, "effect": effect, "pairs": 3, "matters": True}


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
    study = {
        "slo": ["ttft:p99<1s"],
        "confirmation": {"decided_by": "token_rate"},
        "ablation": [row("strict", 0.8, [0.7, 0.9], "token_rate") | {"slo_met": met}],
    }

    said = put_back.which(study, ["strict", "other"])

    assert said.startswith(
        "What did it is strict (1 → 2): with it ttft:p99<1s is met in 3 of 3 runs, without it in 0"
        " of 3 runs and the token rate is"
    )
    assert "Against" not in said
