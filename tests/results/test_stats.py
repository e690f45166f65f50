from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.results import stats


def test_weighted_quantile_counts_each_value_as_often_as_it_weighs() -> None:
    values, weights = np.array([5.0, 1.0, 3.0]), np.array([1.0, 8.0, 1.0])

    assert stats.quantile(values, 0.5, weights) == 1.0
    assert stats.quantile(values, 0.85, weights) == 3.0
    assert stats.quantile(values, 1.0, weights) == 5.0
    assert stats.quantile(np.array([1.0, 2.0]), 0.5) == 1.5


def test_mser_finds_the_end_of_a_transient() -> None:
    rng = np.random.default_rng(0)
    series = np.concatenate([np.linspace(0, 100, 60), np.full(240, 100.0)])
    series += rng.normal(0, 5, len(series))

    assert 40 <= stats.steady_start(series) <= 90


def test_mser_leaves_a_steady_series_nearly_whole_and_a_short_one_alone() -> None:
    rng = np.random.default_rng(1)

    assert stats.steady_start(rng.normal(100, 5, 300)) <= 60
    assert stats.steady_start(np.arange(15.0)) == 0


def _autocorrelated(rng: np.random.Generator, n: int, rho: float) -> stats.Floats:
    noise = rng.normal(0, 1, n)
    series = np.zeros(n)
    for i in range(1, n):
        series[i] = rho * series[i - 1] + noise[i]
    return series + 50.0


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        series = rng.normal(50, 10, 120)
        low, high = stats.interval95(stats.bootstrap(series, stats.mean_over_time, seed=trial))
        hits += low <= 50 <= high

    assert hits >= 178  # 95 % of 200 is 190; blocks of a short series cover a little less


def test_blocks_widen_the_interval_of_an_autocorrelated_series() -> None:
    series = _autocorrelated(np.random.default_rng(3), 400, rho=0.8)
    low, high = stats.interval95(stats.bootstrap(series, stats.mean_over_time))
    independent = series[np.random.default_rng(0).integers(0, 400, (1000, 400))].mean(axis=1)
    naive_low, naive_high = stats.interval95(independent)

    assert (high - low) > 1.5 * (naive_high - naive_low)


def _runs(rng: np.random.Generator, count: int, spread: float, level: float = 100.0) -> list[Any]:
    """Return equal runs, autocorrelated inside and with a spread of their own between them."""
    return [
        level * np.exp(rng.normal(0, spread)) * (_autocorrelated(rng, 60, rho=0.6) / 50.0)
        for _ in range(count)
    ]


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_equal_runs_are_seldom_called_different(pairs: int) -> None:
    rng = np.random.default_rng(4)
    called = 0
    for _ in range(200):
        before, after = _runs(rng, pairs, 0.03), _runs(rng, pairs, 0.03)
        _, ci95 = stats.ratio(before, after, stats.mean_over_time)
        assert ci95 is not None
        called += not ci95[0] <= 1.0 <= ci95[1]

    assert called <= 17  # 5 % of 200 is 10, and 17 is the 99 % quantile of that


def test_a_real_ratio_is_found_with_its_size_at_two_pairs() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        before, after = _runs(rng, 2, 0.005), _runs(rng, 2, 0.005, level=200.0)
        mean, ci95 = stats.ratio(before, after, stats.mean_over_time)

        assert ci95 is not None
        assert 1.5 < ci95[0] < mean < ci95[1]
        assert mean == pytest.approx(2.0, rel=0.05)


def test_one_run_an_arm_has_an_interval_only_if_others_say_how_far_equal_runs_lie_apart() -> None:
    rng = np.random.default_rng(6)
    before, after = _runs(rng, 1, 0.0), _runs(rng, 1, 0.0)
    known = stats.spread(_runs(rng, 3, 0.05), _runs(rng, 3, 0.05), stats.mean_over_time)

    assert stats.ratio(before, after, stats.mean_over_time).ci95 is None
    assert stats.spread(before, after, stats.mean_over_time) is None
    assert known is not None
    assert known.freedom == 4
    ci95 = stats.ratio(before, after, stats.mean_over_time, known=known).ci95
    assert ci95 is not None
    half = stats.student_quantile(4) * np.sqrt(2 * known.variance)
    assert np.log(ci95[1] / ci95[0]) == pytest.approx(2 * half)


def test_runs_that_are_alike_by_chance_keep_the_noise_inside_them() -> None:
    series = _autocorrelated(np.random.default_rng(7), 100, rho=0.5)
    ci95 = stats.ratio([series, series], [series, series], stats.mean_over_time).ci95

    assert ci95 is not None
    assert ci95[0] < 0.99
    assert ci95[1] > 1.01


def test_the_quantile_of_student_is_that_of_the_tables() -> None:
    tables = {1: 12.706, 2: 4.303, 4: 2.776, 10: 2.228, 120: 1.980}

    for freedom, quantile in tables.items():
        assert stats.student_quantile(freedom) == pytest.approx(quantile, abs=6e-4)
    assert 4.303 < stats.student_quantile(1.5) < 12.706


@pytest.mark.parametrize("n", [2, 7, 1000])
def test_resamples_have_the_length_of_the_series(n: int) -> None:
    series = np.arange(n, dtype=np.float64)

    resamples = stats.block_resamples(series, 10, np.random.default_rng(0))

    assert resamples.shape == (10, n)
    assert set(resamples.flat) <= set(series)
    # Blocks of neighbours, the last one before the first.
    steps = np.diff(resamples, axis=1) % n
    assert (steps == 1 % n).mean() >= 1 - 1 / stats.block_length(n)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_median_of_each_resample_is_the_median(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(5, n))

    assert stats.median_over_time(values) == pytest.approx(np.median(values, axis=1))


@pytest.mark.parametrize("name", stats.STATISTICS)
def test_a_statistic_is_the_same_of_a_series_and_of_its_resamples(name: str) -> None:
    values = np.random.default_rng(2).exponential(size=101)
    truth = {
        "mean": values.mean(),
        "p50": np.median(values),
        "p90": np.quantile(values, 0.9),
        "p95": np.quantile(values, 0.95),
        "p99": np.quantile(values, 0.99),
        "max": values.max(),
    }
    one = stats.STATISTICS[name]

    assert one.of(values) == pytest.approx(truth[name])
    assert one.over_time(np.stack([values, 2 * values])) == pytest.approx(
        [truth[name], 2 * truth[name]]
    )


def test_six_digits_are_significant() -> None:
    assert stats.significant(1234567.0) == 1234570.0
    assert stats.significant(0.0001234567) == 0.000123457


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.floats(0.5, 9),
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]), min_size=1, max_size=6),
)
def test_equal_weights_are_counted_as_others_are(
    values: list[int], weight: float, shares: list[float]
) -> None:
    observed = np.array(values, dtype=float)
    # One observation of no weight makes the weights unequal, and changes no quantile.
    more, unequal = np.append(observed, 99.0), np.append(np.ones(len(values)), 0.0)

    found = stats.quantiles(observed, shares, np.full(len(values), weight))

    assert found == stats.quantiles(more, shares, unequal)
