"""The summary document: a journal in, the JSON of one run out.

There is one way from records to numbers, this one: the end of a run, `dyno report` on an old
journal and the tuner all take it. The document's keys are a contract; its version's history:

    llmdyno.summary/1 (November 2026): the first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from llmdyno import stats, until
from llmdyno.errors import StorageError
from llmdyno.metrics import BY_NAME, DISTRIBUTIONS, MS_PER_NS, Values
from llmdyno.records import (
    COMPLETED,
    FAILED,
    OUTCOMES,
    Collector,
    Columns,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    Tick,
    Window,
    read_journal,
)
from llmdyno.spec import STATS, Slo, read_stat

SCHEMA = "llmdyno.summary/1"

# From the most to the least to be trusted; a level is labelled with its least trusted source.
SOURCES = ("usage", "server-tokenizer", "tokenizer", "chunks")

# The client is the limit when it was late by this much, or this busy.
LAG_MS_MAX = 10.0
LAG_SHARE_OF_ITL_MAX = 0.25
CPU_SHARE_MAX = 0.9

# A level of which more failed than this does not meet its SLOs, however quick the others were.
FAILED_SHARE_MAX = 0.01

_WINDOW_FIRST_TOKENS_MIN = 5
_CI_OBSERVATIONS_MAX = 200_000


class LevelFacts(msgspec.Struct, kw_only=True):
    """What the journal says of one level."""

    started: LevelStarted
    ended: LevelEnded | None = None
    columns: Columns
    errors: Mapping[str, int]
    source: str
    by_source: Mapping[str, int]  # output tokens
    ticks: Sequence[Tick]
    last_ns: int  # of anything that the journal has of it

    @property
    def end_ns(self) -> int:
        """When the level was over, or the journal broke off."""
        return self.ended.end_ns if self.ended else self.last_ns

    @property
    def full_until_ns(self) -> int:
        """When the load began to fall."""
        return self.ended.full_until_ns if self.ended else self.last_ns


def read_levels(journal: Path) -> tuple[Opened, list[LevelFacts]]:
    """Read a run's journal.

    Raises:
        StorageError: it cannot be read, or is no journal.
    """
    entries = read_journal(journal)
    opened = next(entries, None)
    if not isinstance(opened, Opened):
        raise StorageError(f"{journal}: is no journal of a run: it lacks the first line.")
    open_levels: dict[int, _Level] = {}
    for entry in entries:
        if isinstance(entry, LevelStarted):
            open_levels[entry.level] = _Level(entry)
        elif not isinstance(entry, Opened):
            open_levels[entry.level].take(entry)
    return opened, [level.facts() for level in open_levels.values()]


class _Level:
    """Takes in one level's entries."""

    def __init__(self, started: LevelStarted) -> None:
        self._started = started
        self._ended: LevelEnded | None = None
        self._records = Collector()
        self._errors: Counter[str] = Counter()
        self._by_source: Counter[str] = Counter()
        self._cut_by_source: Counter[str] = Counter()
        self._ticks: list[Tick] = []
        self._last_ns = started.start_ns

    def take(self, entry: Record | Tick | LevelEnded) -> None:
        if isinstance(entry, Record):
            self._records.add(entry)
            if entry.error:
                self._errors[entry.error] += 1
            if entry.output_tokens:
                # A request that was cut never heard its usage: it is no sign of a lesser source.
                counts = self._cut_by_source if entry.outcome == "cut" else self._by_source
                counts[entry.source] += entry.output_tokens
            self._last_ns = max(self._last_ns, entry.sent_ns + entry.end_ns)
        elif isinstance(entry, Tick):
            self._ticks.append(entry)
            self._last_ns = max(self._last_ns, entry.t_ns)
        else:
            self._ended = entry

    def facts(self) -> LevelFacts:
        return LevelFacts(
            started=self._started,
            ended=self._ended,
            columns=self._records.columns(),
            errors=dict(self._errors.most_common()),
            source=max(self._by_source or self._cut_by_source or ["usage"], key=SOURCES.index),
            by_source=dict(self._by_source + self._cut_by_source),
            ticks=self._ticks,
            last_ns=self._last_ns,
        )


def summarise(journal: Path) -> dict[str, Any]:
    """Return the summary document of the run whose journal this is.

    Raises:
        StorageError: the journal cannot be read.
    """
    opened, levels = read_levels(journal)
    slos = msgspec.convert(opened.spec.get("slos", []), tuple[Slo, ...])
    interval_s = float(opened.spec["load"]["interval_s"])
    documents = [level_document(facts, interval_s, slos) for facts in levels]
    searched = {"capacity": _capacity(levels, slos)} if opened.spec.get("until") and levels else {}
    return {
        "schema": SCHEMA,
        "run": opened.run,
        "dir": str(journal.parent),
        "started": opened.started,
        "environment": opened.environment,
        "spec": opened.spec,
        "levels": documents,
        "slo": [verdict for document in documents for verdict in _slo_verdicts(slos, document)],
        **searched,
    }


def level_document(facts: LevelFacts, interval_s: float, slos: Sequence[Slo]) -> dict[str, Any]:
    """Return one level of the document."""
    columns = facts.columns
    window = steady_window(facts)
    start_ns = facts.started.start_ns
    whole = Window(start_ns=start_ns, end_ns=facts.end_ns, method="whole level")
    outcomes = np.bincount(columns.outcome, minlength=len(OUTCOMES))
    is_open = facts.started.users is None
    measured = measures(columns, window, slos, is_open=is_open)
    return {
        "users": facts.started.users,
        "arrival": facts.started.arrival,
        **_open_loop(facts.started),
        "duration_s": round(whole.length_s, 6),
        "interrupted": facts.ended is None or facts.ended.interrupted,
        "requests": {
            **{name: int(count) for name, count in zip(OUTCOMES, outcomes, strict=True)},
            "errors": dict(facts.errors),
            **({"unsent": facts.ended.unsent} if is_open and facts.ended else {}),
        },
        "tokens": {
            "input": int(columns.input_tokens[columns.input_tokens > 0].sum()),
            "output": int(columns.output_tokens.sum()),
            "source": facts.source,
            "by_source": dict(facts.by_source),
        },
        "window": {
            "start_s": round((window.start_ns - start_ns) / 1e9, 6),
            "end_s": round((window.end_ns - start_ns) / 1e9, 6),
            "method": window.method,
        },
        **measured,
        "whole": measures(columns, whole, slos, is_open=is_open),
        "samples": samples(facts, interval_s),
        "client": client_health(facts, measured["itl_ms"]),
    }


def _capacity(levels: Sequence[LevelFacts], slos: Sequence[Slo]) -> dict[str, Any]:
    """Return the highest load that meets the SLOs, by all levels of a search for it."""
    whole = levels[0].started.users is not None
    points = [capacity_point(facts, slos) for facts in levels]
    return until.document(until.capacity(points, whole=whole), whole=whole)


def capacity_point(facts: LevelFacts, slos: Sequence[Slo]) -> until.Point:
    """Return how far a level is from meeting its SLOs: that of the one it is furthest from."""
    started, columns = facts.started, facts.columns
    window = steady_window(facts)
    measured = measures(columns, window, slos, is_open=started.users is None)
    margin, sd = max(_margin(measured, columns, window, slo) for slo in slos)
    failed = np.count_nonzero(columns.outcome == FAILED)
    if failed > FAILED_SHARE_MAX * len(columns.outcome):  # what refuses requests is quick
        margin = until.MARGIN_MAX
    load = started.rate if started.users is None else started.users
    assert load is not None, "a search has users or a rate"
    return until.Point(load=float(load), margin=margin, sd=sd)


def _margin(
    measured: Mapping[str, Any], columns: Columns, window: Window, slo: Slo
) -> tuple[float, float]:
    """Return ln(value / limit), above 0 when the SLO is missed, and its standard deviation."""
    value = read_stat(measured, slo.metric, slo.stat)
    if not value:
        return until.MARGIN_MAX, 0.0
    margin = float(np.log(value / slo.limit))
    if slo.metric == "token_rate":
        series: stats.Floats = token_rates(columns, window)
    elif BY_NAME[slo.metric].observe is not None:
        series = _observe(slo.metric, columns, window).values.astype(np.float64)
    else:  # requests that come by chance: the count's own deviation
        series = np.zeros(0)
        sd = 1 / max(1.0, value * window.length_s) ** 0.5
    if len(series):
        sd = float(stats.bootstrap(series, _over_time(slo.stat)).std()) / value
    return (margin if slo.relation == "<" else -margin), sd


def _over_time(stat: str) -> Callable[[stats.Floats], stats.Floats]:
    """Return a statistic of an SLO as the bootstrap takes it."""
    if stat == "mean":
        return stats.mean_over_time
    return stats.quantile_over_time(1.0 if stat == "max" else float(stat[1:]) / 100)


def says_capacity(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what a search for the highest load found."""
    found = summary["capacity"]
    unit = "users" if "users" in found else "requests/s"
    load, (low, high) = found.get("users", found.get("rate")), found["ci95"]
    slos = ", ".join(slo["expr"] for slo in summary["spec"]["slos"])
    levels = f"{len(found['points'])} levels"
    if load is None:
        return f"Capacity: not even the lowest load measured met {slos} ({levels})."
    if high is None:
        return (
            f"Capacity: {load:,.4g} {unit} or more meet {slos}, at least {low:,.4g}; that more"
            f" would not is not shown ({levels})."
        )
    interval = f"95 % interval {low:,.4g} to {high:,.4g}"
    return f"Capacity: {load:,.4g} {unit} meet {slos}; {interval} ({levels})."


def _open_loop(started: LevelStarted) -> dict[str, Any]:
    """Return the keys that only the level of an open loop has."""
    if started.users is not None:
        return {}
    return {"rate": started.rate, "max_concurrency": started.max_concurrency}


def level_name(level: Mapping[str, Any]) -> str:
    """Return what a level of a summary document is called: "10 users", "poisson 2/s"."""
    users, arrival, rate = level.get("users"), level.get("arrival") or "closed", level.get("rate")
    if arrival == "closed":
        return "level" if users is None else f"{users:,.0f} user{'' if users == 1 else 's'}"
    pace = f"{arrival} arrivals" if rate is None else f"{arrival} {rate:g}/s"
    return pace + (f", {users:,.0f} users" if users is not None else "")


def steady_window(facts: LevelFacts) -> Window:
    """Find the part of a level that counts.

    It begins after the ramp, where MSER-5 on the token rate says that the transient is over, and
    ends when the load begins to fall. A level that is too short for that counts whole.
    """
    columns = facts.columns
    start_ns = facts.started.start_ns
    ramp_ns = facts.started.ramp_ns if facts.started.users != 1 else 0
    ramped_ns = min(start_ns + ramp_ns, facts.full_until_ns)
    span_ns = facts.full_until_ns - ramped_ns
    if span_ns > 0:
        bins = min(500, max(20, span_ns // 100_000_000))
        counts = _tokens_in_bins(columns, ramped_ns, facts.full_until_ns, int(bins))
        cut_ns = round(span_ns * stats.steady_start(counts) / bins)
        window = Window(
            start_ns=ramped_ns + cut_ns,
            end_ns=facts.full_until_ns,
            method="after the ramp, MSER-5 on the token rate",
        )
        if len(_observe("ttft_ms", columns, window).values) >= _WINDOW_FIRST_TOKENS_MIN:
            return window
    return Window(
        start_ns=start_ns,
        end_ns=facts.end_ns,
        method="whole level: too short for a steady state",
    )


def _tokens_in_bins(columns: Columns, start_ns: int, end_ns: int, bins: int) -> stats.Floats:
    counts, _ = np.histogram(
        columns.read_ns, bins=bins, range=(start_ns, end_ns), weights=columns.read_tokens
    )
    return np.asarray(counts, dtype=np.float64)


def token_rates(columns: Columns, window: Window) -> stats.Floats:
    """Return the token rate (tok/s) over equal short stretches of a window, in order of time."""
    bins = int(min(600, max(20, window.length_s / 0.25)))
    width_s = max(window.length_s / bins, 1e-9)
    return _tokens_in_bins(columns, window.start_ns, window.end_ns, bins) / width_s


def _observe(name: str, columns: Columns, window: Window) -> Values:
    observe = BY_NAME[name].observe
    assert observe is not None
    return observe(columns, window)


def measures(
    columns: Columns, window: Window, slos: Sequence[Slo], *, is_open: bool = False
) -> dict[str, Any]:
    """Return every metric of the table inside a window."""
    rates = token_rates(columns, window)
    length_s = max(window.length_s, 1e-9)
    ended_ns = columns.sent_ns + columns.last_ns
    done = columns.outcome == COMPLETED
    done &= (ended_ns >= window.start_ns) & (ended_ns <= window.end_ns)
    return {
        **{
            metric.name: distribution(_observe(metric.name, columns, window))
            for metric in DISTRIBUTIONS
            if is_open or not metric.open_loop
        },
        "token_rate": {
            "mean": significant(float(rates.mean())),
            "ci95": _interval(stats.bootstrap(rates, stats.mean_over_time)),
        },
        "request_rate": {"mean": significant(float(done.sum()) / length_s)},
        "goodput": _goodput(columns, done, length_s, slos),
    }


def distribution(observed: Values) -> dict[str, Any]:
    """Return the statistics of a latency, in ms; all null when nothing was observed."""
    values, weights = observed.values.astype(np.float64), observed.weights
    n = len(values)
    if not n:
        return {"n": 0, **dict.fromkeys(STATS), "p50_ci95": None}
    document: dict[str, Any] = {
        "n": n,
        "mean": significant(float(np.average(values, weights=weights))),
    }
    for stat in STATS[1:-1]:
        document[stat] = significant(stats.quantile(values, float(stat[1:]) / 100, weights))
    document["max"] = significant(float(values.max()))
    if weights is not None:
        values = np.repeat(values, weights.astype(np.int64))
    document["p50_ci95"] = (
        _interval(stats.bootstrap(values, stats.median_over_time))
        if 1 < len(values) <= _CI_OBSERVATIONS_MAX
        else None
    )
    return document


def _goodput(
    columns: Columns, done: stats.Array, length_s: float, slos: Sequence[Slo]
) -> dict[str, Any] | None:
    """Return requests per second that met every SLO on a latency of one request."""
    waited_ns = columns.sent_ns - columns.due_ns
    later = np.maximum(columns.output_tokens - columns.first_tokens, 1)
    of_request = {
        "ttft_ms": columns.ttft_ns * MS_PER_NS,
        "tpot_ms": (columns.last_ns - columns.ttft_ns) / later * MS_PER_NS,
        "e2e_ms": columns.last_ns * MS_PER_NS,
        "ttft_due_ms": (columns.ttft_ns + waited_ns) * MS_PER_NS,
        "e2e_due_ms": (columns.last_ns + waited_ns) * MS_PER_NS,
    }
    limits = [slo for slo in slos if slo.metric in of_request]
    if not limits:
        return None
    good = done.copy()
    for slo in limits:
        good &= of_request[slo.metric] < slo.limit
    return {"mean": significant(float(good.sum()) / length_s)}


def samples(facts: LevelFacts, interval_s: float) -> list[dict[str, Any]]:
    """Return the time series: one row an interval, at the interval's end.

    A remainder of less than half an interval belongs to the last row: alone it would be all noise.
    """
    columns, start_ns = facts.columns, facts.started.start_ns
    ended_ns = columns.sent_ns + columns.end_ns
    step_ns = round(interval_s * 1e9)
    rows = []
    rows_count = max(1, round((facts.end_ns - start_ns) / step_ns))
    for number in range(rows_count):
        low_ns = start_ns + number * step_ns
        high_ns = facts.end_ns if number == rows_count - 1 else low_ns + step_ns
        inside = (ended_ns > low_ns) & (ended_ns <= high_ns)
        tokens = columns.read_tokens[(columns.read_ns > low_ns) & (columns.read_ns <= high_ns)]
        window = Window(start_ns=low_ns, end_ns=high_ns, method="sample")
        ttft = _observe("ttft_ms", columns, window).values
        tick = next((tick for tick in reversed(facts.ticks) if low_ns < tick.t_ns <= high_ns), None)
        rows.append(
            {
                "t_s": round((high_ns - start_ns) / 1e9, 3),
                "users": tick.users if tick and facts.started.users is not None else None,
                "in_flight": tick.in_flight if tick else None,
                **(
                    {"waiting": tick.waiting if tick else None}
                    if facts.started.max_concurrency
                    else {}
                ),
                "completed": int((inside & (columns.outcome == COMPLETED)).sum()),
                "failed": int((inside & (columns.outcome == OUTCOMES.index("failed"))).sum()),
                "token_rate": significant(float(tokens.sum()) / window.length_s),
                "ttft_ms_p50": significant(float(np.median(ttft))) if len(ttft) else None,
            }
        )
    return rows


def client_health(facts: LevelFacts, itl_ms: Mapping[str, Any]) -> dict[str, Any]:
    """Say how the client was doing, and whether it was the limit."""
    columns = facts.columns
    cpu_s = max((tick.cpu_s for tick in facts.ticks), default=0.0)
    lags_ms = np.array([lag for tick in facts.ticks for lag in tick.loop_lags_us]) / 1e3
    lag_ms = float(np.quantile(lags_ms, 0.99)) if len(lags_ms) else 0.0
    tokens = int(columns.output_tokens.sum())
    duration_s = max((facts.end_ns - facts.started.start_ns) / 1e9, 1e-9)
    reasons = []
    lag_limit_ms = max(LAG_MS_MAX, LAG_SHARE_OF_ITL_MAX * (itl_ms["p50"] or 0.0))
    if lag_ms > lag_limit_ms:
        reasons.append(
            f"the event loop woke up {lag_ms:.1f} ms late (p99; limit {lag_limit_ms:.1f} ms)"
        )
    if cpu_s / duration_s > CPU_SHARE_MAX:
        reasons.append(f"the client used {cpu_s / duration_s:.0%} of a core")
    return {
        "cpu_s": round(cpu_s, 3),
        "cpu_us_per_token": significant(cpu_s / tokens * 1e6) if tokens else None,
        "loop_lag_ms_p99": round(lag_ms, 3),
        "tokens_per_read": significant(tokens / len(columns.read_ns))
        if len(columns.read_ns)
        else None,
        "verdict": "client-bound" if reasons else "valid",
        "reasons": reasons,
    }


def _slo_verdicts(slos: Iterable[Slo], level: Mapping[str, Any]) -> list[dict[str, Any]]:
    verdicts = []
    for slo in slos:
        value = read_stat(level, slo.metric, slo.stat)
        met = value is not None and (
            value < slo.limit if slo.relation == "<" else value > slo.limit
        )
        verdicts.append(
            {
                "expr": slo.expr,
                "level": level["rate"] if level["users"] is None else level["users"],
                "at": level_name(level),
                "value": value,
                "met": bool(met),
            }
        )
    return verdicts


def _interval(replicates: stats.Floats) -> list[float]:
    return [significant(bound) for bound in stats.interval95(replicates)]


def significant(value: float) -> float:
    """Six significant digits: more than any clock gives, fewer than a float prints."""
    return float(f"{value:.6g}")
