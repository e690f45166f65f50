"""What a run says of its end while it goes on: the best is hardly ever given up, the slow are."""

import math

import numpy as np
import pytest

from llmdyno.results.racing import Flow, Sample, looks_s, luck, value_to_reach
from llmdyno.results.stats import Floats, Spread

RAMP_S, END_S, STEP_S = 7.5, 30.0, 0.5
NOISE = Spread(0.05**2, 3.0)
USERS, TOKENS = 16, 50.0
AT_S = np.arange(1, 61) * STEP_S


def flow(rates: Floats, *, until_s: float = END_S) -> Flow:
    """Return what a run has shown by a moment, if so much came a second."""
    found = Flow(RAMP_S, END_S)
    came = np.cumsum(rates * STEP_S)
    for at_s, total in zip(AT_S[until_s >= AT_S], came, strict=False):
        found.add(Sample(float(at_s), float(total), float(at_s), total // TOKENS, USERS))
    return found


def given_up_s(rates: Floats, to_reach: float) -> float | None:
    """Return at which look a run is given up."""
    for look_s in looks_s(RAMP_S, END_S):
        bound = flow(rates, until_s=look_s).bound()
        if bound is not None and bound.high < to_reach:
            return look_s
    return None


def rates(draw: np.random.Generator, kind: str) -> Floats:
    """Return the rates of a run of mean 1000, by a process with memory."""
    noise = draw.standard_normal(len(AT_S))
    if kind == "slow noise":
        for number in range(1, len(noise)):
            kept = math.exp(-STEP_S / 2.0)
            noise[number] = kept * noise[number - 1] + math.sqrt(1 - kept**2) * noise[number]
        shape = 1 + 0.2 * noise
    elif kind == "lockstep":
        shape = np.where((AT_S / 2.0 + draw.random()) % 1.0 < 0.5, 0.4, 1.6)
    elif kind == "warm-up":
        shape = (1 - 0.7 * np.exp(-AT_S / 5.0)) * (1 + 0.1 * noise)
    else:
        shape = 1 + 0.2 * noise
    return 1000 * np.maximum(0.0, shape)


@pytest.mark.parametrize("kind", ["noise", "slow noise", "lockstep", "warm-up"])
def test_of_equal_runs_at_most_one_in_fifty_is_given_up(kind: str) -> None:
    """The run is as good as the five before it, the best of which was lucky."""
    draw = np.random.default_rng(7)
    given_up = 0
    for _ in range(100):
        before = [
            float(rates(draw, kind)[AT_S > RAMP_S].mean() * np.exp(0.05 * draw.standard_normal()))
            for _ in range(5)
        ]
        luck_of_mine = float(np.exp(0.05 * draw.standard_normal()))
        mine: Floats = np.asarray(rates(draw, kind) * luck_of_mine, dtype=np.float64)
        to_reach = value_to_reach(before, NOISE, maximise=True)
        given_up += given_up_s(mine, to_reach) is not None

    assert given_up <= 2


def test_half_as_fast_is_given_up_long_before_the_end() -> None:
    draw = np.random.default_rng(8)
    to_reach = value_to_reach([1000.0, 800.0], NOISE, maximise=True)
    ends_s = [given_up_s(0.5 * rates(draw, "noise"), to_reach) for _ in range(20)]

    assert all(end_s is not None for end_s in ends_s)
    assert np.mean([end_s for end_s in ends_s if end_s is not None]) < 0.7 * END_S


def test_a_rate_that_still_rises_is_not_given_up() -> None:
    rising: Floats = np.linspace(
        0.0, 1000.0, len(AT_S)
    )  # 500 in the middle, and about 1000 at its end

    assert given_up_s(rising, 700.0) is None
    assert given_up_s(np.full(60, 500.0), 700.0) is not None


def test_a_run_of_fewer_than_four_requests_a_user_says_nothing() -> None:
    """Users in lockstep are alike again only after a whole request."""
    slow = flow(np.full(60, 40.0))  # a request takes 16 x 50 / 40 = 20 s

    assert slow.bound() is None
    assert flow(np.full(60, 1000.0)).bound() is not None
    assert flow(np.zeros(60)).bound() is None
    assert flow(np.full(60, 1000.0), until_s=9.0).bound() is None


def test_a_share_of_few_requests_is_never_sure() -> None:
    def seen(of: int, missed: int) -> Flow:
        found = Flow(0.0, END_S)
        for at_s in AT_S:
            done = of * at_s / END_S
            found.add(Sample(float(at_s), missed * at_s / END_S, done, done, 1))
        return found

    few, many = seen(20, 2).bound(is_share=True), seen(2000, 200).bound(is_share=True)

    assert few is not None
    assert many is not None
    assert few.mean == pytest.approx(0.1)
    assert few.low < 0.01 < many.low


def test_the_best_of_many_had_more_luck_than_the_only_one() -> None:
    assert 1 < luck(1, NOISE) < luck(20, NOISE) < luck(20, Spread(0.1**2, 3.0))
    assert luck(1, NOISE, error=0.1) > luck(1, NOISE)
    one, several = [100.0], [100.0, 99.0, 98.0]
    far = [100.0, 20.0, 20.0]  # what is far worse was never the best by luck

    def reach(values: list[float]) -> float:
        return value_to_reach(values, NOISE, maximise=True)

    assert reach(several) < reach(one) < 100
    assert reach(far) == reach(one)
    assert value_to_reach([100.0, 150.0], NOISE, maximise=False) > 100
