"""When the requests of an open loop are due: drawn beforehand, never rescaled."""

import numpy as np
import pytest

from llmdyno.load.arrivals import due_times_s
from llmdyno.spec import Load


def _gaps(arrival: str, burstiness: float | None = None) -> np.ndarray:
    load = Load(arrival=arrival, rates=(5.0,), burstiness=burstiness, requests=20_000)
    return np.diff(due_times_s(load, 5.0, "7"))


@pytest.mark.parametrize(
    ("arrival", "burstiness", "variation"),
    [("constant", None, 0.0), ("poisson", None, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5)],
)
def test_gaps_have_the_rate_and_the_burstiness(
    arrival: str, burstiness: float | None, variation: float
) -> None:
    gaps_s = _gaps(arrival, burstiness)

    assert gaps_s.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(variation, abs=0.1)


def test_poisson_counts_vary_as_they_should_and_are_not_rescaled() -> None:
    load = Load(arrival="poisson", rates=(10.0,), duration_s=10.0)

    counts = [len(due_times_s(load, 10.0, str(seed))) for seed in range(400)]

    assert np.mean(counts) == pytest.approx(100, rel=0.03)
    assert np.var(counts) == pytest.approx(100, rel=0.3)  # the variance of a Poisson is its mean
    assert due_times_s(load, 10.0, "1") == due_times_s(load, 10.0, "1")


def test_a_ramp_lets_the_rate_grow_linearly() -> None:
    load = Load(arrival="constant", rates=(10.0,), ramp_s=20.0, duration_s=40.0)
    due_s = np.array(due_times_s(load, 10.0, ""))

    assert np.count_nonzero(due_s < 10.0) == pytest.approx(25, abs=1)
    assert np.count_nonzero((due_s >= 10.0) & (due_s < 20.0)) == pytest.approx(75, abs=1)
    assert np.count_nonzero(due_s >= 20.0) == pytest.approx(200, abs=1)
