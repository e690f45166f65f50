"""Two clocks are compared at one moment, though the process may lose its core between them."""

import time
from collections.abc import Iterator

import pytest

from llmdyno.wire import wall_clock


def losing_the_core(monkeypatch: pytest.MonkeyPatch, for_s: Iterator[float]) -> list[int]:
    """Let so much time pass before each reading of the wall clock; return when each was over."""
    ends_ns: list[int] = []

    def read(clock: int) -> int:
        time.sleep(next(for_s))
        wall_ns = time.clock_gettime_ns(clock)
        ends_ns.append(time.perf_counter_ns())
        return wall_ns

    monkeypatch.setattr(wall_clock, "clock_gettime_ns", read)
    return ends_ns


def truth_ns() -> int:
    return min(wall_clock.read()[1] for _ in range(100))


def test_a_core_that_is_lost_between_the_readings_is_no_difference_of_the_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = truth_ns()
    ends_ns = losing_the_core(monkeypatch, iter([0.03, 0.03, 0.0, 0.0, 0.0]))

    now_ns, ahead_ns = wall_clock.read()

    assert abs(ahead_ns - truth) < 5_000_000
    assert ends_ns[1] <= now_ns < time.perf_counter_ns()  # of a reading after the two


def test_where_they_never_lie_together_the_closest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truth_ns()
    losing_the_core(monkeypatch, iter([0.5, 0.4, 0.001, 0.3, 0.2]))

    _, ahead_ns = wall_clock.read()

    assert abs(ahead_ns - truth) < 100_000_000
