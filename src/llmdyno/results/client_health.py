"""The client's own health on a level: was it the server that was measured, or the client?

Two things spoil a number: the client was late to look (then latencies hold its own delay), or it
was at its own limit (then the server could have done more). Both are judged against the numbers
themselves: 12 ms of lateness is nothing to a TTFT of two seconds and everything to one of 20 ms. So
a busy machine alone raises no alarm, and each metric that is spoilt is named.

Where a level is spread over workers, CPU time is that of all of them, and of what shows whether the
client could keep up (lateness, share of a core, headroom) the worst worker counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno.records.columns import Columns
from llmdyno.records.entries import Tick
from llmdyno.results import wording
from llmdyno.results.metrics import BY_NAME, GAP_BOUNDS, latencies
from llmdyno.results.quantiles import linear, median
from llmdyno.results.stats import Array, Floats, significant

# Beyond these the client is at its limit.
CPU_SHARE_MAX = 0.9  # of a core, over a second
CPU_BUSY_TIME_MAX = 0.1  # of the level spent above it
HEADROOM_MIN = 1.25  # its ceiling over the level's peak, in events a second

_COALESCED_MAX = 0.25  # of the reads carry more tokens than is usual, while the loop is late


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How late the client looked at what arrived, in ms."""

    lag_p99: float  # of the wake-ups themselves, as sampled
    p50: float
    p99: float

    def at(self, stat: str) -> float:
        """Return the lateness at "p50" or "p99"."""
        return self.p99 if stat == "p99" else self.p50


def lateness(ticks: Sequence[Tick], period_s: float) -> Lateness:
    """Derive from the sampled wake-ups how late the client was with what arrives at any moment.

    A sample says that the loop slept `period_s` and woke up L late. What arrives while the loop
    sleeps is seen as late as a wake-up is: the samples' own quantile. What arrives while the loop
    is held up for L waits for the rest of L; of all time, sum(max(0, L - d)) is spent more than d
    before the loop is free again. One long stall hardly shows among thousands of samples, but all
    that arrived in it was late. The larger of the two is taken.
    """
    lags_ms = np.array([lag for tick in ticks for lag in tick.loop_lags_us]) / 1e3
    if not len(lags_ms):
        return Lateness(lag_p99=0.0, p50=0.0, p99=0.0)
    p50, p99 = map(float, linear(lags_ms, (0.5, 0.99)))
    time_ms = float(lags_ms.sum()) + period_s * 1e3 * len(lags_ms)
    return Lateness(
        lag_p99=p99,
        p50=max(p50, _stalled_ms(lags_ms, 0.5 * time_ms)),
        p99=max(p99, _stalled_ms(lags_ms, 0.01 * time_ms)),
    )


def _stalled_ms(lags_ms: Floats, allowed_ms: float) -> float:
    """Return d such that sum(max(0, lag - d)) is what is allowed; 0 if all the lags are less."""
    longest = np.sort(lags_ms)[::-1]
    sums = np.cumsum(longest)
    if sums[-1] <= allowed_ms:
        return 0.0
    # With the k longest above d: sum of them - k d = allowed.
    candidates = (sums - allowed_ms) / np.arange(1, len(longest) + 1)
    return float(candidates.max())


def client_part(
    columns: Columns,
    ticks: Sequence[Tick],
    measured: Mapping[str, Any],
    *,
    duration_s: float,
    lag_period_s: float,
    workers: int = 1,
    events_per_s_max: float | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the level's `client` and `doubtful`: how the client did, and what that spoils."""
    by_worker = [[tick for tick in ticks if tick.worker == number] for number in range(workers)]
    late = _worst([lateness(own, lag_period_s) for own in by_worker])
    cpu_s = [max((tick.cpu_s for tick in own), default=0.0) for own in by_worker]
    tokens, reads = int(columns.output_tokens.sum()), len(columns.read_ns)
    peak = max(_events_per_s_peaks(columns, workers))  # a ceiling is that of one core
    headroom = events_per_s_max / peak if events_per_s_max and peak else None
    spoilt: dict[str, None] = {}  # in order, each once
    reasons = []
    for names, reason in (
        *_late(late, measured),
        *_coalesced(columns, late),
        *_exhausted(by_worker, max(cpu_s) / max(duration_s, 1e-9), headroom),
    ):
        spoilt |= dict.fromkeys(names)
        reasons.append(reason)
    part = {
        "cpu_s": round(sum(cpu_s), 3),
        "cpu_us_per_token": significant(sum(cpu_s) / tokens * 1e6) if tokens else None,
        "loop_lag_ms_p99": round(late.lag_p99, 3),
        "late_ms_p50": round(late.p50, 3),
        "late_ms_p99": round(late.p99, 3),
        "tokens_per_read": significant(tokens / reads) if reads else None,
        "events_per_s_peak": significant(peak),
        "headroom": None if headroom is None else significant(headroom),
        "verdict": "client-bound" if reasons else "valid",
        "reasons": reasons,
    }
    return part, [name for name in measured if name in spoilt]


Finding = tuple[tuple[str, ...], str]  # the metrics it spoils, and the reason


def _late(late: Lateness, measured: Mapping[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    for row in latencies():
        if row.name not in measured:
            continue
        for bound in row.lateness:
            value, late_ms = measured[row.name][bound.stat], late.at(bound.stat)
            if value and late_ms > max(bound.floor_ms, bound.share * value):
                reason = (
                    f"the client was {late_ms:.1f} ms late ({bound.stat}), more than"
                    f" {wording.share(bound.share)} of the {row.short} {bound.stat} of"
                    f" {value:.1f} ms"
                )
                found.append((_spoilt_by(row.name, bound.stat), reason))
    return found


def _spoilt_by(metric: str, stat: str) -> tuple[str, ...]:
    """Return the metrics that are wrong where this statistic is."""
    return (metric, *(row.name for row in latencies() if row.spoilt_with == (metric, stat)))


def _coalesced(columns: Columns, late: Lateness) -> list[Finding]:
    """Tokens that the server sends one by one, and the client reads together, were waiting."""
    tokens = columns.read_tokens[columns.read_later]
    if not len(tokens) or late.p50 <= GAP_BOUNDS[0].floor_ms:
        return []  # a client that is in time reads what the server or the network put together
    share = float((tokens > median(tokens)).mean())
    # When most reads are late, the median is too high itself. The smallest reads are not.
    share = max(share, float((tokens > linear(tokens, 0.05)).mean()))
    if share <= _COALESCED_MAX:
        return []
    reads = f"{wording.share(share)} of the reads"
    reason = f"{reads} carried more tokens than the server sends at once"
    return [(("itl_ms",), reason)]


def _worst(lates: Sequence[Lateness]) -> Lateness:
    return Lateness(
        lag_p99=max(late.lag_p99 for late in lates),
        p50=max(late.p50 for late in lates),
        p99=max(late.p99 for late in lates),
    )


def _exhausted(
    by_worker: Sequence[Sequence[Tick]], cpu_share: float, headroom: float | None
) -> list[Finding]:
    reasons = []
    shares = [_cpu_shares(ticks) for ticks in by_worker]
    busy = max(float((own > CPU_SHARE_MAX).mean()) if len(own) else 0.0 for own in shares)
    if busy > CPU_BUSY_TIME_MAX:
        reasons.append(
            f"the client used more than {wording.share(CPU_SHARE_MAX)} of a core in"
            f" {wording.share(busy)} of the time ({wording.share(cpu_share)} on average)"
        )
    if headroom is not None and headroom < HEADROOM_MIN:
        reasons.append(
            f"the level's peak was near the client's ceiling: headroom {headroom:.2f}"
            f" (less than {HEADROOM_MIN:g})"
        )
    return [(tuple(BY_NAME), reason) for reason in reasons]


def _cpu_shares(ticks: Sequence[Tick]) -> Floats:
    """Return the share of a core between each two ticks that are not too near."""
    times_s = np.array([tick.t_ns for tick in ticks]) / 1e9
    cpu_s = np.array([tick.cpu_s for tick in ticks])
    passed_s = np.diff(times_s)
    far: Array = passed_s > 0.1
    return np.asarray(np.diff(cpu_s)[far] / passed_s[far], dtype=np.float64)


def _events_per_s_peaks(columns: Columns, workers: int) -> list[float]:
    """Return of each worker the most token-carrying reads in any one second, over all of it."""
    if not len(columns.read_ns):
        return [0.0]
    seconds = (columns.read_ns - int(columns.read_ns.min())) // 1_000_000_000
    worker = columns.read_request % workers
    return [
        float(np.bincount(seconds[worker == number]).max(initial=0)) for number in range(workers)
    ]
