"""A load point and the plan of each share of it."""

from typing import Any

import msgspec
import pytest

from llmdyno import plugins, spec
from llmdyno.load.plan import Plan, Point, target_of
from llmdyno.load.worker import SECRETS, environment
from llmdyno.wire.headers import Header, from_variables
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


def test_a_worker_sends_the_headers_that_its_parent_sends() -> None:
    bench = spec.Bench(url="http://h", headers=("X-Zone: a",), header_env=("X-Key=MINE",))
    secrets = from_variables(bench.header_env, "", None, {"MINE": "abc-012"})
    passed = environment(secrets)[SECRETS]

    of_worker = target_of(bench, msgspec.json.decode(passed, type=tuple[Header, ...]))

    assert of_worker == target_of(bench, secrets)
    assert of_worker.head("/", 0).endswith(b"\r\nX-Zone: a\r\nX-Key: abc-012\r\n\r\n")
    assert of_worker.redact("abc-012") == "[X-Key]"
    assert SECRETS not in environment(())


def test_no_file_gets_the_value_of_a_header() -> None:
    bench = spec.Bench(url="http://h", headers=("X-Zone: abc-012",), header_env=("X-Key=MINE",))

    written = msgspec.json.encode(bench.kept)

    assert b"abc-012" not in written
    assert b"X-Zone" in written
    assert b"X-Key=MINE" in written
    assert msgspec.json.decode(written, type=spec.Bench) == bench.kept
