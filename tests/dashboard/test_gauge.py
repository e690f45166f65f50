"""The counts of a run as the numbers and points of a page."""

from typing import Any

import pytest

from llmdyno.dashboard.gauge import Gauge
from llmdyno.load.progress import Progress
from llmdyno.records.entries import Record
from llmdyno.wire.exchange import Meter


def completed(number: int, ttft_ms: int) -> Record:
    gaps_ns = (ttft_ms * 1_000_000,)
    return Record(
        level=0,
        request=number,
        user=0,
        prompt=0,
        due_ns=0,
        sent_ns=0,
        end_ns=gaps_ns[0],
        outcome="completed",
        gaps_ns=gaps_ns,
        output_tokens=10,
    )


def test_each_interval_has_a_point_of_what_ended_in_it(board: Any) -> None:
    now_s = 100.0
    gauge = Gauge(board, 5.0, clock=lambda: now_s)
    progress = Progress(load="4 users", users=4, duration_s=20.0)
    gauge.show(progress, Meter())
    for number, ttft_ms in enumerate((100, 200, 300)):
        progress.add(completed(number, ttft_ms))
    now_s = 104.0
    gauge.show(progress, Meter())
    assert "points" not in board.lists  # the interval is not over
    now_s = 105.0
    gauge.show(progress, Meter())
    progress.add(completed(3, 900))
    now_s = 110.0
    gauge.show(progress, Meter())
    now_s = 115.0
    gauge.show(progress, Meter())

    first, second, third = board.lists["points"]
    assert (first["from"], first["at"], first["rate"]) == (0.0, 5.0, 6.0)
    assert (first["ttft_p50"], second["from"]) == (200.0, 5.0)
    assert (second["rate"], second["ttft_p50"], second["ttft_p99"]) == (2.0, 900.0, 900.0)
    assert (third["rate"], third["ttft_p50"]) == (0.0, None)
    now = board.parts["now"]
    assert (now["users"], now["completed"], now["load"]) == (4, 4, "4 users")
    assert now["ttft_p50"] == pytest.approx(250.0)


def test_a_warm_up_and_the_run_after_it_are_parted_and_no_rate_is_negative(board: Any) -> None:
    now_s = 0.0
    gauge = Gauge(board, 1.0, run="trial 3", clock=lambda: now_s)
    warm, level = Progress(), Progress()
    gauge.show(warm, Meter())
    warm.add(completed(0, 100))
    warm.phase, now_s = "done", 0.5
    gauge.show(warm, Meter())
    gauge.show(level, Meter())
    now_s = 1.5
    gauge.show(level, Meter())

    points = board.lists["points"]
    assert [point["part"] for point in points] == [1, 2]
    assert [point["rate"] for point in points] == [20.0, 0.0]
    assert {point["run"] for point in points} == {"trial 3"}


def test_the_moment_after_the_last_interval_makes_no_point(board: Any) -> None:
    now_s = 0.0
    gauge = Gauge(board, 5.0, clock=lambda: now_s)
    progress = Progress(load="4 users")
    gauge.show(progress, Meter())
    progress.add(completed(0, 100))
    now_s = 5.0
    gauge.show(progress, Meter())
    progress.phase, now_s = "done", 5.1
    gauge.show(progress, Meter())

    assert [(one["rate"], one["load"]) for one in board.lists["points"]] == [(2.0, "4 users")]


def test_what_is_under_way_counts_as_many_tokens_a_read_as_what_has_ended(board: Any) -> None:
    now_s = 0.0
    gauge = Gauge(board, 5.0, clock=lambda: now_s)
    progress, meter = Progress(), Meter()
    gauge.show(progress, meter)
    progress.add(completed(0, 100))  # ten tokens
    progress.reads, meter.reads, now_s = 2, 6, 5.0
    gauge.show(progress, meter)

    assert board.lists["points"][0]["rate"] == pytest.approx(30 / 5.0)
