"""How many requests a second one copy takes, and how many copies a rate needs."""

import math

import msgspec
import numpy as np
import pytest

from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import calibrate
from llmdyno.predict.capacity import _bisect, capacity
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.options import Option, Site, predict
from llmdyno.predict.server import server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, asked, simulated_at
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import StepTime
from llmdyno.results.slo import parse_slos
from llmdyno.units import Lengths

PLAN = Plan(model="llama3.1:8b", gpu="h200", rates=(1.0,))


def server(isl: int, osl: int, **config: int) -> Option:
    site = Site(
        engine="vllm",
        shape=shape_of("llama3.1:8b"),
        gpu=gpu_of("h200"),
        gpus=1,
        isl=Lengths("fixed", isl),
        osl=Lengths("fixed", osl),
    )
    return Option(site=site, config=config)


@pytest.mark.parametrize("slo", ["", "ttft:p99<200ms", "tpot:p50<9ms"])
@pytest.mark.parametrize("lengths", [(1000, 100), (100, 40)])
def test_what_one_copy_takes_is_what_its_prediction_shows(
    slo: str, lengths: tuple[int, int]
) -> None:
    plan = msgspec.structs.replace(PLAN, slos=parse_slos(slo) if slo else ())
    found = capacity(plan, server(*lengths), calibrate(()))["request_rate_each"]
    below, above = 0.93 * found, 1.15 * found
    at = predict(
        msgspec.structs.replace(plan, rates=(below, above)), server(*lengths), calibrate(())
    )
    asked = [rate * lengths[1] for rate in (below, above)]
    kept_up = [
        one.token_rate.mean > 0.95 * tokens for one, tokens in zip(at.forecasts, asked, strict=True)
    ]
    met = [all(verdict.met for verdict in verdicts) for verdicts in at.verdicts]
    assert kept_up[0]
    assert met[0]
    assert not (kept_up[1] and met[1])


def test_a_server_with_few_places_takes_as_many_as_it_finishes() -> None:
    few = capacity(PLAN, server(100, 400, max_num_seqs=4), calibrate(()))["request_rate_each"]
    many = capacity(PLAN, server(100, 400, max_num_seqs=8), calibrate(()))["request_rate_each"]
    assert many == pytest.approx(2 * few, rel=0.15)


def test_no_rate_meets_what_no_request_can() -> None:
    plan = msgspec.structs.replace(PLAN, slos=parse_slos("ttft:p99<1ms"))
    found = capacity(plan, server(1000, 200), calibrate(()))
    assert found == {"request_rate_each": 0.0, "gpus_each": 1, "needs": []}


@pytest.mark.parametrize("first", [0.001, 1.0, 7.0, 5000.0])
@pytest.mark.parametrize("most", [math.inf, 6.0])
def test_the_highest_rate_is_found_from_anywhere(first: float, most: float) -> None:
    limit = 7.3
    found = _bisect(lambda rate: rate <= limit, min(first, most), most)
    assert found <= limit
    assert found == pytest.approx(min(limit, most), rel=0.02)


def test_whoever_comes_far_too_late_is_not_simulated_and_changes_nothing() -> None:
    """A queue that grows is served in turn: most of 2,000 requests a second never are."""
    setup, theta = server(500, 100, max_num_seqs=32).setup, calibrate(()).theta
    point = Point(
        request_rate=2000.0, isl=Lengths("fixed", 500), osl=Lengths("fixed", 100), duration_s=8.0
    )
    whole = asked(server_of(setup), point, 0, point.duration_s)
    assert len(whole.starts_s) == 16_000
    time = StepTime(server_of(setup).work, server_of(setup).graphs, theta.tolist())
    every = simulate(server_of(setup).rules, time, whole)
    few = simulated_at(server_of(setup), point, theta, together=False)
    assert few.happened.tokens == pytest.approx(every.tokens, rel=0.05)
    assert few.happened.unfinished < every.unfinished / 4
    assert few.ttft_ms_p50 == pytest.approx(1e3 * np.median(every.ttft_s), rel=0.1)
