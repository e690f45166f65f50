"""What a step will cost, by what steps have cost."""

import pytest

from llmdyno.spec import Load
from llmdyno.tune.budget import UNKNOWN_START_S, costs
from llmdyno.tune.entries import Step

LOAD = Load(users=(2, 4), duration_s=10.0, grace_s=0.0)


def step(number: int, start_s: float, *, failed: bool = False) -> Step:
    return Step(
        phase="trial",
        number=number,
        config={},
        state="failed" if failed else "measured",
        start_s=start_s,
        measure_s=28.0,
    )


def test_a_start_is_a_guess_until_one_was_seen() -> None:
    found = costs([step(0, 1.0, failed=True)], {"trial": LOAD}, 5.0)

    assert (found.steps, found.start_s) == (0, UNKNOWN_START_S)
    assert found.step_s(LOAD, 5.0) == UNKNOWN_START_S + 5.0 + 20.0


def test_the_estimate_follows_the_last_steps() -> None:
    found = costs([step(n, 10.0) for n in range(5)], {"trial": LOAD}, 5.0)
    later = costs([step(n, 10.0 if n < 5 else 40.0) for n in range(15)], {"trial": LOAD}, 5.0)

    assert found.start_s == pytest.approx(10.0)
    assert found.step_s(LOAD, 5.0) == pytest.approx(10.0 + 28.0)
    assert later.start_s == pytest.approx(40.0, rel=0.03)
