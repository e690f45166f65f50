"""How far equal runs lie apart, and what is beyond that."""

import math

import numpy as np
import pytest

from llmdyno.knobs import Value
from llmdyno.results.pairs import PRIOR
from llmdyno.results.stats import Spread
from llmdyno.tune.entries import Step
from llmdyno.tune.noise import beyond, matters, noise_of


def confirmed(number: int, value: float, **config: Value) -> Step:
    return Step(phase="confirm", number=number, config=config, state="measured", value=value)


def test_noise_is_that_of_equal_runs() -> None:
    even = [
        confirmed(0, 100),
        confirmed(1, 200, a=True),
        confirmed(2, 200, a=True),
        confirmed(3, 100),
    ]

    assert noise_of(even) == pytest.approx((0.0, 2))
    assert noise_of(even[:2]) == PRIOR
    more = noise_of([*even, confirmed(4, 120), confirmed(5, 240, a=True)])
    assert more.freedom == 4
    assert math.sqrt(more.variance) == pytest.approx(0.105, abs=0.005)


@pytest.mark.parametrize("pairs", [2, 3, 5, 20])
def test_what_does_nothing_matters_in_one_case_of_twenty_however_few_the_pairs(pairs: int) -> None:
    """The confirmation's few runs tell the noise, by which a pair more is judged."""
    draw = np.random.default_rng(pairs)
    found = 0
    for _ in range(4000):
        runs = draw.normal(0, 0.05, (2, pairs))
        noise = Spread(float(runs.var(axis=1, ddof=1).mean()), 2 * (pairs - 1))
        found += matters(float(np.subtract(*draw.normal(0, 0.05, 2))), noise, 1)

    assert found / 4000 == pytest.approx(0.05, abs=0.015)


def test_a_sum_of_effects_is_known_less_well_than_each() -> None:
    noise = Spread(0.05**2, 8)

    assert beyond(noise, 1, 1, 1) == pytest.approx(math.sqrt(3) * beyond(noise, 1))
    assert beyond(Spread(0.0, 2), 1) == pytest.approx(2 * 0.01 * math.sqrt(2))  # never quite equal
    assert beyond(noise, 4) == pytest.approx(beyond(noise, 1) / 2)
