"""Which load points a run measures, in which order; searches and repeats read the journal."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llmdyno import spec
from llmdyno.bench.schedule import loads
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.slo import parse_slos

_LEVEL_NS = 10_000_000_000
_REQUESTS = 40


def bench(users: tuple[int, ...] = (10,), **given: Any) -> spec.Bench:
    load = spec.Load(users=users, requests=_REQUESTS, ramp_s=0.0)
    return spec.Bench(url="http://h", load=load, **given)


def measured(
    asked: spec.Bench, path: Path, ttft_ms: float, noise: float = 0.0, most: int = 100
) -> list[float]:
    """Return the first loads of a run against a server whose TTFT is so long for each user.

    With noise a round takes longer by that share than the one before.
    """
    journal = Journal(path)
    journal.append(Opened(run="r", started="2026-01-01T00:00:00+00:00", spec={}, environment={}))
    measured_loads = []
    for level, (repeat, load) in enumerate(islice(loads(asked, path), most)):
        measured_loads.append(load)
        start_ns = level * _LEVEL_NS
        users = round(load)
        journal.append(
            LevelStarted(level=level, users=users, start_ns=start_ns, ramp_ns=0, repeat=repeat)
        )
        length_ns = round(_LEVEL_NS * (1 + noise * repeat) / _REQUESTS)
        for number in range(_REQUESTS):
            gap_ns = round(load * ttft_ms * 1e6 * (0.95 + 0.1 * (number % 2)))
            journal.append(
                Record(
                    level=level,
                    request=number,
                    user=number % users,
                    prompt=number,
                    due_ns=start_ns + number * length_ns,
                    sent_ns=start_ns + number * length_ns,
                    end_ns=gap_ns,
                    outcome="completed",
                    gaps_ns=(gap_ns,),
                    output_tokens=1,
                )
            )
        end_ns = start_ns + length_ns * _REQUESTS
        journal.append(LevelEnded(level=level, end_ns=end_ns, full_until_ns=end_ns))
    journal.close()
    return measured_loads


def test_rounds_are_interleaved(tmp_path: Path) -> None:
    asked = bench((10, 50), repeat=2)

    assert list(loads(asked, tmp_path / "none")) == [(0, 10), (0, 50), (1, 10), (1, 50)]


def test_a_search_doubles_and_then_closes_in_on_where_the_slo_is_missed(tmp_path: Path) -> None:
    asked = bench(until=True, slos=parse_slos("ttft:p50<2s"))

    found = measured(asked, tmp_path / "j", ttft_ms=50.0, most=8)  # 2 s: 40 users

    assert found[:3] == [10, 20, 40]
    assert len(found) == 8
    assert all(load == round(load) for load in found)
    assert all(20 <= load <= 80 for load in found[3:])


def test_a_search_without_time_measures_one_level(tmp_path: Path) -> None:
    asked = bench(until=True, slos=parse_slos("ttft:p50<2s"), until_budget_s=0.0)

    assert measured(asked, tmp_path / "j", ttft_ms=50.0) == [10]


@pytest.mark.parametrize(("noise", "rounds"), [(0.001, 3), (0.2, 6)])
def test_rounds_end_once_the_token_rate_is_known(tmp_path: Path, noise: float, rounds: int) -> None:
    asked = bench((10, 20), repeat=6, repeat_until=0.05)

    assert measured(asked, tmp_path / "j", 5.0, noise) == [10, 20] * rounds
