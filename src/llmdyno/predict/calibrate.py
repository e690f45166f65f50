"""The step time's parameters, fitted to what was measured.

The estimate is the most probable one (MAP): the priors of steptime.PRIORS, and residuals of the
logarithms of token rate, TTFT p50 and TPOT p50. How firmly residuals pull follows from how large
they are: what the model does not explain must not be laid on its parameters, so where that is much,
or the points are few, they stay near their priors. The residuals come from the simulation; how they
change with a parameter, from the coarse pass, which has all points at once (Gauss-Newton). The
interval of a forecast has two parts: what the parameters' posterior leaves open, by its curvature
(Laplace), and the scatter between runs of one server, which no parameter explains.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from llmdyno.predict.coarse import CoarseLoads, Stack, solve, stack
from llmdyno.predict.points import Measured
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.simulated import Point, loads_of, simulated_at, ways
from llmdyno.predict.steptime import DEVIATIONS, MEDIANS, NAMES
from llmdyno.units import Lengths

METRICS = ("token_rate", "ttft_ms_p50", "tpot_ms_p50")
# Around a forecast, believed before any server was seen. TTFT's is what equal runs differ by.
_SCATTER = np.array([0.1, 0.25, 0.1])
_SCATTER_WEIGHT = 4.0  # ... as firmly as so many servers say
_MISFIT = np.array([0.06, 0.15, 0.06])  # of a point in the fit, believed before any residual
_MISFIT_WEIGHT = 4.0  # ... as firmly as so many points say
_MISFIT_TURNS = 3  # matchings after which it is estimated anew; then it stays
_NORMAL = 1.4826  # deviations of a normal distribution in the median of its sizes
_FAR = 3.0  # deviations from which a point counts less and less
_ROUNDS = 12
_GAIN_MIN = 1e-3  # of twice the logarithm of the probability: less is not worth a round
_MOVE_MAX = 0.25
_MATCHINGS = 5  # times that all points are simulated
_SAME_TOKENS, _SAME_S = 8, 3  # points that differ by less are one load
_FIT_S = 10.0  # simulated of a point
_DIFFERENCE = 1e-3
_UNMEASURED = 2.0  # times as wide
# Of the priors' variance, what is left of an engine on a GPU by whose runs their medians were
# chosen. By the 60 points of evidence/h200-drawn-2, whose servers nobody had seen:
# benchmarks/predictor/README.md, "Intervals".
_SEEN = 0.35
_OF_THE_HOST = np.array([name.startswith(("host", "api")) for name in NAMES])
# A host is as a whole faster or slower than another under the same GPU: one config made 2,253 tok/s
# on one and 3,990 on the other (evidence/h200-drawn-2). Runs of one host need not be told of it.
_HOSTS = 0.34
_OTHER_HOSTS = 0.25  # ... and so far from this one's lie the hosts whose runs were fitted
_STEP_MAX = 0.2
_DAMPING = 0.01


class Calibration(msgspec.Struct, frozen=True):
    """Fitted parameters.

    Attributes:
        theta: in the order of steptime.PRIORS.
        covariance: of their logarithms.
        scatter: of the logarithms of METRICS around a forecast.
        points: how many points it was fitted to.
        setups: the server of each of these.
        told: of what the points say of the host's pace, which share each machine's say: by what
            tells it from others (machine_ids()) and the name of its GPU.
        own: by the name of a GPU, the share of the machine that is asked about; the hosts of the
            others are not its own.
    """

    theta: np.ndarray
    covariance: np.ndarray
    scatter: np.ndarray
    points: int = 0
    setups: Sequence[Setup] = ()
    told: Mapping[tuple[frozenset[str], str], float] = {}
    own: Mapping[str, float] = {}

    def on(self, machine: frozenset[str]) -> "Calibration":
        """Return the calibration as it holds for a machine, by what machine_ids() says of it.

        Where no point is of it, the intervals are as wide as hosts lie apart.
        """
        own: dict[str, float] = {}
        for (ids, gpu), share in self.told.items():
            if ids & machine:
                own[gpu] = own.get(gpu, 0.0) + share
        return msgspec.structs.replace(self, own=own)

    @property
    def parameters(self) -> Mapping[str, float]:
        """The parameters by name."""
        return dict(zip(NAMES, self.theta.tolist(), strict=True))


def prior() -> Calibration:
    """Return what is believed where nothing was measured."""
    hosts = _HOSTS**2 * np.outer(_OF_THE_HOST, _OF_THE_HOST)
    return Calibration(MEDIANS.copy(), np.diag(DEVIATIONS**2) + hosts, _SCATTER.copy())


class _Data(msgspec.Struct, frozen=True):
    """Points, each with its server; equal ones are simulated once: `same` says which."""

    servers: list[Server]
    points: list[Point]
    cycles: np.ndarray
    stacked: Stack
    loads: CoarseLoads
    same: np.ndarray
    logs: np.ndarray
    measured: np.ndarray  # the deviation of a point's measurement itself, where it is known
    noise: np.ndarray  # ... and of what the model does not explain
    share: float  # servers for each point: those of one server go wrong together


def calibrate(measured: Sequence[Measured]) -> Calibration:
    """Return the parameters that explain the points best; without any, the prior.

    It holds for a machine that no point is of, see Calibration.on().

    Raises:
        UsageError: nothing is known of an engine's scheduler.
    """
    # A level in which no answer had two tokens has no TPOT: nothing to compare with.
    measured = [each for each in measured if each.ttft_ms_p50 and each.tpot_ms_p50]
    if not measured:
        return prior()
    data = _data(measured)
    x = np.log(MEDIANS)
    best = (math.inf, x, np.zeros_like(data.logs))
    for turn in range(_MATCHINGS):
        simulated = _matched(data, x)
        residuals = data.logs - simulated[data.same]
        if turn < _MISFIT_TURNS:
            data = msgspec.structs.replace(data, noise=_noise(data.measured, residuals))
            best = (math.inf, x, residuals)
        best = min(best, (_loss(data, residuals, x), x, residuals), key=lambda each: each[0])
        x = _descended(data, simulated - _coarse_logs(data.stacked, data.loads, x), x)
    _, x, residuals = best
    started = _started(data, x)[data.same]
    slopes = _slopes(data.stacked, data.loads, x)[data.same]
    weights = _weights(data, residuals)
    normal = np.einsum("pmi,pm,pmj->ij", slopes, weights, slopes)
    covariance = np.linalg.inv(normal + np.diag(DEVIATIONS**-2.0))
    believed = _SCATTER * np.mean([server.start_spread for server in data.servers])
    scatter = _scatter(residuals, data.logs - started, data.share, believed)
    setups = [setup_of(each) for each in measured]
    says = (weights * (slopes @ _OF_THE_HOST) ** 2).sum(axis=1)
    told = _told(measured, says / says.sum())
    return Calibration(np.exp(x), covariance, scatter, len(measured), setups, told)


def _told(
    measured: Sequence[Measured], shares: np.ndarray
) -> dict[tuple[frozenset[str], str], float]:
    """Return the sum of the points' shares by machine and GPU."""
    found: dict[tuple[frozenset[str], str], float] = {}
    for each, share in zip(measured, shares.tolist(), strict=True):
        key = each.machine, each.gpu.name
        found[key] = found.get(key, 0.0) + share
    return found


def _descended(data: _Data, beyond: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the most probable parameters if the simulation stays as far from the coarse pass.

    The simulation itself is too rough to descend on: a prompt that misses a step by a microsecond
    moves everything after it.
    """

    def residuals_at(place: np.ndarray) -> np.ndarray:
        logs = _coarse_logs(data.stacked, data.loads, place) + beyond
        return np.asarray(data.logs - logs[data.same])

    start, residuals = x, residuals_at(x)
    loss, damping = _loss(data, residuals, x), _DAMPING
    for _ in range(_ROUNDS):
        step = _step(data, residuals, x, damping)
        tried = x + step
        tried = start + np.clip(tried - start, -_MOVE_MAX, _MOVE_MAX)
        found = residuals_at(tried)
        if (new := _loss(data, found, tried)) < loss:
            gained = loss - new
            x, residuals, loss, damping = tried, found, new, damping / 4
            if gained < _GAIN_MIN:
                break
        else:
            damping = damping * 6 + 0.01
    return x


def _step(data: _Data, residuals: np.ndarray, x: np.ndarray, damping: float) -> np.ndarray:
    """Return Levenberg and Marquardt's step, which `damping` shortens."""
    slopes = _slopes(data.stacked, data.loads, x)[data.same]
    weights = _weights(data, residuals)
    normal = np.einsum("pmi,pm,pmj->ij", slopes, weights, slopes) + np.diag(DEVIATIONS**-2.0)
    pull = np.einsum("pmi,pm->i", slopes, weights * residuals)
    pull = pull - (x - np.log(MEDIANS)) / DEVIATIONS**2
    step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), pull)
    return np.asarray(step * min(1.0, _STEP_MAX / max(1e-12, float(np.abs(step).max()))))


def _matched(data: _Data, x: np.ndarray) -> np.ndarray:
    """Simulate each point as its users met it most likely: as they started, in step, or spread."""
    theta = np.exp(x)
    rows = []
    for place, (server, point) in enumerate(zip(data.servers, data.points, strict=True)):
        own, noise = data.logs[data.same == place], data.noise[data.same == place]
        tried = [_simulated(server, way, theta) for way in ways(point, float(data.cycles[place]))]
        costs = [float(np.log1p(((own - row) / noise / _FAR) ** 2).sum()) for row in tried]
        rows.append(tried[int(np.argmin(costs))])
    return np.array(rows)


def _started(data: _Data, x: np.ndarray) -> np.ndarray:
    """Simulate each point as a forecast does that does not know how its users met it."""
    theta = np.exp(x)
    pairs = zip(data.servers, data.points, strict=True)
    return np.array([_simulated(server, point, theta) for server, point in pairs])


def _simulated(server: Server, point: Point, theta: np.ndarray) -> np.ndarray:
    short = msgspec.structs.replace(point, duration_s=min(point.duration_s, _FIT_S))
    seen = simulated_at(server, short, theta, together=False, starts=1)
    return np.log([seen.token_rate, seen.ttft_ms_p50, seen.tpot_ms_p50])


def deviations(
    calibration: Calibration, servers: Sequence[Server], points: Sequence[Point]
) -> np.ndarray:
    """Return the deviation of the logarithm of each of METRICS: a row a point.

    Without any point the parameters are better known of an engine that was measured on its GPU, and
    the host's pace is less known of an engine that was never measured. Points of other machines say
    nothing of how far this one's host is from theirs.
    """
    slopes = _slopes(stack(servers), loads_of(servers, points), np.log(calibration.theta))
    if not calibration.points:
        unknown = np.array([not server.measured for server in servers])
        slopes = slopes * (1 + (_UNMEASURED - 1) * unknown[:, None, None] * _OF_THE_HOST)
    open_ = np.einsum("pmi,ij,pmj->pm", slopes, calibration.covariance, slopes)
    if calibration.points:
        others = np.array([[1 - calibration.own.get(server.gpu, 0.0)] for server in servers])
        open_ = open_ + (_OTHER_HOSTS * others * (slopes @ _OF_THE_HOST)) ** 2
    else:
        open_ = open_ * np.where([[server.seen] for server in servers], _SEEN, 1.0)
    spread = np.array([[server.start_spread] for server in servers])
    scatter = calibration.scatter * (1.0 if calibration.points else spread)
    return np.asarray(np.sqrt(open_ + scatter**2))


def setup_of(measured: Measured) -> Setup:
    """Return the server of a measured point."""
    return Setup(
        measured.engine,
        measured.shape,
        measured.gpu,
        config=measured.config,
        batches=measured.batches,
    )


def point_of(measured: Measured) -> Point:
    """Return the load of a measured point."""
    return Point(
        users=measured.users,
        request_rate=measured.request_rate,
        isl=Lengths("fixed", measured.isl),
        osl=Lengths("fixed", measured.osl),
        cached_share=measured.cached_share or 0.0,
        duration_s=measured.duration_s or 20.0,
        ramp_s=measured.ramp_s,
    )


def _data(measured: Sequence[Measured]) -> _Data:
    places: dict[bytes, int] = {}
    configs: set[bytes] = set()
    servers, points, same = [], [], []
    for each in measured:
        setup, point = setup_of(each), point_of(each)
        rough = msgspec.structs.replace(
            point,
            isl=Lengths("fixed", round(each.isl / _SAME_TOKENS)),
            cached_share=round(point.cached_share, 1),
            duration_s=round(min(point.duration_s, _FIT_S) / _SAME_S),
        )
        config = msgspec.json.encode(
            (
                setup.engine,
                sorted(setup.config.items()),
                setup.gpu.name,
                setup.shape,
                setup.batches,
            )
        )
        configs.add(config)
        key = config + msgspec.json.encode(rough)
        if key not in places:
            places[key] = len(places)
            servers.append(server_of(setup))
            points.append(point)
        same.append(places[key])
    logs = np.log(
        [[m.token_rate, m.ttft_ms_p50 or math.nan, m.tpot_ms_p50 or math.nan] for m in measured]
    )
    own = np.zeros_like(logs)
    for row, each in enumerate(measured):
        if each.token_rate_ci:
            low, high = each.token_rate_ci
            if 0 < low < high:
                own[row, 0] = np.log(high / low) / (2 * 1.96)
    cycles = [
        ((each.ttft_ms_p50 or 0.0) + (each.tpot_ms_p50 or 0.0) * each.osl) / 1e3
        for place in range(len(points))
        for each in [measured[same.index(place)]]
    ]
    return _Data(
        servers=servers,
        points=points,
        cycles=np.array(cycles),
        stacked=stack(servers),
        loads=loads_of(servers, points),
        same=np.array(same, int),
        logs=logs,
        measured=own,
        noise=np.maximum(own, _MISFIT),
        share=len(configs) / len(measured),
    )


def _noise(measured: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Return the deviation of each residual that is to be expected.

    It is that of all residuals of a metric: a few that lie far off, as a TTFT that had its other
    answer, do not widen it.
    """
    count = len(residuals)
    seen = _NORMAL * np.median(np.abs(residuals), axis=0)
    total = _MISFIT_WEIGHT * _MISFIT**2 + count * seen**2
    return np.asarray(np.maximum(measured, np.sqrt(total / (_MISFIT_WEIGHT + count))))


def _weights(data: _Data, residuals: np.ndarray) -> np.ndarray:
    far = residuals / (data.noise * _FAR)
    return np.asarray(data.share / (data.noise**2 * (1 + far**2)))


def _loss(data: _Data, residuals: np.ndarray, x: np.ndarray) -> float:
    far = residuals / (data.noise * _FAR)
    prior_part = (((x - np.log(MEDIANS)) / DEVIATIONS) ** 2).sum()
    return float(data.share * _FAR**2 * np.log1p(far**2).sum() + prior_part)


def _scatter(
    matched: np.ndarray, started: np.ndarray, share: float, believed: np.ndarray = _SCATTER
) -> np.ndarray:
    """Return the scatter that forecasts will have, from what is believed and two residuals.

    A forecast does not know which way its users will meet the server, so rate and TPOT scatter as
    the points as started do. TTFT's other answers are told as a range of their own.
    """
    servers = share * len(matched)
    seen = (started**2).mean(axis=0)
    seen[1] = (matched[:, 1] ** 2).mean()
    total = _SCATTER_WEIGHT * believed**2 + servers * seen
    return np.asarray(np.sqrt(total / (_SCATTER_WEIGHT + servers)))


def _coarse_logs(servers: Stack, loads: CoarseLoads, x: np.ndarray) -> np.ndarray:
    """Return the logarithms of METRICS: (point, 3); of several x, (9, several): one more before."""
    answer = solve(servers, loads, np.exp(x)[..., None])
    return np.asarray(
        np.log(np.stack([answer.token_rate, answer.ttft_s * 1e3, answer.tpot_s * 1e3], axis=-1))
    )


def _slopes(servers: Stack, loads: CoarseLoads, x: np.ndarray) -> np.ndarray:
    """Return how the logarithms of METRICS change with those of the parameters: (point, 3, 9)."""
    tried = x[:, None] + _DIFFERENCE * np.eye(len(x), len(x) + 1, 1)  # as it is, and each moved
    base, *moved = _coarse_logs(servers, loads, tried)
    return np.stack([(each - base) / _DIFFERENCE for each in moved], axis=-1)
