"""What of a measurement stands in the ledger, and what is told of it."""

from pathlib import Path
from typing import Any

import pytest

from llmdyno import store
from llmdyno.cli.flags import study_spec
from llmdyno.tune.entries import Step
from llmdyno.tune.measure import Measurement
from llmdyno.tune.race import Lost
from llmdyno.tune.steps import account, as_step, excess, outcome

STUDY = study_spec({"users": "2,6", "objective": "ttft:p50", "slo": "ttft:p99<2s,token_rate>100"})


def summary(*, ttft_p99_ms: float | None, rate: float = 150.0) -> dict[str, Any]:
    met = ttft_p99_ms is not None and ttft_p99_ms < 2000
    level = {"ttft_ms": {"p50": 80.0, "p99": ttft_p99_ms}, "token_rate": {"mean": rate}}
    return {
        "levels": [{}, level],
        "slo": [{"level": 2, "met": False}, {"level": 6, "met": met}, {"level": 6, "met": True}],
    }


def step_of(measurement: Measurement) -> Step:
    return as_step(STUDY, measurement, "trial", 3, {"a": 1}, "")


def test_a_measurement_is_judged_at_the_level_of_the_study() -> None:
    good = step_of(
        Measurement(summary=summary(ttft_p99_ms=900.0), folder="runs/r", start_s=1.23456)
    )
    bad = step_of(Measurement(summary=summary(ttft_p99_ms=2500.0)))

    assert (good.state, good.value, good.slo_met, good.start_s) == ("measured", 80.0, True, 1.235)
    assert (good.phase, good.number, good.config, good.run) == ("trial", 3, {"a": 1}, "runs/r")
    assert bad.slo_met is False
    assert outcome(STUDY, good) == "ttft:p50 80 ms"
    assert outcome(STUDY, bad) == "ttft:p50 80 ms, SLO missed"


@pytest.mark.parametrize(
    ("kind", "state"), [("predicted-infeasible", "predicted-infeasible"), ("died", "failed")]
)
def test_a_failure_keeps_its_class(kind: str, state: str) -> None:
    step = step_of(Measurement(failure_class=kind, failure_why="because"))

    assert (step.state, step.value, step.slo_met) == (state, None, None)
    assert outcome(STUDY, step) == f"{kind}: because"
    assert account(STUDY, step, "a=1").endswith(f"  a=1\n    {kind}: because")
    assert excess(STUDY, Path("nowhere"), step) == {}


def test_what_is_told_of_a_trial_has_its_reason_on_lines_of_its_own() -> None:
    bad = step_of(Measurement(failure_class="died", failure_why="it died:\n  so it\n said. Log: x"))
    lost = Lost(why="ended after 4 s: TTFT 99 ms at least", interval=None)
    pruned = step_of(Measurement(summary=summary(ttft_p99_ms=900.0), lost=lost))
    good = step_of(Measurement(summary=summary(ttft_p99_ms=900.0)))

    assert account(STUDY, good, "a=1") == "ttft:p50 80 ms  a=1"
    assert account(STUDY, bad, "a=1").split("\n    ") == [
        *("failed  a=1", "died: it died:", "so it", "said. Log: x")
    ]
    assert account(STUDY, pruned, "a=1").split("\n    ") == [
        *("pruned, ttft:p50 80 ms so far  a=1", lost.why)
    ]


@pytest.mark.parametrize(
    ("ttft_p99_ms", "rate", "expected"),
    [
        (3000.0, 150.0, {"ttft:p99<2s": 0.5, "token_rate>100": -0.5}),
        (1000.0, 50.0, {"ttft:p99<2s": -0.5, "token_rate>100": 0.5}),
        (None, 100.0, {"ttft:p99<2s": 1.0, "token_rate>100": 0.0}),
    ],
)
def test_how_far_an_slo_was_missed_is_a_share_of_its_limit(
    ttft_p99_ms: float | None, rate: float, expected: dict[str, float], tmp_path: Path
) -> None:
    document = summary(ttft_p99_ms=ttft_p99_ms, rate=rate)
    (tmp_path / "runs").mkdir()
    store.write_json(tmp_path / "runs" / store.SUMMARY, document)
    step = step_of(Measurement(summary=document, folder="runs"))

    assert excess(STUDY, tmp_path, step) == pytest.approx(expected)


def test_an_slo_beyond_all_that_was_seen_is_missed_by_its_bound_or_wholly(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for at_least_ms, by in ((3000.0, 0.5), (1500.0, 1.0)):
        document = summary(ttft_p99_ms=90.0, rate=150.0)
        waited = {"kaplan_meier": {"p99": None}, "at_least": {"p99": at_least_ms}}
        document["levels"][-1]["ttft_ms"] |= waited
        store.write_json(tmp_path / "runs" / store.SUMMARY, document)
        step = step_of(Measurement(summary=document, folder="runs"))

        assert excess(STUDY, tmp_path, step)["ttft:p99<2s"] == pytest.approx(by)


def test_an_slo_that_is_missed_for_failed_requests_is_missed_wholly(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    document = summary(ttft_p99_ms=90.0, rate=150.0)
    document["levels"][-1]["requests"] = {"completed": 75, "failed": 25}
    store.write_json(tmp_path / "runs" / store.SUMMARY, document)
    step = step_of(Measurement(summary=document, folder="runs"))

    found = excess(STUDY, tmp_path, step)

    assert found == pytest.approx({"ttft:p99<2s": 1.0, "token_rate>100": -0.5})
