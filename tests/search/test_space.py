"""The space of a search: what is compared, and what there is."""

import numpy as np

from batches import GUESS, GUESSES, KERNEL, KNOBS, SEQUENCES, TOKENS, row
from llmdyno.search.space import LEVELS_MAX, Space


def test_configs_are_compared_by_what_takes_effect() -> None:
    space = Space(KNOBS, {})

    assert space.key({}) == space.key({"sequences": 16, "guess": False})
    assert space.key({"guesses": 7}) == space.key({})  # has no effect without guess
    assert space.key({"guess": True, "guesses": 7}) != space.key({"guess": True})
    assert space.key({"tokens": 1024}) != space.key({})  # the engine's own choice is another


def test_the_engines_own_choice_and_the_default_are_values_of_every_knob() -> None:
    outside = row("outside", kind="int", defaults=(("1", 3),), search=(8, 64), search_log=True)
    axes = {axis.knob.name: axis for axis in Space((*KNOBS, outside), {}).axes}

    assert None in axes["tokens"].levels
    assert axes["outside"].levels[0] == 3
    assert None not in axes["kernel"].levels
    assert len(axes["sequences"].levels) <= LEVELS_MAX + 1


def test_numbers_that_are_tried_are_multiples_where_the_engine_gains_by_them() -> None:
    """Of vLLM's caps only multiples of 16 have whole graphs for a full step, whatever the size."""
    asked = {"kind": "int", "defaults": (("1", None),), "search": (32, 2048), "search_log": True}
    space = Space([row("cap", **asked, search_multiple=16)], {})
    numbers = [level for level in space.axes[0].levels if level is not None]
    assert numbers[:4] == [32, 48, 64, 96]
    assert numbers[-1] == 2048
    draw = np.random.default_rng(0)
    drawn = {space.random(draw)[0] for _ in range(200)} - {None}
    assert {number % 16 for number in drawn if isinstance(number, int)} == {0}


def test_a_config_holds_what_is_fixed_and_no_default() -> None:
    space = Space(KNOBS, {"kernel": "b"})

    assert space.config(space.key({"sequences": 16})) == {"kernel": "b"}
    assert space.config(space.key({"guess": True, "guesses": 3, "tokens": 512})) == {
        "kernel": "b",
        "tokens": 512,
        "guess": True,
        "guesses": 3,
    }


def test_a_knob_that_needs_a_fixed_value_takes_effect_with_it() -> None:
    assert Space([GUESSES], {"guess": True}).key({"guesses": 5}) == (5,)
    assert Space([GUESSES], {}).key({"guesses": 5}) == (None,)


def test_every_point_is_yielded_once() -> None:
    space = Space((KERNEL, GUESS, GUESSES), {})
    points = list(space.points())

    assert len(points) == len(set(points)) == space.size() == 3 * (1 + 8)
    assert space.is_small(27)
    assert not space.is_small(26)


def test_the_size_is_known_without_looking_at_each_point() -> None:
    for knobs, fixed in (
        (KNOBS, {}),
        ((GUESSES,), {}),
        ((GUESSES,), {"guess": True}),
        ((KERNEL, GUESSES), {"guess": False}),
    ):
        space = Space(knobs, fixed)

        assert space.size() == len(list(space.points()))


def test_random_points_are_in_the_space_and_leave_knobs_alone_at_times() -> None:
    space = Space((SEQUENCES, TOKENS, GUESS, GUESSES), {})
    draw = np.random.default_rng(0)
    points = [space.random(draw) for _ in range(400)]

    assert all(8 <= point[0] <= 512 for point in points if isinstance(point[0], int))
    assert any(point[1] is None for point in points)
    assert all(point[3] is None for point in points if not point[2])


def test_a_knob_that_begins_to_act_has_the_engines_own_value() -> None:
    """A point is one and the same, however it was come by: a config has no other way to say it."""
    space = Space((GUESS, GUESSES), {})
    for key in ((True, None), space.key({"guess": True})):
        assert space.canonical(key) == space.key(space.config(space.canonical(key)))
