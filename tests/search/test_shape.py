"""The shape that a server's speed is expected to have over its numbers."""

import numpy as np
import pytest

from batches import SEQUENCES, TOKENS, row
from llmdyno.search.model import Model
from llmdyno.search.points import Points
from llmdyno.search.predictor import Mixture
from llmdyno.search.shape import Shape
from llmdyno.search.space import Space


def _terms(*numbers: tuple[float, float, float, float], power: float) -> np.ndarray:
    """Return a guess: of each number its loss below, the plateau's begin and width, that above."""
    below, begins, wide, above = (np.array(part) for part in zip(*numbers, strict=True))
    return np.concatenate(
        [np.log(below), begins, np.log(above), np.log(wide), [np.log(power - 1)]]
    )[None, :]


def test_a_number_loses_below_its_plateau_and_above_it_and_nothing_on_it() -> None:
    space = Space((SEQUENCES,), {})
    at = Points(space, [space.key({"sequences": n}) for n in (8, 45, 64, 90, 512)])
    places = at.at[:, 0]
    begins, wide = float(places[1]), float(places[3] - places[1])
    terms = _terms((0.5, begins, wide, 0.2), power=1.001)

    low, *plateau, high = Shape(space, gains=True).losses(terms, at)[0]
    assert plateau == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert low == pytest.approx(np.log1p(0.5), rel=0.01)  # at the range's low end
    assert high == pytest.approx(np.log1p(0.2), rel=0.01)


def test_losses_add_up_or_the_larger_counts_alone() -> None:
    space = Space((SEQUENCES, TOKENS), {})
    low = space.axes[0].levels[0], space.axes[1].levels[0]
    at = Points(space, [low])
    shape = Shape(space, gains=True)
    numbers = (0.5, 0.5, 0.2, 0.1), (0.3, 0.5, 0.2, 0.1)

    together = shape.losses(_terms(*numbers, power=1.0001), at)[0, 0]
    at_once = shape.losses(_terms(*numbers, power=60.0), at)[0, 0]
    assert together == pytest.approx(np.log1p(0.8), rel=0.01)
    assert at_once == pytest.approx(np.log1p(0.5), rel=0.01)


def test_a_space_without_numbers_has_no_losses() -> None:
    space = Space((row("switch", kind="bool", defaults=(("1", False),), search=(True, False)),), {})
    shape = Shape(space, gains=True)
    points = Points(space, [space.origin()])

    assert shape.losses(np.zeros((3, len(shape.centre))), points).tolist() == [[0.0]] * 3


def test_a_plateau_is_expected_where_a_level_process_expects_a_slope_to_go_on() -> None:
    space = Space((SEQUENCES,), {})
    known = Points(space, [space.key({"sequences": n}) for n in (8, 12, 18, 100, 128)])
    values = -1.5 * np.maximum(0.4 - known.at[:, 0], 0.0) ** 2
    asked = Points(space, [space.key({"sequences": n}) for n in (240, 300)])

    shaped = Model(space, np.random.default_rng(1), Shape(space, gains=True))
    shaped.fit(known, values)
    _, deviation = shaped.predict(asked)
    level = Model(space, np.random.default_rng(1))
    level.fit(known, values)
    assert shaped.expected(asked) == pytest.approx([0.0, 0.0], abs=0.08)
    assert deviation.mean() < level.predict(asked)[1].mean()


def test_what_was_taken_off_beforehand_makes_no_difference() -> None:
    space = Space((SEQUENCES,), {})
    points = Points(space, [space.key({"sequences": n}) for n in (8, 32, 128)])
    values = np.array([-0.4, -0.1, 0.0])

    def slope(at: Points) -> np.ndarray:
        return 0.5 * at.at[:, 0]

    plain = Model(space, np.random.default_rng(1), Shape(space, gains=True))
    plain.fit(points, values)
    less = Model(space, np.random.default_rng(1), Shape(space, gains=True, instead_of=slope))
    less.fit(points, values - slope(points))
    assert less.expected(points) + slope(points) == pytest.approx(plain.expected(points))


def test_a_mixture_expects_what_its_models_expect_in_the_mean() -> None:
    space = Space((SEQUENCES,), {})
    points = Points(space, [space.key({"sequences": n}) for n in (8, 32, 128)])
    models = [
        Model(space, np.random.default_rng(1)),
        Model(space, np.random.default_rng(2), Shape(space, gains=True)),
    ]
    mixture = Mixture(models)
    mixture.fit(points, np.array([0.0, 0.3, 0.4]))
    asked = Points(space, [space.key({"sequences": 64})])

    middle = (models[0].expected(asked) + models[1].expected(asked)) / 2
    assert mixture.expected(asked) == pytest.approx(middle)
    low, high = sorted(float(model.gains(asked, 0.3, np.zeros(1), 1.0)[0]) for model in models)
    assert low <= float(mixture.gains(asked, 0.3, np.zeros(1), 1.0)[0]) <= high
