"""The estimate of Kaplan and Meier, and what it says where the last values are not known."""

import numpy as np
import pytest

from llmdyno.results.survival import survival


def test_a_mean_is_known_where_the_greatest_value_is() -> None:
    curve = survival(np.array([1.0, 2, 4]), np.array([2.0]))

    assert curve.mean() == pytest.approx(0.25 * 1 + 0.25 * 2 + 0.5 * 4)
    assert curve.quantile(0.5) == 2
    assert (curve.quantile(0.75), curve.last) == (4, 4)


def test_beyond_the_last_value_there_is_a_bound_alone() -> None:
    curve = survival(np.array([1.0, 1.0, 1.0]), np.array([9.0]))

    assert (curve.quantile(0.75), curve.quantile(0.99), curve.mean()) == (1, None, None)
    assert curve.mean_at_least() == pytest.approx((3 * 1 + 9) / 4)
    assert survival(np.zeros(0), np.zeros(0)).last == 0
