"""The baseline before the trials against the baseline in the pairs: of 400 random machines."""

import math

import numpy as np
import pytest

from llmdyno.results.pairs import Run, order
from llmdyno.results.shift import Shift, shift


def seen(rng: np.random.Generator, times: float, noise: float, pairs: int) -> Shift | None:
    """Return what a machine shows that has come to so many times its speed before the pairs."""
    arms = [after for pair in range(pairs) for after in order(pair)]
    logs = math.log(times) + 0.4 * np.array(arms) + rng.normal(0, noise, len(arms))
    runs = [
        Run(at, after, log, 0.0) for at, (after, log) in enumerate(zip(arms, logs, strict=True))
    ]
    return shift(float(rng.normal(0, noise)), runs)


# What is believed before, 5 %, is too little for a machine of 10 %: it is doubted more often.
@pytest.mark.parametrize(("noise", "most"), [(0.01, 0), (0.05, 28), (0.10, 44)])
def test_a_steady_machine_is_seldom_doubted(noise: float, most: int) -> None:
    rng = np.random.default_rng(1)

    assert sum(seen(rng, 1.0, noise, pairs=4) is not None for _ in range(400)) <= most


def test_a_step_of_a_third_is_seen_and_a_small_one_is_none_of_ours() -> None:
    rng = np.random.default_rng(2)
    found = [one for _ in range(400) if (one := seen(rng, 0.7, 0.05, pairs=4))]

    assert len(found) >= 360
    # Of those that are shown a few are too large: an interval of 95 % holds about as many.
    assert sum(low <= 0.7 <= high for _, (low, high) in found) >= 0.9 * len(found)
    assert all(seen(rng, 1.05, 0.001, pairs=6) is None for _ in range(20))


def test_without_a_run_of_the_baseline_nothing_is_told() -> None:
    assert shift(0.0, [Run(0, True, 1.0, 0.0)]) is None
