"""Capacity: the highest load that still meets the SLO, found by measuring where it may lie.

A level's margin is ln(value ÷ limit) of the SLO that is furthest from being met: below 0 it is met.
Margins are noisy, so one missed level proves nothing, and bisection, which never looks back, may
walk off for good. Here the load first doubles until levels lie on both sides; every next one is
drawn from the interval in which the crossing may be. The estimate is where an isotonic fit (pool
adjacent violators: all that is assumed is that more load is never better) crosses 0. The interval
inverts a test that assumes no more: a load is too high once the levels next below it have missed by
more than noise, and too low once those next above have met it, however many one takes together.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, FAILED, LAG_PERIOD_S
from llmdyno.results import client_health, stats, streams
from llmdyno.results.facts import LevelFacts
from llmdyno.results.measures import measures, series
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import Slo, failed_beyond, judge
from llmdyno.results.stats import STATISTICS, Floats
from llmdyno.results.window import steady_window
from llmdyno.results.wording import short
from llmdyno.units import counted

MARGIN_MAX = 2.5  # a factor of 12; a level further off says no more, and must not weigh more
_TOLERANCE = 0.1  # the interval is narrow when it is this share of the load
_POINTS_MIN = 6
# How many standard errors are more than noise, over all the sums that the test looks at: chosen by
# simulation (tests/results/test_capacity.py).
_NOISE_MAX = 2.6
_NEIGHBOURS = 1.1  # loads this near to one another tell the noise by their difference


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measured level: its load, and how far it is from the SLO."""

    load: float
    margin: float  # ln(value ÷ limit); below 0 the SLO is met
    sd: float  # standard deviation of the margin, estimated within the level


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The highest load that meets the SLO, with its 95 % interval."""

    load: float | None  # None: not even the lowest that was measured meets it
    low: float
    high: float | None  # None: nothing shows that a higher load would not
    points: tuple[Measured, ...]

    def is_narrow(self, step: float) -> bool:
        """Tell whether the interval is so narrow that further levels are not worth their time.

        An interval no wider than `step` (users or requests per second) always is.
        """
        if self.load is None or self.high is None or len(self.points) < _POINTS_MIN:
            return False
        return self.high - self.low <= max(step, _TOLERANCE * self.load)


def isotonic(values: Floats) -> Floats:
    """Return the rising sequence nearest to values, by least squares (pool adjacent violators)."""
    means: list[float] = []
    counts: list[int] = []
    for value in values:
        means.append(float(value))
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            count = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / count]
            counts[-2:] = [count]
    return np.repeat(means, counts)


def capacity(points: Sequence[Measured], *, whole: bool) -> Capacity:
    """Return what the measured levels say of the highest load that meets the SLO.

    Args:
        points: the levels, in any order.
        whole: loads are whole numbers (users), so the highest one that meets it is one, too.
    """
    ordered = sorted(points, key=lambda point: point.load)
    margins = np.clip([point.margin for point in ordered], -MARGIN_MAX, MARGIN_MAX)
    loads = np.array([point.load for point in ordered])
    found = _crossing(loads, margins)
    noise = _NOISE_MAX * _noise(ordered, margins)
    # Levels that missed the SLO are tested from below. Those that met it are tested from above, by
    # the same function with the order and the signs reversed.
    missed = _proven(margins, noise)
    met = _proven(-margins[::-1], noise)[::-1]
    low = float(loads[met].max()) if met.any() else 0.0
    high = float(loads[missed].min()) if missed.any() else None
    if whole and high is not None:
        high -= 1
    if found is not None:
        found = float(math.floor(found)) if whole else found
        low = min(low, found)
        high = high if high is None else max(high, found)
    return Capacity(load=found, low=low, high=high, points=tuple(points))


class CapacitySearch:
    """Chooses which load to measure next, to find the highest that meets the SLO.

    Args:
        first: the load to begin with, in users or requests per second.
        whole: loads are whole numbers (users).
        seed: of the random draws.
    """

    def __init__(self, first: float, *, whole: bool, seed: int = 0) -> None:
        self._first = first
        self._whole = whole
        self._rng = np.random.default_rng(seed)
        self.points: list[Measured] = []

    def add(self, point: Measured) -> None:
        """Take in a measured level; next_load() then counts with it."""
        self.points.append(point)

    def next_load(self) -> float | None:
        """Return the next load to measure; None when there is nothing left to learn."""
        if not self.points:
            return self._first
        met = [point.load for point in self.points if point.margin < 0]
        missed = [point.load for point in self.points if point.margin >= 0]
        if not missed:
            return 2 * max(met)
        if not met:
            lowest = min(missed)
            if (self._whole and lowest <= 1) or lowest < self._first / 1000:
                return None
            return max(1.0, lowest // 2) if self._whole else lowest / 2
        found = capacity(self.points, whole=self._whole)
        if found.is_narrow(1.0 if self._whole else 0.0):
            return None
        high = max(missed) if found.high is None else found.high
        middle = min(max(found.load or found.low, found.low), high)
        drawn = float(self._rng.triangular(found.low, middle, high + 1e-9))
        return max(1.0, float(round(drawn))) if self._whole else drawn


def search_document(levels: Sequence[LevelFacts], slos: Sequence[Slo]) -> dict[str, Any]:
    """Return the highest load that meets the SLOs, by all levels of a search, for the summary."""
    whole = levels[0].started.users is not None
    points = [measured_point(facts, slos) for facts in levels]
    return capacity_document(capacity(points, whole=whole), whole=whole)


def capacity_document(found: Capacity, *, whole: bool) -> dict[str, Any]:
    """Return a capacity as the summary has it.

    The load stands under "users" or "rate" (requests per second); "points" has, for each level, the
    value as a share of the SLO's limit.
    """
    name = "users" if whole else "rate"
    return {
        name: found.load,
        "ci95": [found.low, found.high],
        "points": [
            {"load": point.load, "value_to_limit": round(math.exp(point.margin), 4)}
            for point in found.points
        ],
    }


def measured_point(facts: LevelFacts, slos: Sequence[Slo]) -> Measured:
    """Return how far a level is from meeting its SLOs: that of the one it is furthest from."""
    started, columns = facts.started, facts.columns
    window = steady_window(facts)
    measured = measures([(columns, window)], slos, is_open=started.users is None)
    answered = int(np.count_nonzero(columns.outcome == COMPLETED))
    late_ms_p50 = client_health.lateness(facts.ticks, LAG_PERIOD_S).p50
    stream = streams.stream_part(columns, late_ms_p50, asked_tokens=None)
    if streams.comes_whole(stream, answered):
        measured = streams.without_token_times(measured, slos)
    failed = int(np.count_nonzero(columns.outcome == FAILED))
    measured["requests"] = {"completed": answered, "failed": failed}
    margin, sd = max(_margin(measured, columns, window, slo) for slo in slos)
    load = started.rate if started.users is None else started.users
    assert load is not None, "a search has users or a rate"
    return Measured(load=float(load), margin=margin, sd=sd)


def _margin(
    measured: Mapping[str, Any], columns: Columns, window: Window, slo: Slo
) -> tuple[float, float]:
    """Return ln(value / limit), above 0 when the SLO is missed, and its standard deviation."""
    value = judge(slo, measured).value
    if not value or failed_beyond(slo, measured) is not None:  # what refuses requests is quick
        return MARGIN_MAX, 0.0
    margin = float(np.log(value / slo.limit))
    if BY_NAME[slo.metric].counts_requests:  # they come by chance: the count's own deviation
        sd = 1 / max(1.0, value * window.length_s) ** 0.5
    else:
        observed = series(slo.metric, columns, window)
        sd = float(stats.bootstrap(observed, STATISTICS[slo.stat].over_time).std()) / value
    return (margin if slo.relation == "<" else -margin), sd


def says_capacity(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what a search for the highest load found."""
    found = summary["capacity"]
    unit = "users" if "users" in found else "requests/s"
    load, (low, high) = found.get("users", found.get("rate")), found["ci95"]
    slos = ", ".join(slo["expr"] for slo in summary["spec"]["slos"])
    levels = counted(len(found["points"]), "level")
    if load is None:
        return f"Capacity: not even the lowest load measured met {slos} ({levels})."
    said = "1 user" if (load, unit) == (1, "users") else f"{short(load)} {unit}"
    if high is None:
        return (
            f"Capacity: {said} or more meet {slos}, at least {short(low)}; that more"
            f" would not is not shown ({levels})."
        )
    meet = "meets" if load == 1 else "meet"
    interval = f"95 % interval {short(low)} to {short(high)}"
    return f"Capacity: {said} {meet} {slos}; {interval} ({levels})."


def _crossing(loads: Floats, margins: Floats) -> float | None:
    """Return where the isotonic fit crosses 0: the highest load if it stays below, else None."""
    distinct, places, counts = np.unique(loads, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=margins) / counts
    # A load that was measured n times weighs n times.
    fitted = isotonic(np.repeat(means, counts))[np.cumsum(counts) - 1]
    above = int(np.searchsorted(fitted, 0.0, side="left"))
    if above == 0:
        return None
    if above == len(distinct):
        return float(distinct[-1])
    share = -fitted[above - 1] / (fitted[above] - fitted[above - 1])
    return float(distinct[above - 1] + share * (distinct[above] - distinct[above - 1]))


def _noise(points: Sequence[Measured], margins: Floats) -> float:
    """Return how much equal levels differ: the noise within them, or more if they differ by more.

    Between runs: from the differences of neighbours (Rice 1984), to which the curve's own slope can
    only add.
    """
    near = np.abs(margins) < 1.0
    within = np.array([point.sd for point in points])[near]
    differences = [
        (margins[i + 1] - margins[i]) ** 2 / 2
        for i in range(len(points) - 1)
        if near[i] and near[i + 1] and points[i + 1].load <= _NEIGHBOURS * points[i].load
    ]
    between = 0.0
    if n := len(differences):  # few of them may be small by luck, as Student's t allows for
        between = math.sqrt(sum(differences) / n) * (1 + 3 / n)
    return max(between, float(np.sqrt((within**2).mean())) if len(within) else 0.0)


def _proven(margins: Floats, noise: float) -> NDArray[np.bool_]:
    """Tell for each level whether it and those before it are above 0 by more than noise.

    Any number of levels next to it may be what shows it; the mean of n is n^(1/2) times as sure.
    """
    proven = np.zeros(len(margins), dtype=bool)
    for last in range(len(margins)):
        sums = np.cumsum(margins[last::-1])
        proven[last] = bool((sums > noise * np.sqrt(np.arange(1, last + 2))).any())
    return proven
