"""The step time's parameters, fitted to what was measured.

The estimate is the most probable one (MAP): the priors of steptime.PRIORS, and residuals of the
logarithms of token rate, TTFT p50 and TPOT p50. The residuals come from the simulation; how they
change with a parameter, from the coarse pass, which has all points at once (Gauss-Newton). The
interval of a forecast has two parts: what the parameters' posterior leaves open, by its curvature
(Laplace), and the scatter between runs of one server, which no parameter explains.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from llmdyno.predict.coarse import solve, stack
from llmdyno.predict.points import Measured
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.simulated import Point, loads_of, simulated_at, ways
from llmdyno.predict.steptime import DEVIATIONS, MEDIANS, NAMES
from llmdyno.units import Lengths

METRICS = ("token_rate", "ttft_ms_p50", "tpot_ms_p50")
_SCATTER = np.array([0.08, 0.18, 0.08])  # of runs of one server, believed before any was seen
_SCATTER_WEIGHT = 4.0  # ... as firmly as so many points say
_NOISE = np.array([0.03, 0.15, 0.03])  # of a point in the fit; TTFT has two answers at times
_FAR = 3.0  # deviations from which a point counts less and less
_ROUNDS = 4
_MATCHINGS = 3  # times that the points' ways are chosen anew
_FIT_S = 10.0  # simulated of a point
_DIFFERENCE = 1e-3
_STEP_MAX = 0.4


class Calibration(msgspec.Struct, frozen=True):
    """Fitted parameters.

    Attributes:
        theta: in the order of steptime.PRIORS.
        covariance: of their logarithms.
        scatter: of the logarithms of METRICS around a forecast.
        points: how many points it was fitted to.
    """

    theta: np.ndarray
    covariance: np.ndarray
    scatter: np.ndarray
    points: int = 0

    @property
    def parameters(self) -> Mapping[str, float]:
        """The parameters by name."""
        return dict(zip(NAMES, self.theta.tolist(), strict=True))


def prior() -> Calibration:
    """Return what is believed where nothing was measured."""
    return Calibration(MEDIANS.copy(), np.diag(DEVIATIONS**2), _SCATTER.copy())


class _Data(msgspec.Struct, frozen=True):
    """Points, each with its server; equal ones are simulated once: `same` says which."""

    servers: list[Server]
    points: list[Point]
    plain: list[Point]
    cycles: np.ndarray
    same: np.ndarray
    logs: np.ndarray
    noise: np.ndarray


def calibrate(measured: Sequence[Measured]) -> Calibration:
    """Return the parameters that explain the points best; without any, the prior.

    Raises:
        UsageError: nothing is known of an engine's scheduler.
    """
    if not measured:
        return prior()
    data = _data(measured)
    mean = np.log(MEDIANS)
    precision = np.diag(DEVIATIONS**-2.0)
    x = mean.copy()
    for matching in range(_MATCHINGS):
        data, residuals = _matched(data, x)
        loss = _loss(data, residuals, x)
        for _ in range(_ROUNDS):
            slopes = _slopes(data.servers, data.points, x)[data.same]
            weights = _weights(data, residuals)
            normal = np.einsum("pmi,pm,pmj->ij", slopes, weights, slopes) + precision
            pull = np.einsum("pmi,pm->i", slopes, weights * residuals)
            step = np.linalg.solve(normal, pull - precision @ (x - mean))
            step *= min(1.0, _STEP_MAX / max(1e-12, float(np.abs(step).max())))
            tried = _residuals(data, x + step)
            new = _loss(data, tried, x + step)
            if new >= loss:
                step /= 3
                tried = _residuals(data, x + step)
                new = _loss(data, tried, x + step)
                if new >= loss:
                    break
            gain = loss - new
            x, residuals, loss = x + step, tried, new
            if gain < 0.003 * loss:
                break
    slopes = _slopes(data.servers, data.points, x)[data.same]
    normal = np.einsum("pmi,pm,pmj->ij", slopes, _weights(data, residuals), slopes) + precision
    return Calibration(np.exp(x), np.linalg.inv(normal), _scatter(residuals), len(measured))


def _matched(data: _Data, x: np.ndarray) -> tuple[_Data, np.ndarray]:
    """Take each point as its users met it most likely: as they started, in step, or spread."""
    theta = np.exp(x)
    points, rows = [], []
    for place, (server, point) in enumerate(zip(data.servers, data.plain, strict=True)):
        cycle_s = float(data.cycles[place])
        tried = [(way, _simulated(server, way, theta)) for way in ways(point, cycle_s)]
        own = data.logs[data.same == place]
        noise = data.noise[data.same == place]
        costs = [float(np.log1p(((own - row) / noise / _FAR) ** 2).sum()) for _, row in tried]
        way, row = tried[int(np.argmin(costs))]
        points.append(way)
        rows.append(row)
    matched = msgspec.structs.replace(data, points=points)
    return matched, np.asarray(data.logs - np.array(rows)[data.same])


def _simulated(server: Server, point: Point, theta: np.ndarray) -> np.ndarray:
    short = msgspec.structs.replace(point, duration_s=min(point.duration_s, _FIT_S))
    seen = simulated_at(server, short, theta, together=False, starts=1)
    return np.log([seen.token_rate, seen.ttft_ms_p50, seen.tpot_ms_p50])


def deviations(
    calibration: Calibration, servers: Sequence[Server], points: Sequence[Point]
) -> np.ndarray:
    """Return the deviation of the logarithm of each of METRICS: a row a point."""
    slopes = _slopes(servers, points, np.log(calibration.theta))
    open_ = np.einsum("pmi,ij,pmj->pm", slopes, calibration.covariance, slopes)
    return np.asarray(np.sqrt(open_ + calibration.scatter**2))


def setup_of(measured: Measured) -> Setup:
    """Return the server of a measured point."""
    return Setup(measured.engine, measured.shape, measured.gpu, config=measured.config)


def point_of(measured: Measured) -> Point:
    """Return the load of a measured point."""
    return Point(
        users=measured.users,
        request_rate=measured.request_rate,
        isl=Lengths("fixed", measured.isl),
        osl=Lengths("fixed", measured.osl),
        cached_share=measured.cached_share or 0.0,
        duration_s=measured.duration_s or 20.0,
    )


def _data(measured: Sequence[Measured]) -> _Data:
    places: dict[bytes, int] = {}
    servers, points, same = [], [], []
    for each in measured:
        setup, point = setup_of(each), point_of(each)
        rough = msgspec.structs.replace(
            point,
            cached_share=round(point.cached_share, 1),
            duration_s=min(point.duration_s, _FIT_S),
        )
        key = msgspec.json.encode(
            (sorted(setup.config.items()), setup.gpu.name, setup.shape, rough)
        )
        if key not in places:
            places[key] = len(places)
            servers.append(server_of(setup))
            points.append(point)
        same.append(places[key])
    logs = np.log([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    noise = np.tile(_NOISE, (len(measured), 1))
    for row, each in enumerate(measured):
        if each.token_rate_ci:
            low, high = each.token_rate_ci
            if 0 < low < high:
                noise[row, 0] = np.hypot(noise[row, 0], np.log(high / low) / (2 * 1.96))
    cycles = [
        (each.ttft_ms_p50 + each.tpot_ms_p50 * each.osl) / 1e3
        for place in range(len(points))
        for each in [measured[same.index(place)]]
    ]
    return _Data(servers, points, points, np.array(cycles), np.array(same), logs, noise)


def _residuals(data: _Data, x: np.ndarray) -> np.ndarray:
    theta = np.exp(x)
    rows = [
        _simulated(server, point, theta)
        for server, point in zip(data.servers, data.points, strict=True)
    ]
    return np.asarray(data.logs - np.array(rows)[data.same])


def _weights(data: _Data, residuals: np.ndarray) -> np.ndarray:
    far = residuals / (data.noise * _FAR)
    return np.asarray(1 / (data.noise**2 * (1 + far**2)))


def _loss(data: _Data, residuals: np.ndarray, x: np.ndarray) -> float:
    far = residuals / (data.noise * _FAR)
    prior_part = (((x - np.log(MEDIANS)) / DEVIATIONS) ** 2).sum()
    return float(_FAR**2 * np.log1p(far**2).sum() + prior_part)


def _scatter(residuals: np.ndarray) -> np.ndarray:
    count = len(residuals)
    total = _SCATTER_WEIGHT * _SCATTER**2 + (residuals**2).sum(axis=0)
    return np.asarray(np.sqrt(total / (_SCATTER_WEIGHT + count)))


def _slopes(servers: Sequence[Server], points: Sequence[Point], x: np.ndarray) -> np.ndarray:
    """Return how the logarithms of METRICS change with those of the parameters: (point, 3, 8)."""
    stacked, loads = stack(servers), loads_of(servers, points)

    def logs(moved: np.ndarray) -> np.ndarray:
        answer = solve(stacked, loads, np.exp(moved)[:, None])
        return np.log(np.stack([answer.token_rate, answer.ttft_s, answer.tpot_s], axis=1))

    base = logs(x)
    return np.stack(
        [(logs(x + _DIFFERENCE * row) - base) / _DIFFERENCE for row in np.eye(len(x))], axis=2
    )
