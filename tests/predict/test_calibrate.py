"""The calibration finds parameters that its points were made with, and says how sure it is."""

import msgspec
import numpy as np
import pytest

from llmdyno.predict.calibrate import (
    METRICS,
    _coarse_logs,
    _noise,
    _scatter,
    _slopes,
    calibrate,
    deviations,
    prior,
)
from llmdyno.predict.coarse import stack
from llmdyno.predict.forecast import forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.points import Measured
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, loads_of, simulated_at
from llmdyno.predict.steptime import DEVIATIONS, MEDIANS, NAMES
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
    server = msgspec.structs.replace(server_of(SETUP), seen=False)  # it surprises where it is
    point = Point(users=8)
    before, after = (deviations(each, [server], [point])[0] for each in (prior(), found))
    assert len(before) == len(METRICS)
    assert (after < before).all()


def test_what_the_model_does_not_explain_is_not_laid_on_its_parameters() -> None:
    """Points that contradict each other leave the parameters near their priors."""
    scattered = []
    for users, luck in ((2, 0.85), (3, 1.15), (12, 1.15), (14, 0.85)):
        point = measured(users, MEDIANS)
        assert point.tpot_ms_p50
        changed = {"token_rate": point.token_rate * luck, "tpot_ms_p50": point.tpot_ms_p50 / luck}
        scattered.append(msgspec.structs.replace(point, **changed))
    found = calibrate(scattered)
    assert np.abs(np.log(found.theta / MEDIANS) / DEVIATIONS).max() < 0.2
    assert found.scatter[0] > 0.08


def test_ten_runs_of_one_server_tell_of_that_server_only() -> None:
    """What the model lacks of a server is the same in each of its levels."""
    theta = MEDIANS.copy()
    theta[NAMES.index("bandwidth_share")] *= 0.75
    points = [measured(users, theta) for users in (1, 8, 24)]
    once, often = calibrate(points), calibrate(points * 4)
    server, point = server_of(SETUP), Point(users=8)
    narrow, same = (deviations(each, [server], [point])[0] for each in (once, often))
    assert (same > 0.97 * narrow).all()
    servers = [
        msgspec.structs.replace(each, config={"max_num_seqs": 512 + number})
        for number in range(4)
        for each in points
    ]
    assert (deviations(calibrate(servers), [server], [point])[0] < 0.85 * narrow).all()


def test_a_forecast_scatters_as_points_do_that_nobody_matched() -> None:
    """A rate that only fits users in step is scatter to who does not know that they were."""
    matched, started = np.full((10, 3), 0.01), np.full((10, 3), 0.3)
    scatter = _scatter(matched, started, 1.0)
    assert (scatter[[0, 2]] > 0.25).all()
    assert scatter[1] < prior().scatter[1]  # TTFT's other answer has a range of its own
    assert (_scatter(matched, started, 0.1) < scatter)[[0, 2]].all()  # of one server


def test_the_noise_of_a_point_is_that_of_all_but_a_few_far_off() -> None:
    far = np.array([[0.02, 0.1, 0.02]] * 18 + [[0.9, 2.0, 0.9]] * 2)
    [one, *_] = _noise(np.zeros_like(far), far)
    assert (one < [0.05, 0.17, 0.05]).all()
    assert (_noise(np.zeros_like(far), 10 * far)[0] > 4 * one).all()
    assert (_noise(np.full_like(far, 0.5), far) == 0.5).all()  # what was measured so roughly


def test_less_is_known_of_an_engine_that_was_never_measured() -> None:
    point = Point(users=64, isl=Lengths("fixed", 128), osl=Lengths("fixed", 100))
    server = server_of(SETUP)
    unknown = msgspec.structs.replace(server, measured=False)
    seen, unseen = deviations(prior(), [server, unknown], [point, point])
    assert (unseen > 1.2 * seen).all()
    fitted = msgspec.structs.replace(prior(), points=1)
    assert np.ptp(deviations(fitted, [server, unknown], [point, point]), axis=0).max() == 0
    assert not server_of(msgspec.structs.replace(SETUP, engine="tensorrt-llm")).measured


def test_more_is_known_of_an_engine_on_a_gpu_that_was_measured() -> None:
    """The medians were chosen by runs there; of another GPU all that is believed is open."""
    point = Point(users=64, isl=Lengths("fixed", 128), osl=Lengths("fixed", 100))
    server = server_of(SETUP)
    assert server.seen
    assert server_of(msgspec.structs.replace(SETUP, gpu=gpu_of("h100"))).seen
    for other in ({"gpu": gpu_of("l40s")}, {"engine": "tensorrt-llm"}):
        assert not server_of(msgspec.structs.replace(SETUP, **other)).seen
    elsewhere = msgspec.structs.replace(server, seen=False)
    here, there = (deviations(prior(), [one], [point])[0] for one in (server, elsewhere))
    assert (here < there).all()
    assert np.allclose((here**2 - prior().scatter ** 2) / (there**2 - prior().scatter ** 2), 0.35)


def test_hosts_differ_where_no_run_is_of_this_machine() -> None:
    """Runs of others say how fast the GPU is, not how fast this host is."""
    few = Setup("vllm", SETUP.shape, SETUP.gpu, config={"max_num_seqs": 20})
    server, point = server_of(few), Point(users=40)  # of which the host starts the kernels
    runs = [measured(users, MEDIANS) for users in (1, 8)]
    of_it, of_another = (
        [msgspec.structs.replace(run, machine=frozenset(own)) for run in runs]
        for own in (("a", "b"), ("c",))
    )
    machine = frozenset({"b", "d"})
    own, others, unknown = (calibrate(each).on(machine) for each in (of_it, of_another, runs))
    assert own.own == {SETUP.gpu.name: pytest.approx(1.0)}
    assert not others.own
    assert not unknown.own
    narrow, wide, same = (deviations(each, [server], [point])[0] for each in (own, others, unknown))
    assert np.array_equal(wide, same)
    assert (wide > narrow).all()
    both = calibrate([*of_it, *of_another]).on(machine)
    assert 0.4 < both.own[SETUP.gpu.name] < 0.6
    elsewhere = msgspec.structs.replace(server, gpu="another")
    here, there = (deviations(both, [one], [point])[0] for one in (server, elsewhere))
    assert (here < there).all()


def test_slopes_of_many_parameters_are_those_of_each_moved_alone() -> None:
    """All are solved at once, which takes a fourth of the time of one by one."""
    servers, points = [server_of(SETUP)] * 2, [Point(users=3), Point(request_rate=2.0)]
    stacked, loads, x = stack(servers), loads_of(servers, points), np.log(MEDIANS)
    slopes = _slopes(stacked, loads, x)
    assert slopes.shape == (2, 3, 9)
    moved = x + 1e-3 * np.eye(9)[3]
    by_one = (_coarse_logs(stacked, loads, moved) - _coarse_logs(stacked, loads, x)) / 1e-3
    assert np.array_equal(slopes[:, :, 3], by_one)
    assert by_one.any()


def test_users_in_step_and_spread_users_widen_the_interval_of_ttft_and_nothing_else() -> None:
    """So configs that are compared are simulated without them."""
    lengths = Lengths("fixed", 200)
    point = Point(users=100, isl=lengths, osl=lengths, duration_s=10.0)
    whole, compared = (forecast(SETUP, point, prior(), ways=ways) for ways in (True, False))
    low, high = compared.ttft_ms_p50.ci80
    assert whole.ttft_ms_p50.ci80[1] > high
    assert whole.ttft_ms_p50.mean == compared.ttft_ms_p50.mean
    same = {name: getattr(whole, name) for name in whole.__struct_fields__ if name != "ttft_ms_p50"}
    assert same == {name: getattr(compared, name) for name in same}
    assert low < high


def test_intervals_are_as_wide_as_equal_starts_of_an_engine_lie_apart() -> None:
    """LMDeploy's PyTorch engine: so do its servers; SGLang's differ as vLLM's do."""
    config = {"backend": "pytorch"}
    server = server_of(Setup("lmdeploy", SETUP.shape, SETUP.gpu, config=config))
    assert (server.measured, server.start_spread) == (True, 2.0)
    calmer = msgspec.structs.replace(server, start_spread=1.0)
    point = Point(users=20, isl=Lengths("fixed", 100), osl=Lengths("fixed", 100))
    wide, narrow = (deviations(prior(), [one], [point])[0] for one in (server, calmer))
    assert np.allclose(wide**2 - narrow**2, 3 * prior().scatter ** 2)
    sglang = server_of(Setup("sglang", SETUP.shape, SETUP.gpu))
    assert (sglang.measured, sglang.start_spread) == (True, 1.0)


def test_a_queue_above_saturation_grows_to_the_end_of_the_level() -> None:
    """It gets 1.2 times what it can serve: who comes later waits longer."""
    setup = Setup("vllm", shape_of("llama-3-8b"), gpu_of("h200"), config={"max_num_seqs": 16})
    lengths = Lengths("fixed", 200)
    users = Point(users=16, isl=lengths, osl=lengths, duration_s=30.0)
    rate = 1.2 * forecast(setup, users, prior()).token_rate.mean / 200
    ttft_ms = []
    for duration_s in (60.0, 240.0):
        level = Point(request_rate=rate, isl=lengths, osl=lengths, duration_s=duration_s)
        ttft_ms.append(forecast(setup, level, prior()).ttft_ms_p50.mean)
    assert ttft_ms[1] == pytest.approx(4 * ttft_ms[0], rel=0.35)


def test_hosts_are_slow_as_a_whole_where_nothing_is_known() -> None:
    """What the host does goes wrong together: the whole is less sure than each part by itself."""
    covariance = prior().covariance
    host = [place for place, name in enumerate(NAMES) if name.startswith(("host", "api"))]
    assert all(covariance[one, two] > 0 for one in host for two in host)
    assert covariance[0, 1] == covariance[0, host[0]] == 0
