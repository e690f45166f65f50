import numpy as np
import pytest

from llmdyno import stats


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


def test_equal_runs_are_seldom_called_different() -> None:
    rng = np.random.default_rng(4)
    called = 0
    for seed in range(100):
        pairs = [(rng.normal(100, 10, 60), rng.normal(100, 10, 60)) for _ in range(3)]
        replicates = stats.ratio_replicates(pairs, stats.mean_over_time, seed=seed)
        low, high = stats.interval95(replicates)
        called += not low <= 1.0 <= high

    assert called <= 12


def test_a_real_ratio_is_found_with_its_size() -> None:
    rng = np.random.default_rng(5)
    pairs = [(rng.normal(100, 10, 60), rng.normal(300, 30, 60)) for _ in range(2)]
    low, high = stats.interval95(stats.ratio_replicates(pairs, stats.mean_over_time))

    assert 2.8 < low < 3.0 < high < 3.2


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_resamples_have_the_length_of_the_series(n: int) -> None:
    indices = stats.block_resamples(n, 10, np.random.default_rng(0))

    assert (10, n) == indices.shape
    assert indices.min() >= 0
    assert indices.max() < n
