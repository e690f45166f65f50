"""What is said of a level that did not do what was asked."""

from typing import Any

import pytest

from llmdyno.results.load_checks import (
    about_backlog,
    about_lengths,
    about_models,
    about_models_of,
    about_rate,
    about_users,
)
from report_samples import level


def with_delivered(**parts: Any) -> dict[str, Any]:
    return {**level(10, rate=420, ttft_ms=510), "delivered": parts}


@pytest.mark.parametrize(
    ("mean", "missed_by", "noise", "says"),
    [
        (48.9, 0.019, 0.0, False),
        (49.0, 0.021, 0.0, True),
        (40.0, 0.17, 0.0, True),
        (48.0, 0.5, 0.0, True),  # right in the mean only
        (50.0, 0.04, 0.05, False),  # drawn lengths, few of them
    ],
)
def test_lengths_are_doubted_beyond_two_percent(
    mean: float, missed_by: float, noise: float, *, says: bool
) -> None:
    told = {"mean": mean, "asked": 48, "missed_by": missed_by, "noise": noise}

    found = about_lengths(with_delivered(output_tokens=told))

    assert [code for code, _ in found] == (["output-length-missed"] if says else [])
    for _, text in found:
        assert f"where 48.0 were asked (off by {100 * missed_by:.1f} %" in text


def test_a_file_may_tell_the_lengths_alone() -> None:
    assert about_lengths(with_delivered(output_tokens={"mean": 60.0, "asked": 48}))
    assert not about_lengths(with_delivered(output_tokens={"mean": 60.0, "asked": None}))
    assert not about_lengths(level(10, rate=420, ttft_ms=510))


@pytest.mark.parametrize(
    ("unstreamed", "says"), [(0, True), (18 * 1_000, True), (28 * 1_000, False)]
)
def test_hidden_tokens_are_part_of_the_work_that_was_asked(unstreamed: int, *, says: bool) -> None:
    one = with_delivered(output_tokens={"mean": 20.0, "asked": 48, "missed_by": 0.58})
    one["requests"] = {"completed": 1_000}
    one["tokens"]["unstreamed"] = unstreamed

    assert bool(about_lengths(one)) is says


def test_of_answers_of_another_length_it_is_said_why_they_ended() -> None:
    one = with_delivered(output_tokens={"mean": 20.0, "asked": 48})
    one["finishes"] = {"content_filter": 20, "length": 10}

    ((_, text),) = about_lengths(one)
    assert "Answers ended with the finish reason 'content_filter' 20, 'length' 10. See" in text
    one["finishes"] = {"length": 30}
    assert "finish reason" not in about_lengths(one)[0][1]


@pytest.mark.parametrize(
    ("sent", "not_sent", "says"), [(9.81, 19, False), (9.7, 30, True), (9.0, 1, False)]
)
def test_a_rate_is_doubted_beyond_two_percent(sent: float, not_sent: int, *, says: bool) -> None:
    one = with_delivered(rate={"asked": 10.0, "due": 10.0, "sent": sent, "not_sent": not_sent})
    one["schedule_delay_ms"] = {"p50": 1500.0, "p99": 3000.0}

    found = about_rate(one)

    assert [code for code, _ in found] == (["rate-not-delivered"] if says else [])
    for _, text in found:
        assert "where 10.0 were due (schedule delay p50 1.50 s, p99 3.00 s)" in text


def foreign(**facts: Any) -> dict[str, Any]:
    """Return a level of another tool's file: 100 requests in 25 s, of 5 s at most."""
    one = {**level(10, rate=420, ttft_ms=510), "duration_s": 25.0, **facts}
    one["requests"] = {"completed": 100, "failed": 0, "cut": 0, "errors": {}}
    one["e2e_ms"] = {"mean": 4000.0, "max": 5000.0}
    one["request_rate"] = {"mean": 4.0}
    return one


@pytest.mark.parametrize(
    ("arrival", "rate", "says"),
    [
        ("constant", 5.0, False),  # the tail explains what is missing
        ("constant", 5.2, True),
        ("poisson", 6.0, False),  # 100 arrivals may be 30 fewer by chance
        ("poisson", 8.0, True),
    ],
)
def test_a_foreign_rate_is_doubted_where_not_even_the_tail_explains_it(
    arrival: str, rate: float, *, says: bool
) -> None:
    found = about_rate(foreign(users=None, arrival=arrival, rate=rate))

    assert [code for code, _ in found] == (["rate-not-delivered"] if says else [])


@pytest.mark.parametrize(
    ("expected", "peak", "mean", "says"),
    [
        (99.0, 100, 98.0, False),
        (99.0, 61, 60.0, True),
        (99.0, 100, 60.0, True),  # reached once, and not kept
        (20.0, 25, 15.0, False),  # users that think for longer than they wait
        (1.0, 1, 0.9, False),
    ],
)
def test_users_that_were_never_there_are_doubted(
    expected: float, peak: int, mean: float, *, says: bool
) -> None:
    told = {"users": 100, "expected": expected, "peak": peak, "mean": mean}

    found = about_users(with_delivered(in_flight=told))

    assert [code for code, _ in found] == (["users-not-reached"] if says else [])


def test_a_foreign_level_has_as_many_in_flight_as_rate_and_e2e_say() -> None:
    assert not about_users(foreign(users=20))
    ((code, text),) = about_users(foreign(users=40))
    assert code == "users-not-reached"
    assert "16.0 requests were in flight in the mean" in text
    assert not about_users(foreign(users=40, arrival="poisson"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"first_ms": 200.0, "last_ms": 4000.0, "tau": 1.0, "input_tau": 0.1}, True),
        ({"first_ms": 200.0, "last_ms": 280.0, "tau": 1.0, "input_tau": 0.1}, False),
        ({"first_ms": 200.0, "last_ms": 4000.0, "tau": 0.7, "input_tau": 0.1}, False),
        ({"first_ms": 200.0, "last_ms": 4000.0, "tau": 1.0, "input_tau": 0.9}, False),
        (None, False),
    ],
)
def test_a_backlog_is_a_ttft_that_grows_and_not_by_longer_prompts(told: Any, *, says: bool) -> None:
    found = about_backlog(with_delivered(ttft_trend=told))

    assert [code for code, _ in found] == (["backlog"] if says else [])
    for _, text in found:
        assert "from 200 ms to 4.00 s in this window" in text


def answered(**by: dict[str, int]) -> dict[str, Any]:
    return {**level(10, rate=420, ttft_ms=510), "answered_by": by}


def test_answers_of_another_model_are_doubted_where_they_are_mixed() -> None:
    ((code, text),) = about_models(answered(m={"m": 60, "small": 123}, other={"alias": 7}))

    assert code == "several-models"
    assert text.startswith("where 'm' was asked, answers name 2 models: 'm' 60, 'small' 123.")
    assert not about_models(answered(m={"an alias": 183}))
    assert not about_models(level(10, rate=420, ttft_ms=510))


def test_a_model_that_was_replaced_between_levels_is_a_doubt_of_the_run() -> None:
    asked, replaced = answered(m={"m": 60}), answered(m={"small": 50})

    ((_, text),) = about_models_of([asked, asked, replaced])

    assert "'m' 120, 'small' 50" in text
    assert not about_models_of([asked, asked])
    assert not about_models_of([asked, answered(m={"m": 1, "small": 2})])  # the level says it
