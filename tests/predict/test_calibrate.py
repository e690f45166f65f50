"""The calibration finds parameters that its points were made with, and says how sure it is."""

import numpy as np

from llmdyno.predict.calibrate import METRICS, calibrate, deviations, prior
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.points import Measured
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, simulated_at
from llmdyno.predict.steptime import MEDIANS, NAMES
from llmdyno.units import Lengths

SETUP = Setup("vllm", shape_of("meta-llama/Llama-3.1-8B"), gpu_of("h200"))


def measured(users: int, theta: np.ndarray) -> Measured:
    point = Point(users=users, isl=Lengths("fixed", 128), osl=Lengths("fixed", 100), duration_s=6.0)
    seen = simulated_at(server_of(SETUP), point, theta, together=False, starts=1)
    return Measured(
        gpu=SETUP.gpu,
        engine=SETUP.engine,
        shape=SETUP.shape,
        config={},
        users=users,
        request_rate=None,
        isl=128,
        osl=100,
        cached_share=0.0,
        duration_s=6.0,
        token_rate=seen.token_rate,
        token_rate_ci=None,
        ttft_ms_p50=seen.ttft_ms_p50,
        tpot_ms_p50=seen.tpot_ms_p50,
        source="made",
    )


def test_without_points_it_is_the_prior() -> None:
    found = calibrate([])
    assert found.points == 0
    assert np.array_equal(found.theta, MEDIANS)


def test_a_slower_memory_is_found_and_intervals_narrow() -> None:
    theta = MEDIANS.copy()
    theta[NAMES.index("bandwidth_share")] *= 0.75
    found = calibrate([measured(users, theta) for users in (1, 8, 24)])
    assert found.parameters["bandwidth_share"] < 0.93 * MEDIANS[0]
    server, point = server_of(SETUP), Point(users=8)
    before, after = (deviations(each, [server], [point])[0] for each in (prior(), found))
    assert len(before) == len(METRICS)
    assert (after < before).all()
