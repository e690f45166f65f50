"""Whether a series repeats itself or rises."""

import numpy as np
import pytest

from llmdyno.results.series import period, rank_trend


@pytest.mark.parametrize("every", [2.0, 3.0, 5.0, 7.3, 12.0, 33.25])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_period_is_found_to_a_part_of_an_observation(every: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    series = (np.arange(600) % every < max(1, every / 4)) + rng.normal(0, noise / 2, 600)

    found = period(series)

    assert found is not None
    periods = found / every
    assert 1 <= round(periods) <= 5
    assert periods == pytest.approx(round(periods), abs=0.02)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_noise_is_seldom_called_periodic(rho: float) -> None:
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(200):
        series = np.zeros(240)
        for i, step in enumerate(rng.normal(0, 1, 239)):
            series[i + 1] = rho * series[i] + step
        called += period(series) is not None

    assert called <= 2


@pytest.mark.parametrize("series", [np.zeros(0), np.ones(1), np.full(300, 0.1), np.arange(20.0)])
def test_what_does_not_vary_or_only_rises_has_no_period(series: np.ndarray) -> None:
    assert period(series) is None


def test_a_trend_is_the_share_of_pairs_that_rise() -> None:
    assert rank_trend(np.arange(10.0)) == 1
    assert rank_trend(-np.arange(10.0)) == -1
    assert rank_trend(np.array([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert rank_trend(np.ones(5)) == rank_trend(np.ones(1)) == 0


def test_any_short_series_has_a_period_within_it_or_none() -> None:
    rng = np.random.default_rng(3)
    for n in range(2, 60):
        numbers = np.arange(n, dtype=np.float64)
        for series in (rng.normal(size=n), np.argsort(numbers % 2), numbers % 3):
            found = period(series.astype(np.float64))
            assert found is None or 1.5 <= found <= n / 8 + 1
