"""A confirmation's pairs: drift is fitted, and the number of pairs follows the noise."""

import math

import numpy as np
import pytest

from llmdyno.results import pairs, stats
from llmdyno.results.pairs import Run

LATE = math.log(1.1)


def row(count: int, *, effect: float, noise: float, drift: float, seed: int) -> list[Run]:
    """Return the runs of so many pairs; `drift` is from the first to the last, as a logarithm."""
    rng = np.random.default_rng(seed)
    arms = [after for pair in range(count) for after in pairs.order(pair)]
    along = np.linspace(0.0, drift, len(arms))
    logs = along + effect * np.array(arms) + rng.normal(0.0, noise, len(arms))
    return [Run(n, after, float(logs[n]), 0.0) for n, after in enumerate(arms)]


def test_the_order_balances_a_steady_drift_in_two_pairs_and_a_curved_one_in_four() -> None:
    signs = np.array([1 if after else -1 for pair in range(4) for after in pairs.order(pair)])

    assert [pairs.order(pair) for pair in range(3)] == [(False, True), (True, False), (True, False)]
    assert signs[:4] @ np.arange(4) == 0
    assert signs @ np.arange(8) == 0
    assert signs @ np.arange(8) ** 2 == 0


def test_a_steady_drift_is_no_noise() -> None:
    for count in (3, 4, 7):
        found = pairs.compared(row(count, effect=LATE, noise=0.0, drift=0.5, seed=0))
        assert found.mean == pytest.approx(1.1)
        assert found.ci95 == pytest.approx((1.1, 1.1), abs=1e-6)
        assert found.drift == pytest.approx(math.exp(0.5))


def test_two_pairs_are_compared_without_a_trend() -> None:
    runs = row(2, effect=LATE, noise=0.05, drift=0.1, seed=3)
    arms = [
        stats.Arm(np.array([run.log for run in runs if run.after == after]), np.zeros(2))
        for after in (False, True)
    ]
    expected = stats.ratio_of_arms(*arms)

    found = pairs.compared(runs)

    assert (found.mean, found.ci95, found.drift) == (*expected, None)


def test_one_pair_has_no_interval() -> None:
    assert pairs.compared(row(1, effect=LATE, noise=0.05, drift=0.0, seed=0)).ci95 is None
    assert pairs.compared(row(1, effect=0.0, noise=0.0, drift=0.0, seed=0)).half_width == math.inf


def test_what_is_noisy_inside_its_runs_is_so_between_them() -> None:
    runs = [one._replace(inside=0.04) for one in row(4, effect=0.0, noise=0.0, drift=0.2, seed=0)]

    assert pairs.compared(runs).half_width > 0.2


@pytest.mark.parametrize("drift", [0.0, 0.1])
@pytest.mark.parametrize("unequal", [1.0, 3.0])
def test_equal_arms_are_rarely_called_different(drift: float, unequal: float) -> None:
    wrong = 0
    for seed in range(300):
        runs = row(4, effect=0.0, noise=0.03, drift=drift, seed=seed)
        louder = [r._replace(log=r.log * unequal) if r.after else r for r in runs]
        found = pairs.compared(louder if not drift else runs)
        assert found.ci95 is not None
        wrong += not found.ci95[0] <= 1.0 <= found.ci95[1]

    assert wrong <= 24  # 5 % of 300 is 15, with a standard deviation of 3.8


def test_the_pairs_asked_for_find_what_they_promise() -> None:
    asked = pairs.pairs_for(0.1, 0.05)
    hits = 0
    for seed in range(300):
        ci95 = pairs.compared(row(asked, effect=LATE, noise=0.05, drift=0.1, seed=seed)).ci95
        assert ci95 is not None
        hits += ci95[0] > 1.0

    assert hits / 300 == pytest.approx(pairs.power(0.1, 0.05, asked), abs=0.07)
    assert pairs.power(0.1, 0.05, asked) >= pairs.POWER
    # What decides costs a pair.
    assert pairs.pairs_for(0.1, 0.05, decided=True) == asked + 1
    assert pairs.power(0.1, 0.05, asked, decided=True) < pairs.power(0.1, 0.05, asked)
    assert pairs.detectable(0.05, 7, decided=True) > pairs.detectable(0.05, 7)


def test_what_decides_how_many_pairs_there_are_is_not_in_the_width_of_their_interval() -> None:
    deciding = 2 * pairs.DECIDING_PAIRS
    rng = np.random.default_rng(5)
    for count in (pairs.DECIDED_MIN, 7, 12):
        runs = row(count, effect=LATE, noise=0.05, drift=0.1, seed=count)
        found = pairs.compared(runs, decided=True)
        # Whatever the first pairs show beside arm, level and a curve: the rest stays as it is.
        positions = np.arange(deciding)
        seen = np.column_stack(
            [np.ones(deciding), [r.after for r in runs[:deciding]], positions, positions**2]
        )
        other = rng.normal(0, 0.3, deciding)
        other -= seen @ np.linalg.lstsq(seen, other, rcond=None)[0]
        more = [*other, *[0.0] * (len(runs) - deciding)]
        shaken = [run._replace(log=run.log + add) for run, add in zip(runs, more, strict=True)]

        again = pairs.compared(shaken, decided=True)

        assert again.mean == pytest.approx(found.mean)
        assert again.ci95 == pytest.approx(found.ci95)
        assert pairs.compared(shaken).ci95 != pytest.approx(pairs.compared(runs).ci95, rel=0.01)
        spreads = [pairs.deciding_spread(one[:deciding]) for one in (runs, shaken)]
        assert spreads[0] is not None
        assert spreads[1] is not None
        assert spreads[1].variance != pytest.approx(spreads[0].variance, rel=0.1)
        assert pairs.deciding_spread(runs) == pytest.approx(spreads[0])


def test_pairs_that_end_early_as_the_first_ones_were_alike_by_luck_hold_the_truth() -> None:
    """At 10 % noise there are ten pairs on average; five or six are decided by luck alone."""
    few = pairs.DECIDED_MIN + 1
    quiet = max(n for n in np.arange(0.03, 0.06, 0.001) if decided(n) <= few)  # what decides so
    held: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(4000):
        runs = row(few, effect=LATE, noise=0.1, drift=0.0, seed=seed)
        noise = pairs.pooled_noise([pairs.deciding_spread(runs)])
        if noise > quiet:
            continue
        for leaves_out, holds in held.items():
            ci95 = pairs.compared(runs[: 2 * decided(noise)], decided=leaves_out).ci95
            assert ci95 is not None
            holds.append(ci95[0] <= 1.1 <= ci95[1])

    asked = 0.95 - 2.5 * math.sqrt(0.05 * 0.95 / len(held[True]))
    assert len(held[True]) > 500
    assert np.mean(held[False]) < asked < np.mean(held[True])


def decided(noise: float) -> int:
    """Return how many pairs there are at this noise."""
    return pairs.pairs_for(0.1, noise, decided=True)


def test_too_few_pairs_decide_nothing() -> None:
    assert pairs.deciding_spread(row(1, effect=0.0, noise=0.05, drift=0.0, seed=0)) is None
    assert pairs.deciding_spread([]) is None
    late = [
        run._replace(position=run.position + 6)
        for run in row(3, effect=0.0, noise=0.05, drift=0.0, seed=0)
    ]
    assert pairs.deciding_spread(late) is None
    four = row(4, effect=0.0, noise=0.05, drift=0.0, seed=0)
    assert pairs.compared(four, decided=True) == pairs.compared(four)


def test_more_noise_needs_more_pairs_up_to_a_limit() -> None:
    asked = [pairs.pairs_for(0.1, noise) for noise in (0.0, 0.02, 0.05, 0.08, 0.5)]

    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (pairs.PAIRS_MIN, pairs.PAIRS_MAX)
    for noise in (0.02, 0.2):
        smallest = pairs.detectable(noise, 4)
        assert pairs.power(smallest, noise, 4) == pytest.approx(pairs.POWER, abs=1e-3)


def test_the_noise_is_what_arm_and_trend_leave() -> None:
    spread = pairs.residual_spread(row(12, effect=0.3, noise=0.05, drift=0.4, seed=1))

    assert spread is not None
    assert math.sqrt(spread.variance) == pytest.approx(0.05, rel=0.4)
    assert spread.freedom == 24 - 4
    assert pairs.residual_spread(row(1, effect=0.3, noise=0.05, drift=0.4, seed=1)) is None
    assert pairs.pooled_noise([None]) == math.sqrt(pairs.PRIOR.variance)
    assert 0.05 < pairs.pooled_noise([stats.Spread(0.1**2, 3.0)]) < 0.1
