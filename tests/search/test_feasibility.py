"""What does not start is learnt."""

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from batches import KERNEL, KNOBS, SEQUENCES, TOKENS
from llmdyno.knobs import Knob, Value
from llmdyno.search.feasibility import Feasibility
from llmdyno.search.points import Points
from llmdyno.search.space import Space

Config = Mapping[str, Value]
_GPUS = ("one", "two", "four", "eight")


def risks(
    started: Sequence[Config],
    failed: Sequence[Config],
    asked: Sequence[Config],
    knobs: Sequence[Knob] = KNOBS,
) -> list[float]:
    space = Space(knobs, {})
    learnt = Feasibility(space)
    points = [Points(space, [space.key(one) for one in some]) for some in (started, failed, asked)]
    learnt.fit(points[0], points[1])
    return [float(risk) for risk in learnt.risk(points[2])]


def test_a_choice_that_is_refused_is_avoided_whatever_stands_beside_it() -> None:
    started: list[Config] = [
        {},
        {"kernel": "b"},
        {"sequences": 200, "tokens": 4096},
        {"guess": True},
    ]
    again, other = risks(
        started,
        [{"kernel": "c"}],
        [{"kernel": "c", "guess": True, "sequences": 20}, {"kernel": "b", "guess": True}],
    )

    assert again > 0.8
    assert other < 0.2


def test_more_of_two_numbers_than_what_failed_fails_and_less_than_what_started_does_not() -> None:
    started = [{"tokens": 1024}, {"sequences": 500, "tokens": 300}, {"tokens": 8000}]
    more, less = risks(
        started,
        [{"sequences": 250, "tokens": 4096}],
        [{"sequences": 300, "tokens": 5000}, {"sequences": 16, "tokens": 2048}],
    )

    assert more > 0.9
    assert less < 0.1


def test_near_a_failure_the_risk_rises_step_by_step() -> None:
    steps = [{"sequences": number, "tokens": 4096} for number in (32, 64, 128, 250)]
    found = risks(
        [{"tokens": 1024}, {"sequences": 16, "tokens": 4096}],
        [{"sequences": 256, "tokens": 4096}],
        steps,
    )

    assert found == sorted(found)
    assert found[-1] > 0.9
    assert found[0] < 0.7


def test_a_choice_moves_the_bound_of_a_number() -> None:
    gpus = msgspec.structs.replace(
        KERNEL, name="gpus", defaults=(("1", "one"),), choices=_GPUS, search=_GPUS
    )
    four, one, far = risks(
        [{}, {"gpus": "two", "sequences": 128}, {"gpus": "four", "sequences": 256}],
        [{"sequences": 256}, {"gpus": "two", "sequences": 512}],
        [
            {"gpus": "four", "sequences": 512},
            {"sequences": 200},
            {"gpus": "two", "sequences": 768},
        ],
        (SEQUENCES, TOKENS, gpus),
    )

    assert four < 0.5 < one
    assert far > 0.8


def test_two_points_share_a_cause_where_one_thing_may_stop_both() -> None:
    space = Space(KNOBS, {})
    learnt = Feasibility(space)

    def points(*configs: Config) -> Points:
        return Points(space, [space.key(one) for one in configs])

    learnt.fit(points({}, {"kernel": "b"}), points())
    asked = points({"kernel": "c", "sequences": 20}, {"kernel": "b", "guess": True})
    [(alike, other)] = learnt.shared(asked, [points({"kernel": "c"})])

    assert alike > 3 * other
    assert alike <= min(*learnt.risk(points({"kernel": "c"})), learnt.risk(asked)[0])
    [itself] = learnt.shared(points({"kernel": "c"}), [points({"kernel": "c"})])
    assert itself == learnt.risk(points({"kernel": "c"}))


def test_a_point_has_the_same_risk_however_many_are_asked_about_with_it() -> None:
    started: list[Config] = [{}, {"tokens": 1024}, {"kernel": "b"}]
    failed: list[Config] = [{"sequences": 250, "tokens": 4096}, {"kernel": "c"}]
    asked = [
        {"sequences": sequences, "tokens": tokens, "kernel": kernel}
        for sequences in (16, 64, 200, 500)
        for tokens in (512, 2048, 4096, 8192)
        for kernel in ("a", "b", "c")
    ]

    alone = [risks(started, failed, [one])[0] for one in asked]

    assert risks(started, failed, asked) == pytest.approx(alone)
    assert len(set(alone)) > len(asked) / 2
