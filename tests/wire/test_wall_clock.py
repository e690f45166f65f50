"""Two clocks are compared at one moment, though the process may lose its core between them."""

import time
from collections.abc import Iterator

import pytest

from llmdyno.wire import wall_clock


def losing_the_core(monkeypatch: pytest.MonkeyPatch, for_s: Iterator[float]) -> None:
    """Let so much time pass before each reading of the wall clock, which comes right after."""

    def read(clock: int) -> int:
        time.sleep(next(for_s))
        return time.clock_gettime_ns(clock)

    monkeypatch.setattr(wall_clock, "clock_gettime_ns", read)


def truth_ns() -> int:
    return min(wall_clock.read()[1] for _ in range(100))


def test_a_core_that_is_lost_between_the_readings_is_no_difference_of_the_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = truth_ns()
    losing_the_core(monkeypatch, iter([0.03, 0.03, 0.0, 0.0, 0.0]))

    now_ns, ahead_ns = wall_clock.read()

    assert abs(ahead_ns - truth) < 5_000_000
    assert abs(time.perf_counter_ns() - now_ns) < 10_000_000_000


def test_where_they_never_lie_together_the_closest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truth_ns()
    losing_the_core(monkeypatch, iter([0.5, 0.4, 0.001, 0.3, 0.2]))

    _, ahead_ns = wall_clock.read()

    assert abs(ahead_ns - truth) < 100_000_000
