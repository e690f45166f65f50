"""The time series of a level: a row an interval, the remainder in the last one."""

from llmdyno.records.entries import Tick
from llmdyno.results.samples import samples
from results.run_facts import SECOND, level_facts, record


def tick(second: float, worker: int = 0) -> Tick:
    return Tick(
        level=0, t_ns=round(second * SECOND), users=2, in_flight=1, cpu_s=0.1, worker=worker
    )


def test_each_row_is_of_what_happened_in_its_interval() -> None:
    failed = record(9, 1500, outcome="failed", gaps_ns=(), end_ns=1, error="reset")
    facts = level_facts(
        *(record(n, 100 * n) for n in range(9)), failed, seconds=2, ticks=(tick(0.5), tick(1.5))
    )

    first, second = samples(facts, 1.0)

    assert (first["t_s"], second["t_s"]) == (1.0, 2.0)
    assert (first["completed"], second["completed"]) == (9, 0)
    assert (first["failed"], second["failed"]) == (0, 1)
    assert (first["token_rate"], second["token_rate"]) == (27.0, 0.0)
    assert (first["ttft_ms_p50"], second["ttft_ms_p50"]) == (20.0, None)
    assert (first["users"], first["in_flight"]) == (2, 1)


def test_a_remainder_of_less_than_half_an_interval_belongs_to_the_last_row() -> None:
    rows = [row["t_s"] for row in samples(level_facts(seconds=2.4), 1.0)]

    assert rows == [1.0, 2.4]
    assert [row["t_s"] for row in samples(level_facts(seconds=2.6), 1.0)] == [1.0, 2.0, 2.6]


def test_users_are_those_of_all_workers_or_unknown() -> None:
    both = level_facts(seconds=1, workers=2, ticks=(tick(0.5), tick(0.6, worker=1)))
    one = level_facts(seconds=1, workers=2, ticks=(tick(0.5),))

    assert samples(both, 1.0)[0]["users"] == 4
    assert samples(one, 1.0)[0]["users"] is None


def test_a_level_that_was_killed_as_it_began_has_no_rows() -> None:
    assert samples(level_facts(seconds=0), 1.0) == []
