"""Every search that `--sampler` offers."""

from typing import Any

import pytest

from batches import GUESS, GUESSES, KERNEL, KNOBS, speed
from llmdyno.knobs import Value
from llmdyno.search.samplers import SAMPLERS, sampler


@pytest.mark.parametrize("name", SAMPLERS)
def test_it_asks_for_new_configs_and_the_same_answers_bring_the_same_questions(name: str) -> None:
    def asked() -> list[dict[str, Value]]:
        search = sampler(name)(KNOBS, trials=6, maximise=True, seed=1, fixed={})
        search.start({}, 1.0, {})
        known: list[dict[str, Value]] = [{}]
        for number in range(6):
            config = search.ask(known)
            assert config is not None
            assert config not in known
            known.append(config)
            if number == 2:  # it was another one, of another version
                search.give({"sequences": 99})
            search.tell(speed(config), {})
        return known

    assert asked() == asked()


@pytest.mark.parametrize("name", ["own", "random", "hill-climb", "grid"])
def test_it_finds_the_end_of_a_small_space(name: str) -> None:
    search = sampler(name)((KERNEL, GUESS), trials=20, maximise=True, seed=1, fixed={})
    search.start({}, 1.0, {})
    known: list[dict[str, Value]] = [{}]
    while (config := search.ask(known)) is not None:
        known.append(config)
        search.tell(1.0, {})

    assert len(known) == 6


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own", "expected "),
        ("tpe", "at random, to learn from"),
        ("random", "at random"),
        ("hill-climb", "one step from the best so far"),
        ("grid", "the next point of the grid"),
    ],
)
def test_it_says_why_it_proposes_a_config(name: str, why: str) -> None:
    search: Any = sampler(name)(KNOBS, trials=6, maximise=True, seed=1, fixed={})
    search.start({}, 1.0, {})

    assert search.ask([{}]) is not None

    assert search.reason.startswith(why)


def test_a_climb_goes_on_along_a_step_that_gained() -> None:
    search = sampler("hill-climb")(KNOBS, trials=6, maximise=True, seed=1, fixed={})
    search.start({}, 1.0, {})
    known: list[dict[str, Value]] = [{}]
    for value in (2.0, 3.0, 4.0):
        config = search.ask(known)
        assert config is not None
        known.append(config)
        search.tell(value, {})

    steps = [int(config.get("sequences", 16)) for config in known]
    assert steps == sorted(steps)
    assert steps[-1] > 4 * steps[0]


def test_a_climb_goes_on_from_the_end_of_a_range_with_a_knob_that_began_to_have_an_effect() -> None:
    search = sampler("hill-climb")(KNOBS, trials=20, maximise=True, seed=1, fixed={})
    search.start({}, 1.0, {})
    known: list[dict[str, Value]] = [{}]
    for _ in range(20):
        config = search.ask(known)
        assert config is not None
        assert config not in known
        known.append(config)
        search.tell(float(config.get("sequences", 16)) + 500 * bool(config.get("guess")), {})

    assert {"sequences": 512, "guess": True} in known


def test_a_climb_goes_on_where_a_knob_began_to_act() -> None:
    """A step that turns on what another knob hangs on leaves that one at its default."""
    search = sampler("hill-climb")((GUESS, GUESSES), trials=9, maximise=True, seed=1, fixed={})
    search.start({}, 1.0, {})
    known: list[dict[str, Value]] = [{}]
    for value in (2.0, 1.0, 1.0):
        config = search.ask(known)
        assert config is not None
        assert config not in known
        known.append(config)
        search.tell(value, {})

    assert known[1] == {"guess": True}
