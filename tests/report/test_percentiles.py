"""The chart of one latency: what it draws of each level, and on which axis."""

import json
from typing import Any

from llmdyno.report import percentiles
from llmdyno.report.documents import Material, Run
from report_samples import level, summary


def specification(*levels: dict[str, Any], metric: str = "ttft_ms") -> str:
    material = Material(runs=(Run(name="Run", summary=summary(list(levels))),))
    drawn = percentiles.draw(metric, material)
    assert drawn is not None
    return json.dumps(drawn.to_dict())


def test_long_tails_are_on_a_logarithmic_axis() -> None:
    even, far = level(10, rate=400, ttft_ms=100), level(10, rate=400, ttft_ms=100)
    even["ttft_ms"] |= {"p95": 110, "p99": 120}
    far["ttft_ms"] |= {"p95": 400, "p99": 900}

    assert "logarithmic" not in specification(even)
    assert "TTFT, ms (logarithmic)" in specification(far)


def test_an_interval_that_reaches_beyond_the_tail_is_within_the_axis() -> None:
    """That of a prediction does: it had crossed the legend."""
    wide = level(10, rate=400, ttft_ms=100)
    wide["ttft_ms"] |= {"p95": 150, "p99": 200, "p50_ci95": [20, 900]}
    low, high = json.loads(specification(wide))["layer"][1]["encoding"]["y"]["scale"]["domain"]
    assert low < 20
    assert high > 900


def test_seconds_are_the_unit_from_two_seconds_on() -> None:
    assert "TTFT, s" in specification(level(10, rate=400, ttft_ms=4000))


def test_a_level_without_a_median_is_left_out_and_nothing_is_no_chart() -> None:
    empty = level(10, rate=400, ttft_ms=100)
    empty["e2e_ms"] = {"p50": None, "p95": None, "p99": None}
    whole = level(50, rate=400, ttft_ms=100)

    assert "10 users" not in specification(empty, whole, metric="e2e_ms").split('"datasets"')[1]
    material = Material(runs=(Run(name="Run", summary=summary([empty])),))
    assert percentiles.draw("e2e_ms", material) is None
