"""What a trial must be able to reach to win, and whether it still can, by what has come so far."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from llmdyno.load.progress import Progress
from llmdyno.records.columns import Collector
from llmdyno.records.entries import Record
from llmdyno.results import wording
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.racing import Bound, Flow, Sample
from llmdyno.results.stats import STATISTICS, Floats
from llmdyno.results.wording import short
from llmdyno.spec import Load
from llmdyno.wire.exchange import Meter

_MILLION, _HOUR_S = 1e6, 3600.0
# Rates that what comes a second bounds: by tokens, or by requests that were completed. Of the
# completed ones only some count for goodput, so it is never more.
TOKENS, REQUESTS = {"token_rate"}, {"request_rate", "goodput"}
COSTS = {"cost_per_million_output"}


class Goal(Protocol):
    """One thing that a trial must reach."""

    def take(
        self, at_s: float, progress: Progress, meter: Meter, records: Sequence[Record]
    ) -> None:
        """Take what has come; `records` are the requests completed since the last time."""

    def bound(self) -> Bound | None:
        """Return what is bounded; None: too little has come to say it."""

    def missed(self, bound: Bound) -> str:
        """Say why it cannot be reached any more; empty if it can."""

    def interval(self, bound: Bound) -> tuple[float, float] | None:
        """Return the interval of the metric; None: the bound is of something else."""


class RateGoal:
    """A rate or a cost that a trial must reach.

    Args:
        metric: its name.
        limit: in its unit; a trial is out if it stays below, of a cost above.
        beside: what it is compared with, in words.
        load: of the trial.
        price_per_h: of the machine, for a cost.
    """

    def __init__(
        self, metric: str, limit: float, beside: str, load: Load, price_per_h: float | None
    ) -> None:
        self._metric = BY_NAME[metric]
        self._limit, self._beside = limit, beside
        self._flow = Flow(load.effective_ramp_s, load.duration_s)
        self._price_s = None if metric not in COSTS else (price_per_h or 0.0) / _HOUR_S * _MILLION

    def take(
        self,
        at_s: float,
        progress: Progress,
        meter: Meter,
        records: Sequence[Record],  # noqa: ARG002  # every goal takes the same
    ) -> None:
        """Take the counts of tokens and requests."""
        came: float = progress.completed
        if self._metric.name not in REQUESTS:
            if not progress.reads:  # how many tokens a read brings is not known yet
                return
            under_way = max(0, meter.reads - progress.reads)
            came = progress.tokens + under_way * progress.tokens / progress.reads
        ended = progress.completed + progress.failed
        self._flow.add(Sample(at_s, came, at_s, ended, progress.in_flight))

    def bound(self) -> Bound | None:
        """Return the bound of what comes a second."""
        return self._flow.bound()

    def missed(self, bound: Bound) -> str:
        """Say what the rate is at most, or the cost at least, if that is not enough."""
        low, high = self._in_unit(bound)
        name, unit = self._metric.short, self._metric.unit
        if self._metric.better == "higher":
            return (
                "" if high >= self._limit else f"{name} {short(high)} {unit} at most{self._beside}"
            )
        return "" if low <= self._limit else f"{name} {short(low)} at least{self._beside}"

    def interval(self, bound: Bound) -> tuple[float, float] | None:
        """Return between what the metric lies, if all that comes counts for it."""
        return None if self._metric.needs_slo else self._in_unit(bound)

    def _in_unit(self, bound: Bound) -> tuple[float, float]:
        low = max(0.0, bound.low)
        if self._price_s is None:
            return low, bound.high
        return self._price_s / max(bound.high, 1e-9), self._price_s / max(low, 1e-9)


class LatencyGoal:
    """A latency of requests that a trial must stay below: their mean, or a quantile.

    Of a quantile it is bounded how large a share of the requests takes longer. Requests that are
    under way do not count: they are the longer ones, so the bound is on the safe side.

    Args:
        metric: its name; requests have it one by one.
        stat: mean, p50, p90, p95, p99.
        limit: in ms.
        beside: what it is compared with, in words.
        load: of the trial.
    """

    def __init__(self, metric: str, stat: str, limit: float, beside: str, load: Load) -> None:
        self._metric, self._share = BY_NAME[metric], STATISTICS[stat].share
        self._limit, self._beside = limit, beside
        self._flow = Flow(load.effective_ramp_s, load.duration_s)
        self._sum = self._count = 0.0

    def take(
        self,
        at_s: float,
        progress: Progress,
        meter: Meter,  # noqa: ARG002  # every goal takes the same
        records: Sequence[Record],
    ) -> None:
        """Take the latencies of the requests that were completed."""
        values = self._values(records)
        values = values[~np.isnan(values)]
        self._count += len(values)
        self._sum += float(values.sum() if self._share is None else (values > self._limit).sum())
        ended = progress.completed + progress.failed
        self._flow.add(Sample(at_s, self._sum, self._count, ended, progress.in_flight))

    def _values(self, records: Sequence[Record]) -> Floats:
        assert self._metric.of_request is not None
        if not records:
            return np.zeros(0)
        collector = Collector()
        for record in records:
            collector.add(record)
        return self._metric.of_request(collector.columns())

    def bound(self) -> Bound | None:
        """Return the bound of the mean (ms), or of the share that takes longer than the limit."""
        return self._flow.bound(is_share=self._share is not None)

    def missed(self, bound: Bound) -> str:
        """Say what the mean is at least, or how many take longer, if that is too much."""
        name = self._metric.short
        if self._share is None:
            missed = bound.low > self._limit
            return f"mean {name} {short(bound.low)} ms at least{self._beside}" if missed else ""
        if bound.low <= 1 - self._share:
            return ""
        return (
            f"{name} above {short(self._limit)} ms in {wording.share(bound.low, 1)} of requests"
            " at least"
            f"{self._beside}"
        )

    def interval(self, bound: Bound) -> tuple[float, float] | None:
        """Return between what the mean lies; None: a quantile's share does not tell."""
        return None if self._share is not None else (max(0.0, bound.low), bound.high)


def goal(
    metric: str, stat: str, limit: float, beside: str, load: Load, price_per_h: float | None
) -> Goal | None:
    """Return a goal; None: the metric has no bound before a run's end.

    Args:
        metric: its name.
        stat: its statistic.
        limit: in its unit.
        beside: what it is compared with, in words; it ends a sentence.
        load: of the trial.
        price_per_h: of the machine; None: it is not known.
    """
    if metric in TOKENS | REQUESTS | COSTS:
        return RateGoal(metric, limit, beside, load, price_per_h)
    if BY_NAME[metric].of_request is not None and STATISTICS[stat].share != 1.0:
        return LatencyGoal(metric, stat, limit, beside, load)
    return None
