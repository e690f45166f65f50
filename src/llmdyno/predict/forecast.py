"""What a server will do under a load: simulated, with intervals that say how much is known."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from llmdyno.predict.calibrate import Calibration, deviations
from llmdyno.predict.coarse import CoarseAnswer, solve, stack
from llmdyno.predict.rules import Happened
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.simulated import Point, loads_of, simulated_at, step_time
from llmdyno.predict.steptime import StepTime

__all__ = ("Forecast", "Point", "Range", "Setup", "coarse", "forecast")

_CI80 = 1.2816  # deviations of a normal distribution
_P99_WIDER = 1.5


class Range(msgspec.Struct, frozen=True):
    """A value and the interval that holds it four times in five."""

    mean: float
    ci80: tuple[float, float]


class Forecast(msgspec.Struct, frozen=True):
    """What is predicted of a server under one load.

    Attributes:
        bound_by: host, weights bandwidth, KV bandwidth, compute, admission, KV memory or client.
        fits, why: whether the server can start; if not, the sum that shows it.
        running_mean: sequences in a step.
        limit_share: the time at the GPU's peaks as a share of the time taken.
        mbu, mfu: bandwidth and FLOPs used, as shares of the peaks.
    """

    point: Point
    token_rate: Range
    ttft_ms_p50: Range
    ttft_ms_p99: Range
    tpot_ms_p50: Range
    e2e_ms_p50: Range
    bound_by: str
    fits: bool
    why: str
    running_mean: float
    limit_share: float
    mbu: float
    mfu: float


def forecast(
    setup: Setup, point: Point, calibration: Calibration, *, ways: bool = True
) -> Forecast:
    """Return what a server will do.

    Args:
        setup: the server.
        point: its load.
        calibration: what is known of the predictor's parameters.
        ways: whether users in step and users spread out are simulated, too. They widen the interval
            of TTFT's p50 and change nothing else: who compares configs does without.

    Raises:
        UsageError: the point is no load, or nothing is known of the engine's scheduler.
    """
    point.check()
    server = server_of(setup)
    if server.why:
        nothing = Range(0.0, (0.0, 0.0))
        return Forecast(
            point, nothing, nothing, nothing, nothing, nothing, "KV memory",
            fits=False, why=server.why, running_mean=0.0, limit_share=0.0, mbu=0.0, mfu=0.0,
        )  # fmt: skip
    theta = calibration.theta
    simulated = simulated_at(server, point, theta, together=ways and point.users is not None)
    spread = deviations(calibration, [server], [point])[0]
    time = step_time(server, point, theta)
    means, happened = _means(simulated.happened), simulated.happened
    step_s = happened.busy_s / max(happened.steps, 1e-9)
    work = server.work
    read = _weights_read(server, point, means)
    read += work.context_read(means["context"], means["decodes"]) * work.kv_bytes
    flops = (means["decodes"] + means["chunk"]) * work.token_flops
    head_flops = means["decodes"] * work.head_flops
    # At the peaks of bandwidth and FLOPs: no server can beat it.
    limit_s = max(read / work.bandwidth, (flops + head_flops) / work.flops)
    return Forecast(
        point=point,
        token_rate=_range(simulated.token_rate, spread[0], simulated.rates),
        ttft_ms_p50=_range(simulated.ttft_ms_p50, spread[1], simulated.ttfts_ms),
        ttft_ms_p99=_range(simulated.ttft_ms_p99, _P99_WIDER * spread[1], ()),
        tpot_ms_p50=_range(simulated.tpot_ms_p50, spread[2], simulated.tpots_ms),
        e2e_ms_p50=_range(simulated.e2e_ms_p50, spread[0], ()),
        bound_by=_bound_by(time, simulated.happened, simulated.window_s),
        fits=True,
        why="",
        running_mean=happened.running_s / simulated.window_s,
        limit_share=limit_s / step_s,
        mbu=read / work.bandwidth / step_s,
        mfu=flops / work.flops / step_s,
    )


def _weights_read(server: Server, point: Point, means: Mapping[str, float]) -> float:
    """Return the bytes of weights that a step reads, the mean of those with prompts and without.

    A step of many tokens reads all experts, one of few those of few: the mean step's tokens would
    read more than both do. Prompts are taken to come in as large chunks as there are.
    """
    whole = max(1.0, point.isl.typical * (1 - point.cached_share))
    chunk = max(means["chunk"], min(server.rules.tokens, whole))
    share, work = means["chunk"] / chunk, server.work
    beside = means["decodes"] if server.rules.mixes else 0.0
    alone = means["decodes"] if server.rules.mixes else means["decodes"] / max(1e-9, 1 - share)
    return (1 - share) * work.read_bytes(alone) + share * work.read_bytes(beside + chunk)


def _means(happened: Happened) -> dict[str, float]:
    """Return the mean step's decodes, context and prompt tokens."""
    steps = max(happened.steps, 1e-9)
    return {
        "decodes": max(1e-9, happened.decodes / steps),
        "context": happened.contexts / steps,
        "chunk": happened.chunk / steps,
    }


def _range(mean: float, deviation: float, seen: Sequence[float]) -> Range:
    """Return the mean with its interval, which holds every simulation's answer, too."""
    factor = float(np.exp(_CI80 * deviation))
    low, high = mean / factor, mean * factor
    return Range(mean, (min([low, *seen]), max([high, *seen])))


def _bound_by(time: StepTime, happened: Happened, window_s: float) -> str:
    """Name what keeps the server from more tokens."""
    running = happened.running_s / window_s
    many = max(1.0, 0.02 * running) * window_s
    if happened.capped_s + happened.crowded_s > many:
        return "KV memory" if happened.crowded_s > happened.capped_s else "admission"
    if happened.preempted:
        return "KV memory"
    if happened.host_s > happened.busy_s / 2:
        return "host"
    means = _means(happened)
    parts = time.bound_by(means["decodes"], means["context"], means["chunk"])
    return parts if happened.host_s < happened.busy_s / 2 else "host"


def coarse(setups: Sequence[Setup], point: Point, calibration: Calibration) -> CoarseAnswer:
    """Return what many servers do under one load, quickly and less exactly; nan: cannot start.

    Raises:
        UsageError: the point is no load, or nothing is known of an engine's scheduler.
    """
    point.check()
    servers = [server_of(setup) for setup in setups]
    loads = loads_of(servers, [point] * len(servers))
    answer = solve(stack(servers), loads, calibration.theta[:, None])
    fits = np.array([not server.why for server in servers])
    return CoarseAnswer(
        *(np.where(fits, getattr(answer, name), np.nan) for name in answer.__struct_fields__)
    )
