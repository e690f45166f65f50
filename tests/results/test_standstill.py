"""A server that sends nothing for seconds while answers are under way."""

from typing import Any

import pytest

from llmdyno.records.columns import Window
from llmdyno.records.entries import Record
from llmdyno.results.load_checks import about_standstill
from llmdyno.results.standstill import standstill
from results.run_facts import MS, SECOND, columns_of, record

WINDOW = Window(start_ns=2 * SECOND, end_ns=12 * SECOND, steady=True, method="-")


def stream(number: int, sent_ms: int, *waits: tuple[int, int], tokens: int = 1000) -> Record:
    """Return an answer with a token every 10 ms but where it waits: (token's place, ms)."""
    gaps_ns = [10 * MS] * tokens
    for place, wait_ms in waits:
        gaps_ns[place] = wait_ms * MS
    return record(number, sent_ms, gaps_ns=tuple(gaps_ns))


def told_of(*records: Record) -> dict[str, Any] | None:
    return standstill(columns_of(*records), WINDOW, SECOND)


def test_a_standstill_is_told_with_who_waited() -> None:
    waited = [stream(n, 1000, (300, 2600)) for n in range(22)]

    told = told_of(*waited)

    assert told == {
        "count": 1,
        "longest_s": 2.6,
        "total_s": 2.6,
        "at_s": pytest.approx(3.0),  # 1 s until they are sent, 3 s of tokens; the level began at 1
        "answers": 22,
        "itl_ms": 10,
    }
    level = {"delivered": {"standstill": told}, "window": {"start_s": 2.0, "end_s": 12.0}}
    ((code, said),) = about_standstill(level)
    assert code == "stood-still"
    assert "26 % of the window" in said


def test_only_what_lies_in_the_window_counts() -> None:
    told = told_of(stream(0, 0, (100, 2500), tokens=1500))  # from 1.0 to 3.49 s

    assert told is not None
    assert told["longest_s"] == pytest.approx(1.49, abs=0.011)
    assert told["at_s"] == 1.0  # where the window begins


def test_one_who_goes_on_makes_it_no_standstill() -> None:
    assert told_of(stream(0, 1000, (300, 2600)), stream(1, 1000, tokens=1200)) is None


def test_a_prompt_that_takes_long_is_none() -> None:
    """Between two answers nothing is under way, and a first token may take its time."""
    first, second = stream(0, 2000, tokens=200), record(1, 4000, gaps_ns=(3 * SECOND, MS, MS))

    assert told_of(first, second) is None


def test_what_a_server_does_often_is_its_speed() -> None:
    often = [(place, 1500) for place in (50, 100, 150, 200)]

    assert told_of(stream(0, 2000, *often, tokens=400)) is None
    assert told_of(stream(0, 2000, *often[:3], tokens=900)) is not None


def test_waits_between_the_requests_of_a_light_load_do_not_count() -> None:
    """With seven of them a standstill of 5 s was taken for how the server works."""
    stopped = stream(0, 1000, (50, 5000), tokens=100)
    seldom = [stream(n, 9000 + 1500 * n, tokens=10) for n in range(1, 8)]
    window = Window(start_ns=0, end_ns=30 * SECOND, steady=True, method="-")

    told = standstill(columns_of(stopped, *seldom), window, 0)

    assert told is not None
    assert (told["count"], told["longest_s"], told["answers"]) == (1, 5.0, 1)
    assert standstill(columns_of(*seldom), window, 0) is None


def test_a_slow_server_is_slow_and_does_not_stand_still() -> None:
    slow = record(0, 0, gaps_ns=(300 * MS,) * 20 + (3 * SECOND,) + (300 * MS,) * 20)

    assert told_of(slow) is None


def test_a_short_one_is_no_doubt() -> None:
    told = told_of(stream(0, 2000, (100, 1100), tokens=900))

    assert told is not None
    level = {"delivered": {"standstill": told}, "window": {"start_s": 0.0, "end_s": 30.0}}
    assert about_standstill(level) == []
    assert about_standstill({"delivered": {"standstill": None}}) == []


def test_of_no_tokens_nothing_is_told() -> None:
    assert told_of(record(0, 0, gaps_ns=(), outcome="failed")) is None
