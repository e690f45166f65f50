"""A load that is shared out over copies of a server."""

import pytest

from llmdyno.predict.calibrate import calibrate
from llmdyno.predict.copies import shared_out, together
from llmdyno.predict.forecast import Forecast, Point, Setup, forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.shapes import shape_of
from llmdyno.units import Lengths


@pytest.mark.parametrize(
    ("users", "copies", "parts"),
    [
        (12, 3, [(3, 4)]),
        (10, 8, [(2, 2), (6, 1)]),
        (4, 8, [(4, 1)]),
        (1, 1, [(1, 1)]),
    ],
)
def test_every_user_is_on_one_copy(users: int, copies: int, parts: list[tuple[int, int]]) -> None:
    found = shared_out((users, None), copies)
    assert found == [(count, (each, None)) for count, each in parts]
    assert sum(count * (each or 0) for count, (each, _) in found) == users


def test_a_request_rate_is_shared_evenly() -> None:
    assert shared_out((None, 3.0), 4) == [(4, (None, 0.75))]


def of_users(users: int) -> Forecast:
    setup = Setup(engine="vllm", shape=shape_of("llama3.1:8b"), gpu=gpu_of("h200"), config={})
    point = Point(users=users, isl=Lengths("fixed", 200), osl=Lengths("fixed", 50), duration_s=10.0)
    return forecast(setup, point, calibrate(()))


def test_rates_add_up_and_latencies_are_those_of_the_requests() -> None:
    busy, calm = of_users(60), of_users(2)
    found = together([(1, busy), (3, calm)])
    rates = busy.token_rate.mean, 3 * calm.token_rate.mean
    assert found.token_rate.mean == pytest.approx(sum(rates))
    of_busy = rates[0] / sum(rates)
    tpot = of_busy * busy.tpot_ms_p50.mean + (1 - of_busy) * calm.tpot_ms_p50.mean
    assert found.tpot_ms_p50.mean == pytest.approx(tpot)
    assert found.ttft_ms_p99 == busy.ttft_ms_p99 != calm.ttft_ms_p99
    low, high = found.token_rate.ci80
    assert low < found.token_rate.mean < high
    assert found.bound_by == busy.bound_by


def test_one_server_is_itself() -> None:
    alone = of_users(3)
    assert together([(1, alone)]) == alone
