"""What the results say of points that were not measured."""

import numpy as np
import pytest

from batches import SEQUENCES, TOKENS, row
from llmdyno.search.model import Model
from llmdyno.search.points import Points
from llmdyno.search.predictor import normal
from llmdyno.search.space import Space


def test_it_predicts_between_what_was_measured_and_is_less_sure_far_from_it() -> None:
    space = Space(
        (SEQUENCES, row("switch", kind="bool", defaults=(("1", False),), search=(True, False))), {}
    )
    model = Model(space, np.random.default_rng(1))
    known = [space.key({"sequences": number}) for number in (8, 16, 32, 64, 128)]
    model.fit(Points(space, known), np.array([0.0, 0.1, 0.2, 0.3, 0.4]))
    asked = Points(
        space, [space.key({"sequences": 45}), space.key({"sequences": 64, "switch": True})]
    )
    mean, deviation = model.predict(asked)

    assert float(mean.mean(0)[0]) == pytest.approx(0.25, abs=0.04)
    between, far = deviation.mean(0)
    assert between < 0.06 < far


def test_a_lucky_measurement_is_not_believed() -> None:
    space = Space((SEQUENCES, TOKENS), {})
    model = Model(space, np.random.default_rng(1))
    keys = [space.key({"sequences": n, "tokens": 1024}) for n in (100, 110, 120, 130, 140, 150)]
    points = Points(space, keys)
    model.fit(points, np.array([0.0, 0.0, 0.0, 0.12, 0.0, 0.0]))

    assert model.expected(points)[3] < 0.06


def test_the_gain_over_the_best_is_larger_where_more_is_expected() -> None:
    space = Space((SEQUENCES,), {})
    model = Model(space, np.random.default_rng(1))
    model.fit(
        Points(space, [space.key({"sequences": n}) for n in (8, 16, 32, 64)]),
        np.array([0.0, 0.3, 0.6, 0.9]),
    )
    asked = Points(space, [space.key({"sequences": n}) for n in (9, 128)])

    worse, better = model.gains(asked, 0.9, np.zeros(2), 1.0)
    assert better > 10 * worse >= 0
    low, high = model.gains(asked, 0.0, np.zeros(2), -1.0)  # smaller is better
    assert low > high


@pytest.mark.parametrize(("x", "share"), [(0.0, 0.5), (1.0, 0.8413447), (-1.96, 0.0249979)])
def test_the_normal_distribution(x: float, share: float) -> None:
    assert float(normal(np.array([x]))[0]) == pytest.approx(share, abs=2e-7)


def test_a_measurement_that_tells_of_its_neighbour_is_worth_something() -> None:
    space = Space((SEQUENCES,), {})
    model = Model(space, np.random.default_rng(1))
    model.fit(
        Points(space, [space.key({"sequences": n}) for n in (8, 64, 512)]),
        np.array([0.0, 0.5, 0.48]),
    )
    asked = Points(space, [space.key({"sequences": n}) for n in (9, 480)])
    shift = np.full(2, -1.0)  # neither can be the choice itself

    far, near = model.knowledge(asked, shift, np.zeros(3))
    assert near > 10 * far >= 0
    assert near > model.gains(asked, 0.5, shift, 1.0)[1]


def test_what_no_measurement_can_change_is_worth_nothing() -> None:
    space = Space((SEQUENCES,), {})
    model = Model(space, np.random.default_rng(1))
    model.fit(
        Points(space, [space.key({"sequences": n}) for n in (8, 16, 32, 64)]),
        np.array([0.0, 0.3, 0.6, 0.9]),
    )
    asked = Points(space, [space.key({"sequences": n}) for n in (9, 128)])

    worse, better = model.knowledge(asked, np.zeros(2), np.zeros(4))
    assert better > 0.01
    assert worse < 0.001


def test_the_deviations_are_as_wide_as_the_errors() -> None:
    draw = np.random.default_rng(4)
    space = Space((SEQUENCES, TOKENS), {})
    errors = []
    for seed in range(12):
        model = Model(space, np.random.default_rng(seed))
        slope, turn = draw.uniform(0.2, 0.8), draw.uniform(1.0, 4.0)
        known = Points(space, [space.random(draw) for _ in range(8)])
        asked = Points(space, [space.random(draw) for _ in range(40)])

        def true(points: Points, slope: float = slope, turn: float = turn) -> np.ndarray:
            return slope * np.sin(turn * points.at[:, 0]) + 0.3 * points.at[:, 1]

        model.fit(known, true(known) + 0.05 * draw.standard_normal(8))
        mean, deviation = model.predict(asked)
        middle = mean.mean(0)
        wide = np.sqrt((deviation**2 + (mean - middle) ** 2).mean(0))
        errors.append((true(asked) - middle) / wide)

    assert 0.8 < np.mean(np.abs(np.concatenate(errors)) < 1.96) <= 1.0
    assert float(np.std(np.concatenate(errors))) > 0.4  # nor far too wide


def test_what_is_assumed_moves_no_mean_and_is_known_better() -> None:
    space = Space((SEQUENCES, TOKENS), {})
    model = Model(space, np.random.default_rng(1))
    known = [space.key({"sequences": number}) for number in (8, 16, 32, 128)]
    out = [space.key({"sequences": 300}), space.key({"sequences": 500, "tokens": 4096})]
    model.fit(Points(space, known), np.array([0.0, 0.1, 0.2, 0.4]))
    asked = Points(space, [*out, space.key({"sequences": 320}), known[0]])
    mean, deviation = model.predict(asked)

    model.assume(Points(space, [*known, *out]))
    after, less = model.predict(asked)

    np.testing.assert_allclose(after, mean, atol=1e-6)
    assert (less[:, :3] < deviation[:, :3]).all()  # at both, and beside one of them
    model.fit(Points(space, known), np.array([0.0, 0.1, 0.2, 0.4]))
    assert model.predict(asked)[1].mean(0)[0] > 1.5 * less.mean(0)[0]
