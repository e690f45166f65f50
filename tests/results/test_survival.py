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


def test_the_quantile_of_censored_values_is_kaplan_and_meiers() -> None:
    # The example of the textbooks: 6-MP in acute leukaemia (Freireich et al. 1963), weeks.
    known = np.array([6.0, 6, 6, 7, 10, 13, 16, 22, 23])
    censored = np.array([6.0, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])

    assert survival(known, censored).quantile(0.5) == 23
    assert survival(known, censored).quantile(0.25) == 13
    assert survival(known, censored).quantile(0.99) is None
    assert survival(known, np.array([])).quantile(0.5) == 10
    assert survival(np.array([]), censored).quantile(0.5) is None
