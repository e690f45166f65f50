"""A study at a rate: requests come when they are due, whatever the server does."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.cli.flags import QUICK, read_toml, study_spec
from llmdyno.cli.repeat import study_file
from llmdyno.errors import UsageError
from llmdyno.results.verdicts import confirmed
from llmdyno.spec import Load
from llmdyno.tune.race import may_end

RATES: dict[str, Any] = {"request_rate": "2,5", "objective": "ttft:p99"}


def test_a_rate_means_poisson_arrivals_and_the_largest_decides() -> None:
    study = study_spec(RATES)

    assert (study.load.arrival, study.load.rates) == ("poisson", (2.0, 5.0))
    assert (study.level, study.compared_at) == (5.0, "poisson 5/s")
    assert study.load.alone(study.level).points == (5.0,)


@pytest.mark.parametrize(
    ("given", "points"),
    [
        ({"users": "100,10,50"}, (10, 50, 100)),
        ({**RATES, "request_rate": "5,0.5"}, (0.5, 5.0)),
    ],
)
def test_the_level_that_decides_is_measured_last(
    given: dict[str, Any], points: tuple[float, ...]
) -> None:
    study = study_spec(given)

    assert study.load.points == points
    assert study.level == points[-1]


def test_a_profiles_users_give_way_to_a_rate() -> None:
    study = study_spec(RATES, profile=QUICK)

    assert study.load.points == (2.0, 5.0)
    assert study.load.ramp_s is None


def test_a_trial_at_a_rate_goes_on_to_its_end() -> None:
    study = study_spec(RATES)
    closed = study_spec({})

    assert not may_end(study, study.load.alone(study.level))
    assert may_end(closed, closed.load.alone(closed.level))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"request_rate": "5"}, ("--request-rate 5", "--objective ttft:p99")),
        ({**RATES, "users": "10"}, ("-c 10", "--max-concurrency")),
        ({**RATES, "think_time": "1s"}, ("--think-time 1s",)),
        ({**RATES, "arrival": "closed"}, ("--request-rate", "--arrival poisson")),
        ({"arrival": "poisson", "objective": "ttft:p99"}, ("--arrival poisson", "needs a rate")),
    ],
)
def test_what_does_not_fit_a_rate_is_refused(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        study_spec(given)

    assert all(word in str(caught.value) for word in words)


def test_a_rate_beside_a_trace_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 8, "output_length": 4, "hash_ids": [0]}\n')

    with pytest.raises(UsageError, match="a trace has its own load"):
        study_spec({**RATES, "workload": "trace", "dataset": str(trace)})


@pytest.mark.parametrize("more", [{}, {"burstiness": 0.5}, {"max_concurrency": 8}])
def test_its_file_is_read_as_the_same_study(more: dict[str, Any], tmp_path: Path) -> None:
    study = study_spec({**RATES, **more})
    file = tmp_path / "study.toml"
    file.write_text(study_file(study))

    assert study_spec(read_toml(file)) == study


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (Load(users=(10, 100)), "100 users"),
        (Load(users=(1,)), "1 user"),
        (Load(rates=(2.5,), arrival="constant"), "constant 2.5/s"),
        (Load(arrival="trace"), "trace arrivals"),
    ],
)
def test_a_confirmation_names_its_load_as_a_summary_does(load: Load, name: str) -> None:
    study = msgspec.structs.replace(study_spec({}), load=load)
    level = None if load.has_own_times else study.level

    assert study.compared_at == name
    assert confirmed({"confirmation": {"arrival": load.arrival, "level": level}}).level == name
