"""Our quantiles are np.quantile's to the last bit."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmdyno.results.quantiles import linear, median

RNG = np.random.default_rng(3)
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.999, 1.0, 1 / 3)


def same(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    return ours.shape == theirs.shape and np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def series() -> list[NDArray[Any]]:
    lengths = [*range(1, 40), 100, 101, 1000, 4097]
    exact = [RNG.lognormal(3, 2, length) for length in lengths]
    return [
        *exact,
        *(np.round(values) for values in exact),  # with ties
        *(values.astype(np.int64) for values in exact),
        *(np.where(RNG.random(len(values)) < 0.1, np.inf, values) for values in exact),
        np.full(7, -0.0),
    ]


@pytest.mark.filterwarnings("ignore:invalid value")  # inf - inf, in both
def test_quantiles_of_a_series_are_numpys_to_the_last_bit() -> None:
    for values in series():
        assert same(linear(values, SHARES), np.quantile(values, SHARES))
        for share in SHARES:
            assert same(linear(values, share), np.asarray(np.quantile(values, share)))


def test_quantiles_of_each_row_are_numpys_to_the_last_bit() -> None:
    rows = RNG.lognormal(3, 2, (50, 37))

    assert same(linear(rows, 0.99), np.quantile(rows, 0.99, axis=1))
    assert same(linear(rows, SHARES), np.moveaxis(np.quantile(rows, SHARES, axis=1), 0, -1).copy())


def test_a_series_with_an_unknown_value_has_no_quantiles() -> None:
    rows = np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])

    assert np.isnan(linear(rows[0], SHARES)).all()
    assert np.isnan(linear(rows, 0.5)).tolist() == [True, False]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_median_is_numpys_to_the_last_bit() -> None:
    for values in (*series(), np.array([1.0, np.nan, 2.0]), np.array([np.inf, np.inf])):
        assert same(np.asarray(median(values)), np.asarray(float(np.median(values))))


def test_numpys_masked_arrays_are_not_imported() -> None:
    code = (
        "import sys, numpy as np; from llmdyno.results.quantiles import linear, median;"
        "linear(np.arange(9.0), (0.5, 0.99)); median(np.arange(9.0));"
        "sys.exit('numpy.ma' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
