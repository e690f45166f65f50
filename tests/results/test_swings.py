"""Slow swings inside two runs: whether they are seen, and what they do to a run's mean."""

import math

import numpy as np
import pytest

from llmdyno.results.effects import effect, observation, swings_of
from llmdyno.results.stats import STATISTICS, Floats
from llmdyno.results.swings import SHOWN, batches, swings

MEAN = STATISTICS["mean"]


def runs(memory: float, *, pairs: int, swing: float, seed: int = 0, n: int = 96) -> Floats:
    """Return [pairs, 2, n] of 100: noise of 3 %, and swings that last so much of a run."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.03, (pairs, 2, n))
    slow = np.empty((pairs, 2, n))
    slow[..., 0] = rng.normal(0, 1, (pairs, 2))
    rho = math.exp(-1 / (memory * n)) if memory else 0.0
    for at in range(1, n):
        fresh = rng.normal(0, 1, (pairs, 2))
        slow[..., at] = rho * slow[..., at - 1] + math.sqrt(1 - rho**2) * fresh
    return np.asarray(100 * np.exp(noise + swing * slow))


def compared(pair: Floats) -> tuple[float, bool]:
    """Return how often equal runs would differ as these two do, and whether they swing."""
    sides = [[[observation(series, MEAN, float(series.mean()))]] for series in pair]
    found = effect(*sides)
    assert found is not None
    return found.p, found.swings


@pytest.mark.parametrize(("memory", "swing"), [(0.0, 0.0), (0.1, 0.05), (0.3, 0.05), (0.5, 0.05)])
def test_equal_runs_are_seldom_called_different_however_slowly_they_swing(
    memory: float, swing: float
) -> None:
    found = [compared(pair) for pair in runs(memory, pairs=100, swing=swing)]

    # 2 of 100 are expected by luck where all is as the model has it.
    assert sum(p < 0.02 for p, _ in found) <= 6
    assert (sum(swings for _, swings in found) > 60) == (swing > 0)


def test_runs_that_do_not_swing_are_judged_as_before() -> None:
    plain = runs(0.0, pairs=60, swing=0.0, seed=1)
    plain[:, 1] *= 1.03

    assert sum(compared(pair)[0] < 0.02 for pair in plain) > 40
    assert sum(compared(pair)[1] for pair in plain) < 6


def test_a_swing_that_another_metric_shows_widens_this_one() -> None:
    (pair,) = runs(0.0, pairs=1, swing=0.0)
    sides = [[[observation(series, MEAN, float(series.mean()))]] for series in pair]

    alone, beside = (effect(*sides, swinging=known) for known in (False, True))

    assert alone is not None
    assert beside is not None
    assert beside.error > 1.2 * alone.error


def test_the_same_memory_of_half_the_variance_counts_half() -> None:
    series = runs(0.3, pairs=1, swing=0.05)[0]
    large = [batches(one, MEAN, float(one.mean())) for one in series]
    small = [one / math.sqrt(2) for one in large if one is not None]

    found, half = (swings([one for one in some if one is not None]) for some in (large, small))

    assert found.evidence == pytest.approx(half.evidence)
    assert half.variances == pytest.approx(found.variances / 2)
    assert found.weights.sum() == pytest.approx(1)
    assert found.is_shown == (found.evidence >= SHOWN)


def test_runs_of_unlike_length_have_as_many_batches_as_the_shorter_one() -> None:
    long, short = np.linspace(1, 2, 640), np.linspace(1, 2, 20)
    parts = [batches(one, MEAN, 1.5) for one in (long, short)]

    assert [None if one is None else len(one) for one in parts] == [32, 8]
    assert swings([one for one in parts if one is not None]).is_shown


def test_what_is_too_short_or_nothing_has_no_batches() -> None:
    assert batches(np.arange(15.0), MEAN, 7.0) is None
    assert batches(np.zeros(100), MEAN, 0.0) is None
    few = observation(np.arange(10.0), MEAN, 4.5)
    assert swings_of([[few]], [[few]]) is None
    much = observation(np.arange(100.0), MEAN, 49.5)
    assert swings_of([[much, much]], [[much]]) is None


def test_a_series_that_never_varies_swings_by_nothing() -> None:
    still = observation(np.full(100, 50.0), MEAN, 50.0)

    found = effect([[still]], [[still]], assumed=0.01)

    assert found is not None
    assert found.error == pytest.approx(0.01 * math.sqrt(2), rel=1e-3)
    assert not found.swings


def test_users_in_lockstep_are_no_swings() -> None:
    # 95 stretches of a run, of which two are a period: 32 equal parts would hold one and a half.
    rng = np.random.default_rng(0)
    stretches = np.tile([20.0, 180.0], 48)[:95]
    pair = [level * stretches * (1 + rng.normal(0, 0.001, 95)) for level in (1.0, 0.8)]
    sides = [[[observation(series, MEAN, float(series.mean()))]] for series in pair]

    found = effect(*sides, swinging=True)

    assert found is not None
    assert found.ci95[1] - found.ci95[0] < 0.06
    assert not found.swings


def test_a_periodic_series_is_cut_into_whole_periods() -> None:
    parts = batches(np.tile([1.0, 2.0, 6.0], 35), MEAN, 3.0)

    assert parts is not None
    assert len(parts) == 32
    assert np.abs(parts).max() < 1e-12
