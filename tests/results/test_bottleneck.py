"""What held a server back, from levels of summaries; each case says which fact decides."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno.results.bottleneck import TITLES, bottleneck

LEVEL: dict[str, Any] = {
    "users": 100,
    "arrival": "closed",
    "requests": {"completed": 200},
    "tokens": {"output": 50_000},
    "ttft_ms": {"mean": 300.0},
    "e2e_ms": {"mean": 3000.0},
    "itl_ms": {"mean": 10.5, "p50": 10.0},
    "client": {"verdict": "valid", "reasons": []},
}
SLOW_START = {"ttft_ms": {"mean": 2000.0}}
JERKY = {"itl_ms": {"mean": 20.0, "p50": 10.0}}
FULL = {"preemptions": 3, "queue_ms_mean": 900.0}
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "decode takes most of a request": ({}, "decode", "all but 300 ms of 3,000 ms"),
    "the client": (
        {"client": {"verdict": "client-bound", "reasons": ["no headroom"]}, "server": FULL},
        "client",
        "no headroom",
    ),
    "preemptions": ({"server": {"preemptions": 3, "waiting_mean": 9.0}}, "kv", "3 requests"),
    "a full cache, and requests wait": (
        {"server": {"kv_use_max": 0.97, "waiting_mean": 2.0, "running_mean": 90.0}},
        "kv",
        "97 %",
    ),
    "a full cache, and nobody waits": (
        {"server": {"kv_use_max": 0.97, "waiting_mean": 0.0, "running_mean": 90.0}},
        "decode",
        "3,000 ms",
    ),
    "the server's queue time": (
        {"server": {"queue_ms_mean": 150.0, "ttft_ms": {"server_mean": 290.0}}},
        "queue",
        "150 ms of 290 ms",
    ),
    "the server's gauges": (
        {"server": {"waiting_mean": 36.0, "running_mean": 64.0}},
        "queue",
        "36.0 requests waited beside 64.0",
    ),
    "no queue by the server's word, however long the first token takes": (
        {"server": {"waiting_mean": 0.0, "running_mean": 64.0}, **SLOW_START},
        "prefill",
        "2,000 ms of 3,000 ms",
    ),
    "a wait that interrupts nobody": (SLOW_START, "queue", "2,000 ms while decode ran on"),
    "a wait in which decode stops too": (SLOW_START | JERKY, "prefill", "2,000 ms"),
    "one user waits for nobody": (SLOW_START | {"users": 1}, "prefill", "2,000 ms"),
    "prefill between decode steps": (JERKY, "prefill", "2.0 x the median"),
    "an idle GPU": ({"gpu": [{"use_mean": 0.42}, {"use_mean": 0.31}]}, "host", "42 %"),
    "a busy GPU": ({"gpu": [{"use_mean": 0.42}, {"use_mean": 0.93}]}, "decode", ""),
    "a GPU that serves nothing": ({"gpu": [{"use_mean": 0.0}]}, "decode", ""),
    "an idle GPU for want of arrivals": (
        {"gpu": [{"use_mean": 0.42}], "arrival": "poisson", "users": None},
        "decode",
        "",
    ),
    "no answer": ({"requests": {"completed": 0}, "tokens": {"output": 0}}, "", "no request"),
    "no latencies": ({"ttft_ms": None}, "", "no latencies"),
}


@pytest.mark.parametrize(("changes", "name", "why"), CASES.values(), ids=CASES)
def test_the_first_fact_that_shows_decides(changes: dict[str, Any], name: str, why: str) -> None:
    found = bottleneck({**LEVEL, **changes})
    assert found.name == name
    assert why in found.why


def test_of_many_signs_that_the_client_was_at_its_limit_one_is_told_and_the_rest_counted() -> None:
    reasons = ["the client was 9 ms late (p99)", "no headroom", "30% of the reads"]
    client = {"verdict": "client-bound", "reasons": reasons}

    cut = {n: {**LEVEL, "client": {**client, "reasons": reasons[:n]}} for n in (1, 2, 3)}
    said = {n: bottleneck(level).why for n, level in cut.items()}

    assert said == {
        1: "the client was 9 ms late (p99)",
        2: "the client was 9 ms late (p99), and 1 more sign of it",
        3: "the client was 9 ms late (p99), and 2 more signs of it",
    }


def test_an_older_or_broken_level_speaks_for_nothing() -> None:
    found = [bottleneck(level) for level in ({}, {"requests": 3}, {"tokens": {"output": "many"}})]
    assert {one.name for one in found} == {""}
    assert found[0].title == "not known"


def test_levels_of_real_gpu_runs_have_a_bottleneck() -> None:
    stored = Path(__file__).parents[2] / "evidence"
    summaries = sorted(stored.glob("h200/**/runs/*/summary.json"))
    if not summaries:
        pytest.skip("the evidence is not part of this copy")
    for summary in summaries:
        for level in json.loads(summary.read_bytes())["levels"]:
            found = bottleneck(level)
            assert found.name in TITLES.keys() - {""}
            assert found.why
