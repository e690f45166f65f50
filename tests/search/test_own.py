"""Our own search, on a function that is known."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from batches import BEST, GUESS, KERNEL, KNOBS, SEQUENCES, TOKENS, row, speed
from llmdyno.knobs import Value
from llmdyno.search.own import OwnSearch, _against_best
from llmdyno.search.points import Points


def made(knobs: Any = KNOBS, *, trials: int = 15, maximise: bool = True, **more: Any) -> OwnSearch:
    return OwnSearch(knobs, trials=trials, maximise=maximise, seed=3, fixed={}, **more)


def studied(search: OwnSearch, trials: int, seed: int = 5) -> list[dict[str, Value]]:
    """Tell the baseline and run the trials; return all configs."""
    noise = np.random.default_rng(seed)
    baseline = speed({})
    assert baseline is not None
    search.start({}, baseline, {})
    known: list[dict[str, Value]] = [{}]
    for _ in range(trials):
        config = search.ask(known)
        assert config is not None
        known.append(config)
        value = speed(config)
        search.tell(None if value is None else value * (1 + 0.05 * noise.standard_normal()), {})
    return known


def test_it_finds_what_is_nearly_the_best_and_little_of_it_does_not_start() -> None:
    search = made(trials=20)
    known = studied(search, 20)
    started = [config for config in known if speed(config) is not None]
    ranks = search.expected(started)
    assert ranks is not None
    chosen = speed(started[int(np.argmax(ranks))])

    assert chosen is not None
    assert chosen > 0.9 * BEST
    assert len(known) - len(started) <= 5


def test_nothing_with_the_same_effect_is_proposed_twice() -> None:
    search = made()
    known = studied(search, 12)
    keys = [search.space.key(config) for config in known]

    assert len(set(keys)) == len(keys)


def gone_through() -> tuple[OwnSearch, list[dict[str, Value]]]:
    """Return a search of a small space that has been asked for all of it, and all configs."""
    search = made((KERNEL, GUESS))
    search.start({}, 1.0, {})
    known: list[dict[str, Value]] = [{}]
    while (config := search.ask(known)) is not None:
        known.append(config)
        search.tell(1.0, {})
    return search, known


def test_a_small_space_is_gone_through_to_its_end() -> None:
    _, known = gone_through()

    assert len(known) == 3 * 2


def test_configs_to_start_with_come_first_and_refused_ones_never() -> None:
    starts = [{"kernel": "b"}, {"sequences": 64}]

    def refuse(config: Mapping[str, Value]) -> str | None:
        return "c is refused." if config.get("kernel") == "c" else None

    search = made(starts=starts, refuse=refuse)
    known = studied(search, 12)

    assert known[1:3] == starts
    assert all(config.get("kernel") != "c" for config in known)


def test_what_is_expected_before_a_measurement_shows_the_way() -> None:
    def prior(config: Mapping[str, Value]) -> float | None:
        return 9.0 if config.get("kernel") == "b" and config.get("sequences") == 64 else 1.0

    search = made((SEQUENCES, KERNEL), prior=prior)
    search.start({}, 1.0, {})

    assert search.ask([{}]) == {"sequences": 64, "kernel": "b"}


@pytest.mark.parametrize(("turn", "is_more"), [("raise", True), ("lower", False)])
def test_the_guide_says_which_way_to_go(turn: str, is_more: bool) -> None:
    search = made((SEQUENCES, TOKENS))
    search.start({"sequences": 64, "tokens": 1500}, 1.0, {})
    search.hint({"sequences": turn, "tokens": turn})
    config = search.ask([{"sequences": 64, "tokens": 1500}])

    assert config is not None
    moved = {
        name: config[name] > first  # type: ignore[operator]
        for name, first in (("sequences", 64), ("tokens", 1500))
        if config.get(name, first) != first
    }
    assert moved
    assert set(moved.values()) == {is_more}


def test_what_misses_an_slo_is_no_best_and_a_way_to_meet_it_is_sought() -> None:
    search = made((SEQUENCES,))
    known: list[dict[str, Value]] = [{}]
    search.start({}, 100.0, {"ttft:p99<1s": 0.8})
    for _ in range(8):
        config = search.ask(known)
        assert config is not None
        known.append(config)
        sequences = int(config.get("sequences", 16))
        search.tell(100.0 / sequences, {"ttft:p99<1s": (100 - sequences) / 100})
    ranks = search.expected(known)
    assert ranks is not None

    assert int(known[int(np.argmax(ranks))].get("sequences", 16)) == pytest.approx(100, rel=0.35)


def test_smaller_is_better_for_a_latency() -> None:
    search = made((SEQUENCES,), maximise=False)
    known: list[dict[str, Value]] = [{}]
    search.start({}, 16.0, {})
    for _ in range(6):
        config = search.ask(known)
        assert config is not None
        known.append(config)
        search.tell(float(config.get("sequences", 16)), {})

    assert min(int(config.get("sequences", 16)) for config in known) == 8


def test_fewer_changes_win_where_nothing_else_differs() -> None:
    search, known = gone_through()
    ranks = search.expected(known)

    assert ranks is not None
    assert known[int(np.argmax(ranks))] == {}


@pytest.mark.parametrize("seed", range(3))
def test_two_settings_that_gain_only_together_are_found(seed: int) -> None:
    def gained(config: Mapping[str, Value]) -> float:
        guess, kernel = bool(config.get("guess")), str(config.get("kernel", "a"))
        pair = {(False, "a"): 1.0, (True, "b"): 1.5}.get((guess, kernel), 0.85)
        return pair * (1 - math.exp(-float(config.get("sequences", 16)) / 20))

    streams = [
        row(f"streams{number}", kind="int", defaults=(("1", 8),), search=(1, 64))
        for number in range(3)
    ]
    knobs = (SEQUENCES, KERNEL, GUESS, *streams)
    search = OwnSearch(knobs, trials=20, maximise=True, seed=seed, fixed={})
    search.start({}, gained({}), {})
    known: list[dict[str, Value]] = [{}]
    for _ in range(20):
        config = search.ask(known)
        assert config is not None
        known.append(config)
        search.tell(gained(config), {})

    assert max(map(gained, known)) > 1.35


def test_a_cliff_does_not_bend_what_lies_before_it() -> None:
    def steep(sequences: int) -> float:
        return (100 + sequences / 4) * (0.3 if sequences > 250 else 1.0)

    asked = (30, 50, 80, 120, 180, 200)
    true = np.log([steep(number) for number in asked])
    errors = []
    for seed in range(6):
        search = OwnSearch((SEQUENCES, TOKENS), trials=9, maximise=True, seed=seed, fixed={})
        search.start({}, steep(16), {})
        for sequences, tokens in zip(
            (40, 64, 100, 160, 220, 300, 400, 512),
            (1024, 600, 2000, 1024, 1024, 1500, 800, 1024),
            strict=True,
        ):
            search.give({"sequences": sequences, "tokens": tokens})
            search.tell(steep(sequences), {})
        ranks = search.expected([{"sequences": number, "tokens": 1024} for number in asked])
        assert ranks is not None
        errors.append(np.abs(np.array(ranks) - np.mean(ranks) - (true - true.mean())).max())

    assert np.mean(errors) < 0.1  # with the differences as they are 0.14


def test_one_cause_is_not_asked_for_twice_at_once() -> None:
    """A kernel that nobody has tried may be refused: one trial shows it."""
    search = made()
    known = studied(search, 0) + [{"kernel": "a", "sequences": n} for n in (50, 100, 200)]
    for config in known[1:]:
        search.give(config)
        search.tell(1.0, {})
    alike: dict[str, Value] = {"kernel": "c", "sequences": 60}
    points = Points(search.space, [search.space.key(one) for one in (alike, {"sequences": 60})])
    search.assume([{"kernel": "c", "sequences": 40}])
    search.ask(known)

    both, one = search._apart_from_out(points)

    assert both < one
    search.assume([])
    assert (search._apart_from_out(points) == 1.0).all()


def test_a_search_is_more_cautious_while_what_may_fail_is_out() -> None:
    search = made()
    known = studied(search, 0) + [{"kernel": k, "sequences": n} for k in "ca" for n in (50, 100)]
    for config in known[1:]:
        search.give(config)
        search.tell(None if config.get("kernel") == "c" else 1.0, {})

    def impatience(kernel: str) -> float:
        search.assume([{"kernel": kernel, "sequences": 40}])
        search.ask(known)
        return search._impatience()

    assert impatience("a") < impatience("c")


def test_in_a_space_of_many_knobs_no_neighbour_promises_much_more_than_what_is_asked() -> None:
    number = {"kind": "int", "defaults": (("1", 8),), "search": (1, 4096), "search_log": True}
    knobs = [row(f"knob{n}", **number) for n in range(8)]
    search = made(knobs)
    search.start({}, 100.0, {})
    for n, value in enumerate((120.0, 90.0, 150.0)):
        search.give({f"knob{n}": 512, f"knob{n + 3}": 64})
        search.tell(value, {})
    config = search.ask([{}])
    assert config is not None
    key, measured = search.space.key(config), list(search.told)
    worth = search._worth(Points(search.space, measured))
    best = measured[int(np.argmax(worth))]
    around = [key, *search._beside(key)]
    scores = search._asked_about(around, measured, best).scores
    assert scores[0] > 0.9 * scores.max()


@pytest.mark.parametrize(
    ("log_gain", "said"),
    [
        (0.018, "expected 1.8 % better than the best"),
        (0.875, "expected 2.4 times as good as the best"),
        (9.0, "expected far better than the best"),
        (-0.207, "expected 18.7 % worse than the best, but little is known there"),
    ],
)
def test_what_is_expected_is_said_in_words(log_gain: float, said: str) -> None:
    assert _against_best(log_gain) == said
