"""By how much two sides differ, and how sure that is."""

import math

import numpy as np
import pytest

from llmdyno.results import effects
from llmdyno.results.effects import Observation, effect, holm, observation, two_sided
from llmdyno.results.stats import STATISTICS, Floats, student_quantile

MEAN, P99 = STATISTICS["mean"], STATISTICS["p99"]


def starts(*values: float) -> list[list[Observation]]:
    """Return starts of one round each, of which nothing else is known."""
    return [[Observation(value)] for value in values]


def correlated(
    rng: np.random.Generator, *, rho: float, n: int = 120, spread: float = 0.1
) -> Floats:
    """Return a run of 100 whose seconds depend on one another."""
    noise = rng.normal(0, 1, n)
    series = np.empty(n)
    series[0] = noise[0]
    for second in range(1, n):
        series[second] = rho * series[second - 1] + math.sqrt(1 - rho**2) * noise[second]
    return 100 * (1 + spread * series)


@pytest.mark.parametrize(("t", "freedom"), [(12.706, 1), (4.303, 2), (2.228, 10), (1.98, 120)])
def test_a_tail_of_students_t_is_the_one_of_the_tables(t: float, freedom: int) -> None:
    assert two_sided(t, freedom) == pytest.approx(0.05, rel=0.002)


def test_a_far_tail_is_small_and_not_nothing() -> None:
    assert 1e-10 < two_sided(6.0, 10_000.0) < 3e-9
    assert two_sided(0.0, 5.0) == 1.0


def test_tail_and_quantile_are_each_others_inverse() -> None:
    for freedom in (1.0, 2.5, 30.0, 10_000.0):
        assert two_sided(student_quantile(freedom), freedom) == pytest.approx(0.05, rel=1e-3)


def test_holm_counts_how_many_there_are_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_starts_are_compared_by_what_lies_between_them() -> None:
    found = effect(starts(100, 101, 99), starts(110, 111, 109))

    assert found is not None
    assert found.value == pytest.approx(1.1, rel=1e-3)
    # Welch's t of the logarithms: two arms of the same variance have four degrees of freedom.
    error = math.sqrt(2 * np.log([100, 101, 99]).var(ddof=1) / 3)
    assert found.error == pytest.approx(error, rel=0.06)
    assert found.freedom == pytest.approx(4, abs=0.1)
    assert not found.assumed


def test_a_side_of_one_start_is_as_noisy_as_the_other_side() -> None:
    few, many = (effect(starts(100), starts(*after)) for after in ((90, 110), (99.9, 100.1)))

    assert few is not None
    assert many is not None
    assert few.error > 50 * many.error
    assert (few.assumed, many.assumed) == (False, False)


def test_starts_that_took_turns_share_a_drift() -> None:
    row = [False, True, True, False, True, False, False, True]
    values = [100 * 1.02**place * (1.05 if after else 1.0) for place, after in enumerate(row)]
    sides = [
        [
            [Observation(value)]
            for value, is_after in zip(values, row, strict=True)
            if is_after == arm
        ]
        for arm in (False, True)
    ]

    paired, unpaired = effect(*sides, row=row), effect(*sides)

    assert paired is not None
    assert unpaired is not None
    assert paired.value == pytest.approx(1.05, rel=1e-3)
    assert paired.error < unpaired.error / 10


def test_one_run_each_has_the_assumed_spread_on_top() -> None:
    quiet = observation(np.full(100, 50.0), MEAN, 50.0)

    found = effect([[quiet]], [[quiet]], assumed=0.01)

    assert found is not None
    assert found.assumed
    half = math.log(found.ci95[1])
    assert half == pytest.approx(1.96 * 0.01 * math.sqrt(2), rel=0.01)


def test_slow_swings_inside_a_run_widen_its_interval() -> None:
    rng = np.random.default_rng(1)
    fast = correlated(rng, rho=0.0)
    slow = np.sort(fast)  # the same values, but the run grows faster to its end

    widths = [
        effect([[one]], [[one]])
        for one in (observation(series, MEAN, float(series.mean())) for series in (fast, slow))
    ]

    assert widths[0] is not None
    assert widths[1] is not None
    assert widths[1].error > 4 * widths[0].error


def test_what_nothing_is_known_of_has_no_effect() -> None:
    assert effect(starts(100), starts(110)) is None
    known = [[Observation(100.0, inside=1.0)]]
    assert effect(known, starts(110)) is None
    assert effect(known, known) is not None


def test_a_zero_makes_it_a_difference() -> None:
    found = effect(starts(0, 0, 0), starts(2, 2.1, 1.9))

    assert found is not None
    assert not found.is_ratio
    assert found.value == pytest.approx(2.0)
    assert found.p < 0.01
    nothing = effect(starts(0, 0), starts(0, 0))
    assert nothing is not None
    assert (nothing.value, nothing.p) == (0.0, 1.0)


def test_many_observations_are_told_by_their_batches() -> None:
    values = np.random.default_rng(2).exponential(1.0, 40_000)

    found = observation(values, P99, P99.of(values))

    # Of independent values the variance of a quantile is known: q (1 - q) / (n f²).
    expected = 0.99 * 0.01 / (len(values) * 0.01**2)
    assert found.inside == pytest.approx(expected, rel=0.5)


def test_few_observations_tell_no_interval() -> None:
    assert observation(np.array([1.0, 2.0, 3.0]), MEAN, 2.0).inside is None


def test_equal_runs_are_seldom_called_different() -> None:
    """The short version of benchmarks/statistics/equal_comparisons.py."""
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(60):
        values = []
        for statistic in (MEAN, STATISTICS["p50"], P99):
            sides = [
                [[observation(series, statistic, statistic.of(series))]]
                for series in (correlated(rng, rho=0.8) for _ in range(2))
            ]
            found = effect(*sides)
            assert found is not None
            values.append(found.p)
        called += min(holm(values)) < effects.ALPHA

    assert called <= 3


def test_the_middle_of_values_is_the_one_that_ratios_are_of() -> None:
    assert effects.middle([Observation(1.0), Observation(4.0)]) == pytest.approx(2.0)
    assert effects.middle([Observation(0.0), Observation(4.0)]) == 2.0
