"""A load as `dyno bench` would send it, simulated: several starts, and what came of them."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from llmdyno.errors import UsageError
from llmdyno.load.arrivals import due_times_s
from llmdyno.predict.asking import sessions
from llmdyno.predict.coarse import CoarseLoads, solve, stack, under_way
from llmdyno.predict.rules import Ask, Happened
from llmdyno.predict.rules import Load as Asked
from llmdyno.predict.server import Server
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import StepTime
from llmdyno.spec import Load, Workload
from llmdyno.units import Lengths, percent

_DRAWN_FOR = 2.0  # so many times the duration, of which as many arrivals are taken as are expected
# Users fall out of step over minutes, and a queue near saturation grows to a level's end. What was
# left out beyond: benchmarks/predictor/README.md, "Long levels".
CLOSED_S, OPEN_S = 120.0, 600.0
_WAY_S = 30.0  # of the other ways to start
STARTS_S = 90.0  # of a closed loop's starts together: a long one needs no other
_SERVED = 3.0  # times what the coarse pass says: more are not served in a level
_ASKED_LEAST = 8  # requests of an open loop, however rare: without one there is no answer
_RAMP_S = 2.0
_TOGETHER_S = 0.05  # within which users who start at once ask: a request takes some way
_STARTS = 3  # simulations of a closed loop whose users start at other moments
_TWO_ANSWERS = 1.5  # TTFTs that differ by so much are two answers


class Point(msgspec.Struct, frozen=True):
    """A load: users in a closed loop, or requests a second.

    Attributes:
        cached_share: of the prompts' tokens, what a prefix cache holds.
        ramp_s: None: as `dyno bench` does, at most 2 s or a quarter of the duration.
        workload: where it is given, its own prompts are simulated, and a prefix cache finds out
            itself what it holds; `isl`, `osl` and `cached_share` say the same for the coarse pass.
    """

    users: int | None = None
    request_rate: float | None = None
    arrival: str = "poisson"
    isl: Lengths = Lengths("fixed", 128)
    osl: Lengths = Lengths("fixed", 128)
    cached_share: float = 0.0
    duration_s: float = 60.0
    seed: int = 0
    ramp_s: float | None = None
    workload: Workload | None = None

    def check(self) -> None:
        """Refuse what is no load.

        Raises:
            UsageError: names the field, the value and what would be right.
        """
        if (self.users is None) == (self.request_rate is None):
            raise UsageError("a load to predict: give either users or a request rate.")
        if self.users is not None and self.users < 1:
            raise UsageError(f"-c {self.users}: each level needs 1 user or more.")
        if self.request_rate is not None and not 0 < self.request_rate < float("inf"):
            raise UsageError(f"--request-rate {self.request_rate:g}: must be above 0.")
        if not 0 <= self.cached_share <= 1:
            raise UsageError(f"cached share {percent(self.cached_share)}: must be from 0% to 100%.")
        if not 0 < self.duration_s < float("inf"):
            raise UsageError(f"--duration {self.duration_s:g}: must be above 0.")


class Simulated(msgspec.Struct, frozen=True):
    """Means over simulations; `ttfts_ms` are the p50 of each."""

    token_rate: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    tpot_ms_p50: float
    e2e_ms_p50: float
    ttfts_ms: tuple[float, ...]
    rates: tuple[float, ...]
    tpots_ms: tuple[float, ...]
    happened: Happened
    window_s: float


def simulated_at(
    server: Server, point: Point, theta: np.ndarray, *, together: bool, starts: int = _STARTS
) -> Simulated:
    """Return the mean of several simulations.

    Args:
        server: what is asked.
        point: the load.
        theta: the parameters, in the order of steptime.PRIORS.
        together: simulate users in step and users spread evenly over a request, too: only their
            TTFT counts, as other answers.
        starts: simulations of a closed loop at most, fewer of a long one; an open loop's arrivals
            are drawn once.
    """
    time = step_time(server, point, theta)
    fill_s, last_s = 0.0, math.inf
    if point.request_rate is not None:
        fill_s, used = _in_rest(server, point, theta)
        # Who comes later is not served in the level, by a server that serves in turn.
        last_s = point.duration_s * min(1.0, _SERVED / used)
    few = max(1, round(STARTS_S / min(point.duration_s, CLOSED_S)))
    loads = [
        asked(server, point, start, fill_s, last_s)
        for start in range(min(starts, few) if point.users is not None else 1)
    ]
    runs = [simulate(server.rules, time, load) for load in loads]
    window_s = loads[0].duration_s - loads[0].window_s
    rows = np.array([_row(run, window_s) for run in runs])
    mean = np.exp(np.log(rows).mean(axis=0)).tolist()
    ttfts, rates, tpots = rows[:, 1].tolist(), rows[:, 0].tolist(), rows[:, 3].tolist()
    if together:
        short = msgspec.structs.replace(point, duration_s=min(point.duration_s, _WAY_S))
        for way in ways(short, mean[4] / 1e3)[1:]:
            load = asked(server, way, 0)
            row = _row(simulate(server.rules, time, load), load.duration_s - load.window_s)
            if not 1 / _TWO_ANSWERS < row[1] / mean[1] < _TWO_ANSWERS:
                ttfts.append(row[1])
    return Simulated(
        token_rate=mean[0],
        ttft_ms_p50=mean[1],
        ttft_ms_p99=mean[2],
        tpot_ms_p50=mean[3],
        e2e_ms_p50=mean[4],
        ttfts_ms=tuple(ttfts),
        rates=tuple(rates),
        tpots_ms=tuple(tpots),
        happened=runs[0],
        window_s=window_s,
    )


def step_time(server: Server, point: Point, theta: np.ndarray) -> StepTime:
    """Return how long steps take under a load; `theta` has the order of steptime.PRIORS."""
    time = StepTime(server.work, server.graphs, theta.tolist())
    if point.request_rate is not None and server.work.batches > 1:
        found = solve(stack([server]), loads_of([server], [point]), theta[:, None])
        time.batches = float(under_way(server.work.batches, found.running[0]))
    return time


def _row(run: Happened, window_s: float) -> list[float]:
    """Return token rate, TTFT p50 and p99, TPOT p50 and E2E p50; what never happened is long."""
    ttft = np.array(run.ttft_s or [window_s]) * 1e3
    tpot = np.array(run.tpot_s or [run.busy_s / max(run.steps, 1e-9) or window_s]) * 1e3
    e2e = np.array(run.e2e_s or [window_s]) * 1e3
    return [
        max(run.tokens, 1e-3) / window_s,
        float(np.median(ttft)),
        float(np.percentile(ttft, 99)),
        float(np.median(tpot)),
        float(np.median(e2e)),
    ]


def _at_its_rate(due_s: list[float], duration_s: float, expected: float) -> list[float]:
    """Return arrivals in a duration, moved a little so that there are as many as are expected.

    What is predicted is the rate that was asked, not the luck of one draw.
    """
    count = round(expected)
    if not 0 < count < len(due_s):
        return [moment_s for moment_s in due_s if moment_s < duration_s]
    stretch = duration_s / due_s[count]
    return [moment_s * stretch for moment_s in due_s[:count]]


def ways(point: Point, cycle_s: float) -> list[Point]:
    """Return a point as users may meet it: as they start, all in step, spread over a request.

    Users who end together ask together again, and stay so for minutes: one config has several
    answers. In an open loop there is one.
    """
    if point.users is None:
        return [point]
    spread_s = min(cycle_s, 0.4 * point.duration_s)
    return [point, *(msgspec.structs.replace(point, ramp_s=ramp_s) for ramp_s in (0.0, spread_s))]


def _in_rest(server: Server, point: Point, theta: np.ndarray) -> tuple[float, float]:
    """Return by the coarse pass the seconds from a request to its last token, and how much it is.

    That is the load as a share of what the server can take.
    """
    found = solve(stack([server]), loads_of([server], [point]), theta[:, None])
    request_s = found.ttft_s[0] + (point.osl.typical - 1) * found.tpot_s[0]
    return float(request_s), max(1e-9, float(found.used[0]))


def asked(
    server: Server, point: Point, start: int, fill_s: float = 0.0, last_s: float = math.inf
) -> Asked:
    """Return the load of a point as `dyno bench` would send it.

    Args:
        server: what is asked.
        point: the load.
        start: draws other moments.
        fill_s: how long an open loop takes until as many requests end as begin: `dyno bench` counts
            from there on.
        last_s: nobody comes to an open loop later than that.
    """
    rng = random.Random(f"predict/{point.seed}/{start}")
    duration_s = min(point.duration_s, CLOSED_S if point.users is not None else OPEN_S)
    if point.request_rate is not None:
        duration_s = max(duration_s, _ASKED_LEAST / point.request_rate)
    ramp_s = point.ramp_s
    if point.users is not None:
        ramp_s = _closed_ramp_s(point, duration_s)
        shift = [rng.random() if start else 0.0 for _ in range(point.users)]
        starts = [(user + late) * ramp_s / point.users for user, late in enumerate(shift)]
        count = 512
    else:
        assert point.request_rate is not None
        ramp_s = 0.0 if ramp_s is None else ramp_s
        comes_s = max(min(duration_s, last_s), ramp_s, _ASKED_LEAST / point.request_rate)
        load = Load(
            users=(1,),
            arrival=point.arrival,
            rates=(point.request_rate,),
            duration_s=_DRAWN_FOR * comes_s,
            ramp_s=ramp_s,
        )
        drawn = due_times_s(load, point.request_rate, f"{point.seed}/{start}")
        starts = _at_its_rate(drawn, comes_s, point.request_rate * (comes_s - ramp_s / 2))
        count = len(starts) or 1
    own = None if point.workload is None else _own(point, point.workload, server)
    if own is None:
        asks = _drawn(point, server, count, rng)
    else:  # in an open loop no turn follows an answer
        asks = [] if point.users is not None else [turns[0] for turns in islice(own, count)]
    return Asked(
        asks=asks,
        starts_s=starts,
        closed=point.users is not None,
        duration_s=duration_s,
        window_s=_window_s(
            ramp_s + fill_s, ramp_s, duration_s, bursts=server.rules.wakes is not None
        ),
        sessions=own if point.users is not None else None,
    )


def _window_s(settled_s: float, ramp_s: float, duration_s: float, *, bursts: bool) -> float:
    """Return from when on `dyno bench` counts: no more than half of a level is ever left out.

    Where tokens come in bursts and have not settled by then, it finds nothing to leave out but the
    ramp: the bursts are wider than what the rate has grown by (evidence/lmdeploy-stages).
    """
    if bursts and settled_s > duration_s / 2:
        return min(ramp_s, duration_s / 2)
    return min(settled_s, duration_s / 2)


def _drawn(point: Point, server: Server, count: int, rng: random.Random) -> list[Ask]:
    """Return requests of a point's lengths, of which the prefix cache holds what it says."""
    share = point.cached_share if server.prefix_cache else 0.0
    asks = []
    for _ in range(count if point.isl.shape != "fixed" or point.osl.shape != "fixed" else 1):
        prompt, answer = point.isl.draw(rng), point.osl.draw(rng)
        asks.append(Ask(prompt, round(share * prompt), answer))
    return asks


def _own(point: Point, workload: Workload, server: Server) -> Iterator[Sequence[Ask]]:
    """Return the sessions of a point's workload; without a prefix cache nothing is found again."""
    stream = f"{point.users or point.request_rate:g}"
    for turns in sessions(workload, stream, server.rules.block):
        if server.prefix_cache:
            yield turns
        else:
            yield [msgspec.structs.replace(ask, blocks=()) for ask in turns]


def loads_of(servers: Sequence[Server], points: Sequence[Point]) -> CoarseLoads:
    """Return points as the coarse pass needs them, one for each server."""

    def column(values: Sequence[Any]) -> np.ndarray:
        return np.array(values, float)

    shares = [
        point.cached_share if server.prefix_cache else 0.0
        for server, point in zip(servers, points, strict=True)
    ]
    prompt = column([point.isl.typical for point in points])
    return CoarseLoads(
        users=column([point.users or 0 for point in points]),
        rate=column([point.request_rate or 0 for point in points]),
        prompt=prompt,
        uncached=np.maximum(1.0, prompt * (1 - column(shares))),
        answer=np.maximum(2.0, column([point.osl.typical for point in points])),
        duration_s=column([point.duration_s for point in points]),
        together_s=column([_together_s(point) for point in points]),
    )


def _together_s(point: Point) -> float:
    """Return in how many seconds users ask anew; inf: at any time."""
    if point.users is None or point.osl.shape != "fixed":
        return math.inf
    return max(_TOGETHER_S, _closed_ramp_s(point, min(point.duration_s, CLOSED_S)))


def _closed_ramp_s(point: Point, duration_s: float) -> float:
    """Return in how many seconds the users of a closed loop start."""
    return min(_RAMP_S, duration_s / 4) if point.ramp_s is None else point.ramp_s
