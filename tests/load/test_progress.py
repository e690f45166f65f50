"""What the live display shows, and when errors end a level."""

from typing import Any

import pytest

from llmdyno import plugins, spec
from llmdyno.load.plan import Plan
from llmdyno.load.progress import ERROR_RATE_REQUESTS, ErrorLimits, Progress
from llmdyno.records.entries import Record
from llmdyno.wire.target import parse_url


def record(outcome: str = "completed", **more: Any) -> Record:
    given: dict[str, Any] = {"level": 0, "request": 0, "user": 0, "prompt": 0, "due_ns": 0}
    given |= {"sent_ns": 0, "end_ns": 9, "outcome": outcome}
    if outcome == "completed":
        given |= {"gaps_ns": (5_000_000, 1), "output_tokens": 3, "reads": 2}
    return Record(**given | more)


def test_requests_are_counted_as_they_end() -> None:
    progress = Progress()

    for ended in (
        record(),
        record(texts=("a", "b")),
        record("failed", error="reset"),
        record("failed", error="reset"),
        record("cut", output_tokens=1, reads=1),
    ):
        progress.add(ended)

    assert (progress.completed, progress.failed, progress.uncounted) == (2, 2, 1)
    assert (progress.tokens, progress.reads) == (7, 5)
    assert progress.errors == {"reset": 2}
    assert progress.ttft_ms == [5.0, 5.0]


def test_the_ttfts_are_those_of_the_last_requests() -> None:
    progress = Progress()

    for number in range(1, 251):
        progress.add(record(gaps_ns=(number * 1_000_000,)))

    assert progress.ttft_ms == [float(number) for number in range(51, 251)]


@pytest.mark.parametrize(
    ("load", "duration_s", "requests"),
    [({"duration_s": 9.0}, 9.0, None), ({"requests": 7}, None, 7)],
)
def test_a_level_is_expected_to_end_by_time_or_by_number(
    load: dict[str, Any], duration_s: float | None, requests: int | None
) -> None:
    plan = Plan(
        level=0,
        users=1,
        load=spec.Load(**load),
        target=parse_url("http://h"),
        endpoint=plugins.load("endpoints", "openai-chat"),
        model="m",
    )
    progress = Progress()

    progress.expect(plan)

    assert (progress.duration_s, progress.requests) == (duration_s, requests)


def test_a_number_of_errors_ends_a_level_and_cuts_are_none() -> None:
    limits = ErrorLimits(spec.Load(max_errors=2))

    for ended in (record("failed"), record(), record("cut"), record("cut")):
        limits.count(ended)
    assert not limits.reached()
    limits.count(record("failed"))

    assert limits.reached() == "2 requests failed, as many as --max-errors allows"


def test_a_share_of_errors_is_of_the_last_requests() -> None:
    limits = ErrorLimits(spec.Load(max_error_rate=0.1))

    for _ in range(5):
        limits.count(record("failed"))
    assert not limits.reached()  # too few to judge
    for _ in range(ERROR_RATE_REQUESTS - 5):
        limits.count(record())
    assert not limits.reached()  # 10 %, which is allowed
    limits.count(record("failed"))  # the oldest failure leaves as this one comes
    assert not limits.reached()
    for _ in range(5):
        limits.count(record("failed"))

    assert limits.reached() == (
        "12 % of the last 50 requests failed, more than --max-error-rate 0.1 allows"
    )


@pytest.mark.parametrize(
    ("rate", "failed", "of", "at_end", "ends"),
    [
        (0.0, 1, 40, True, False),  # one failure alone ends nothing
        (0.1, 9, 9, False, False),  # too few to judge
        (0.1, 4, 10, False, False),  # may be chance
        (0.1, 5, 10, False, True),
        (0.0, 2, 10, False, True),
        (0.1, 4, 10, True, True),  # all there will be
        (0.4, 2, 5, True, False),  # as many as allowed
        (0.3, 2, 5, True, True),
        (0.9, 40, 40, False, False),
    ],
)
def test_a_share_of_few_requests_ends_a_level_if_it_is_no_chance(
    rate: float, failed: int, of: int, at_end: bool, ends: bool
) -> None:
    limits = ErrorLimits(spec.Load(max_error_rate=rate))

    for number in range(of):
        limits.count(record("failed" if number < failed else "completed"))

    assert bool(limits.reached(at_end=at_end)) is ends


def test_all_requests_of_a_short_level_are_judged_like_fifty() -> None:
    limits = ErrorLimits(spec.Load(max_error_rate=0.1), requests=12)

    for number in range(12):
        limits.count(record("failed" if number < 2 else "completed"))

    assert limits.reached().startswith("17 % of the last 12 requests failed")


def test_without_limits_nothing_ends_a_level() -> None:
    limits = ErrorLimits(spec.Load())

    for _ in range(1_000):
        limits.count(record("failed"))

    assert not limits.reached()
