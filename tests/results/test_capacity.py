"""The highest load that meets the SLO: the search on noisy curves, and against a real server."""

import math
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from conftest import last_json
from llmdyno.results.capacity import (
    Capacity,
    CapacitySearch,
    Measured,
    capacity,
    isotonic,
    measured_point,
)
from llmdyno.results.delivered import Asked
from llmdyno.results.slo import parse_slos, verdicts
from llmdyno.results.summary import level_document
from results.run_facts import level_facts, record

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_the_isotonic_fit_pools_what_falls() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert isotonic(np.array([3.0, 2.0, 1.0])).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("failed", [0, 1, 5, 10, 50, 51])
@pytest.mark.parametrize("expr", ["ttft:p99<2s", "ttft:p90<2s", "ttft:p50<2s", "itl:p99<2s"])
def test_a_level_meets_its_slo_for_the_search_as_for_its_verdict(expr: str, failed: int) -> None:
    """Those that the level's end cut are on neither side: each would lower the share."""
    slos = parse_slos(expr)
    outcomes = ["failed"] * failed + ["completed"] * (100 - failed) + ["cut"] * 100
    records = [record(n, 40 * n, outcome=outcome) for n, outcome in enumerate(outcomes)]
    facts = level_facts(*records, seconds=10)

    point = measured_point(facts, slos)
    (verdict,) = verdicts(slos, level_document(facts, 1.0, slos, asked=Asked()))

    assert (point.margin < 0) is verdict["met"]
    most = {"ttft:p99<2s": 1, "ttft:p90<2s": 10, "ttft:p50<2s": 50, "itl:p99<2s": 1}[expr]
    assert verdict["met"] is (failed <= most)


def _search(
    truth: float, *, noise: float, steepness: float, seed: int, whole: bool
) -> tuple[Capacity, int]:
    """Search on the curve (load / truth) ** steepness, with noise from level to level."""
    rng = np.random.default_rng(seed)
    search = CapacitySearch(4.0, whole=whole, seed=seed)
    levels = 0
    while levels < 40 and (load := search.next_load()) is not None:
        margin = steepness * math.log(load / truth) + rng.normal(scale=noise)
        search.add(Measured(load=load, margin=margin, sd=noise / 2))
        levels += 1
    return capacity(search.points, whole=whole), levels


@pytest.mark.parametrize(("noise", "steepness"), [(0.02, 0.5), (0.1, 1.0), (0.3, 4.0)])
@pytest.mark.parametrize("whole", [True, False])
def test_the_truth_is_within_the_interval(noise: float, steepness: float, whole: bool) -> None:
    truth = 52.5
    found = [
        _search(truth, noise=noise, steepness=steepness, seed=seed, whole=whole)
        for seed in range(40)
    ]
    highest = math.floor(truth) if whole else truth
    held = [one.low <= highest <= (one.high or math.inf) for one, _ in found]
    errors = [abs((one.load or 0.0) / truth - 1) for one, _ in found]

    assert np.mean(held) >= 0.9
    assert np.mean([one.high is None for one, _ in found]) <= 0.1
    assert np.median(errors) <= 0.1 if noise > 0.05 else 0.04


def test_a_load_that_is_never_met_or_never_missed_is_said() -> None:
    never = CapacitySearch(8.0, whole=True)
    for _ in range(10):
        if (load := never.next_load()) is None:
            break
        never.add(Measured(load=load, margin=1.0, sd=0.1))
    nothing = capacity(never.points, whole=True)
    always = capacity([Measured(load=8.0, margin=-1.0, sd=0.1)], whole=True)

    assert [point.load for point in never.points] == [8, 4, 2, 1]
    assert (nothing.load, nothing.low, nothing.high) == (None, 0.0, 0.0)
    assert (always.load, always.low, always.high) == (8.0, 8.0, None)


@pytest.mark.alone
def test_the_capacity_of_a_server_is_found(streamer: Streamer, dyno: Dyno) -> None:
    """Each other stream adds 10 ms to the first token: 200 ms are reached with 18 others."""
    url = streamer("--ttft", "20ms", "--ttft-per-user", "10ms", "--itl", "1ms")

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "-c", "4"),
        *("--until", "--until-budget", "15s", "--slo", "ttft:p50<200ms", "--think-time", "0s"),
        *("--duration", "1200ms", "--ramp", "0s", "--osl", "2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    summary = last_json(done.stdout)
    found = summary["capacity"]

    assert found["ci95"][0] <= 18.5 <= found["ci95"][1] + 1
    assert found["users"] == pytest.approx(18, abs=2)
    assert len(found["points"]) == len(summary["levels"]) >= 6
    assert [level["users"] for level in summary["levels"][:4]] == [4, 8, 16, 32]
    assert "meet ttft:p50<200ms" in done.stderr


def test_the_search_needs_an_slo(dyno: Dyno) -> None:
    done = dyno("bench", "--url", "http://127.0.0.1:9", "--until")

    assert done.returncode == 2
    assert "--until: needs --slo" in done.stderr


@pytest.mark.parametrize("again", [("--repeat", "2"), ("--repeat-until", "2%")])
def test_the_search_repeats_by_itself(dyno: Dyno, again: tuple[str, str]) -> None:
    done = dyno("bench", "--url", "http://127.0.0.1:9", "--until", "--slo", "ttft:p99<2s", *again)

    assert done.returncode == 2
    assert "leave out --repeat and --repeat-until" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
