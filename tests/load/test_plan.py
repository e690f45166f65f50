"""A load point and the plan of each share of it."""

from typing import Any

import msgspec
import pytest

from llmdyno import plugins, spec
from llmdyno.load.plan import Plan, Point
from llmdyno.wire.target import parse_url
from llmdyno.workload.share import Share

SHARE = Share()


def point(load: float, again: int = 0, **given: Any) -> Point:
    bench = spec.Bench(url="http://h", endpoint="openai-chat", model="m", load=spec.Load(**given))
    return Point(spec=bench, level=1, repeat=2, load=load, again=again)


def planned(of: Point) -> Plan:
    endpoint = plugins.load("endpoints", "openai-chat")
    return of.plan(of.prompts(SHARE), parse_url("http://h"), endpoint, SHARE)


def test_users_make_a_closed_loop() -> None:
    plan = planned(point(50.0, users=(10, 50)))

    assert (plan.users, plan.rate, plan.due_s) == (50, None, None)
    assert (plan.level, plan.repeat, plan.model) == (1, 2, "m")
    assert plan.requests is None


def test_a_rate_makes_an_open_loop_whose_times_are_drawn() -> None:
    plan = planned(point(4.0, arrival="constant", rates=(4.0,), requests=5))

    assert (plan.users, plan.rate) == (0, 4.0)
    assert plan.due_s == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert plan.requests == 5


def test_a_duration_says_not_how_many_requests_are_sent() -> None:
    assert planned(point(4.0, arrival="constant", rates=(4.0,), duration_s=1.0)).requests is None


def test_each_visit_of_a_load_draws_anew_and_equal_points_draw_alike() -> None:
    load: dict[str, Any] = {"arrival": "poisson", "rates": (4.0,), "requests": 20}

    first, same, again = (planned(point(4.0, visit, **load)) for visit in (0, 0, 1))

    assert first.due_s == same.due_s
    assert first.due_s != again.due_s
    assert [point(4.0, visit).stream for visit in (0, 1)] == ["4", "4/1"]


def test_a_point_survives_the_way_to_a_worker() -> None:
    sent = point(4.0, 1, arrival="poisson", rates=(4.0,))

    assert msgspec.json.decode(msgspec.json.encode(sent), type=Point) == sent
