"""What the user asks of a benchmark checks itself: one sentence that names the option."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from llmdyno.errors import UsageError
from llmdyno.spec import Bench, Load, Workload
from llmdyno.tune.spec import Study
from llmdyno.units import lengths

WRONG: dict[str, tuple[Callable[..., object], dict[str, Any], str]] = {
    "a seed below 0": (Workload, {"seed": -1}, "--seed -1: must be at least 0."),
    "no tokens": (Workload, {"max_tokens": 0}, "--max-tokens 0: must be at least 1."),
    "two lengths": (
        Workload,
        {"max_tokens": 9, "osl": lengths("7", "--osl")},
        "--max-tokens 9: not together with --osl",
    ),
    "two lengths, one of a file": (
        Workload,
        {"max_tokens": 9, "dataset": "x", "dataset_osl": True},
        "--max-tokens 9: not together with --dataset-osl",
    ),
    "a header that is none": (
        Bench,
        {"url": "http://h", "headers": ("X-Key",)},
        "--header X-Key: write 'Name: value'",
    ),
    "a header twice": (
        Bench,
        {"url": "http://h", "headers": ("X: a", "x: b")},
        "x: is set twice",
    ),
    "nobody": (Load, {"users": (1, 0)}, "-c 1,0: each level needs 1 user or more."),
    "no arrivals": (Load, {"arrival": "poisson"}, "needs a rate"),
    "a rate of users": (Load, {"rates": (2.0,)}, "needs arrivals that are not closed"),
    "a rate of 0": (Load, {"arrival": "poisson", "rates": (0.0,)}, "more than 0 a second"),
    "all ramp": (Load, {"ramp_s": 60.0, "duration_s": 60.0}, "--ramp 1m: must be shorter"),
    "every error": (Load, {"max_error_rate": 1.0}, "must be at least 0 and below 1"),
    "one pair": (Study, {"pairs": 1}, "--pairs 1: must be at least 2"),
    "no trials": (Study, {"trials": 0}, "--trials 0: must be at least 1."),
    "a search without a limit": (Bench, {"url": "http://h", "until": True}, "needs --slo"),
    "no worker": (Bench, {"url": "http://h", "workers": 0}, "--workers 0: must be at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_when_it_is_made(name: str) -> None:
    make, given, words = WRONG[name]

    with pytest.raises(UsageError, match=re.escape(words)):
        make(**given)


@pytest.mark.parametrize(
    ("given", "points", "ramp_s", "ends_by_count"),
    [
        ({}, (10, 50, 100), 20.0, False),
        ({"users": (4,), "duration_s": 40.0}, (4,), 10.0, False),
        ({"users": (4,), "requests": 9}, (4,), 0.0, True),
        ({"users": (4,), "requests": 9, "ramp_s": 20.0}, (4,), 20.0, True),
        ({"arrival": "poisson", "rates": (2.0, 4.0)}, (2.0, 4.0), 0.0, False),
        ({"arrival": "trace", "time_scale": 2.0}, (2.0,), 0.0, True),
    ],
)
def test_a_load_knows_its_points_its_ramp_and_its_end(
    given: dict[str, Any], points: tuple[float, ...], ramp_s: float, ends_by_count: bool
) -> None:
    load = Load(**given)

    assert (load.points, load.effective_ramp_s, load.ends_by_count) == (
        points,
        ramp_s,
        ends_by_count,
    )


def test_rounds_run_all_loads_one_after_the_other() -> None:
    bench = Bench(url="http://h", load=Load(users=(1, 2)), repeat=2)

    assert bench.levels == ((0, 1), (0, 2), (1, 1), (1, 2))


def test_a_study_compares_at_its_largest_load() -> None:
    assert Study(load=Load(users=(5, 50, 10))).level == 50
