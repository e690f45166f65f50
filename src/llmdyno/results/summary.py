"""The summary document: a journal in, the JSON of one run out.

There is one way from records to numbers, this one: the end of a run, `dyno report` on an old
journal and the tuner all take it. The document's keys are a contract; its version's history:

    llmdyno.summary/1 (November 2026): the first.
    28 November 2026, added: "doubts"; in a level "steady" of its "window" and "findings" of its
        "server" (the "notes" by code). For an older document doubts.py finds the doubts on reading.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from llmdyno import plugins
from llmdyno.errors import StorageError, UsageError
from llmdyno.faults import meaning
from llmdyno.records.entries import (
    COMPLETED,
    FAILED,
    LAG_PERIOD_S,
    OUTCOMES,
    Calibration,
    Collector,
    Columns,
    GpuSample,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    Scrape,
    Tick,
    Window,
    WorkerHost,
    read_journal,
)
from llmdyno.results import capacity, client_health, crosscheck, doubts, stats
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import BY_NAME, DISTRIBUTIONS, MS_PER_NS, Values
from llmdyno.results.slo import STATS, Slo, read_stat

SCHEMA = "llmdyno.summary/1"

# From the most to the least to be trusted; a level is labelled with its least trusted source.
SOURCES = ("usage", "server-tokenizer", "tokenizer", "chunks")

# A level of which more failed than this does not meet its SLOs, however quick the others were.
FAILED_SHARE_MAX = 0.01

_WINDOW_FIRST_TOKENS_MIN = 5
# With a larger share of censored requests the plain percentiles mislead.
_CENSORED_SHARE_MAX = 0.01
_CI_OBSERVATIONS_MAX = 50_000


class LevelFacts(msgspec.Struct, kw_only=True):
    """What the journal says of one level."""

    started: LevelStarted
    ended: LevelEnded | None = None
    columns: Columns
    errors: Mapping[str, int]
    examples: Mapping[str, str]  # the first detail of each class of errors
    source: str
    by_source: Mapping[str, int]  # output tokens
    ticks: Sequence[Tick]
    last_ns: int  # of anything that the journal has of it
    prompts: Sequence[tuple[int, int]] = ()  # of each request: which item, its input tokens
    scrapes: Sequence[Scrape] = ()
    gpus: Sequence[GpuSample] = ()
    hosts: Sequence[WorkerHost] = ()

    @property
    def end_ns(self) -> int:
        """When the level was over, or the journal broke off."""
        return self.ended.end_ns if self.ended else self.last_ns

    @property
    def full_until_ns(self) -> int:
        """When the load began to fall."""
        return self.ended.full_until_ns if self.ended else self.last_ns


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal says of a run."""

    opened: Opened
    calibration: Calibration | None
    levels: Sequence[LevelFacts]


def read_levels(journal: Path) -> tuple[Opened, list[LevelFacts]]:
    """Read the levels of a run's journal.

    Raises:
        StorageError: it cannot be read, or is no journal.
    """
    facts = read_run(journal)
    return facts.opened, list(facts.levels)


def read_run(journal: Path) -> RunFacts:
    """Read a run's journal.

    Raises:
        StorageError: it cannot be read, or is no journal.
    """
    entries = read_journal(journal)
    opened = next(entries, None)
    if not isinstance(opened, Opened):
        raise StorageError(f"{journal}: is no journal of a run: it lacks the first line.")
    calibration = None
    open_levels: dict[int, _Level] = {}
    beside: defaultdict[int, list[Scrape | GpuSample]] = defaultdict(list)  # also before the level
    for entry in entries:
        match entry:
            case LevelStarted():
                open_levels[entry.level] = _Level(entry)
            case Scrape() | GpuSample():
                beside[entry.level].append(entry)
            case Calibration():
                calibration = entry
            case (
                Record() | Tick() | LevelEnded() | WorkerHost()
            ):  # a worker's share-end is in the level's own
                open_levels[entry.level].take(entry)
    levels = [level.facts(beside[number]) for number, level in open_levels.items()]
    return RunFacts(opened=opened, calibration=calibration, levels=levels)


class _Level:
    """Takes in one level's entries."""

    def __init__(self, started: LevelStarted) -> None:
        self._started = started
        self._ended: LevelEnded | None = None
        self._records = Collector()
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._by_source: Counter[str] = Counter()
        self._cut_by_source: Counter[str] = Counter()
        self._ticks: list[Tick] = []
        self._prompts: list[tuple[int, int]] = []
        self._hosts: dict[int, WorkerHost] = {}
        self._last_ns = started.start_ns

    def take(self, entry: Record | Tick | LevelEnded | WorkerHost) -> None:
        if isinstance(entry, Record):
            self._records.add(entry)
            self._prompts.append((entry.prompt, entry.input_tokens))
            if entry.error:
                self._errors[entry.error] += 1
                self._examples.setdefault(entry.error, entry.detail)
            if entry.output_tokens:
                # A request that was cut never heard its usage: it is no sign of a lesser source.
                counts = self._cut_by_source if entry.outcome == "cut" else self._by_source
                counts[entry.source] += entry.output_tokens
            self._last_ns = max(self._last_ns, entry.sent_ns + entry.end_ns)
        elif isinstance(entry, Tick):
            self._ticks.append(entry)
            self._last_ns = max(self._last_ns, entry.t_ns)
        elif isinstance(entry, WorkerHost):
            self._hosts[entry.worker] = entry
        else:
            self._ended = entry

    def facts(self, beside: Sequence[Scrape | GpuSample]) -> LevelFacts:
        return LevelFacts(
            started=self._started,
            ended=self._ended,
            columns=self._records.columns(),
            errors=dict(self._errors.most_common()),
            examples=self._examples,
            source=max(self._by_source or self._cut_by_source or ["usage"], key=SOURCES.index),
            by_source=dict(self._by_source + self._cut_by_source),
            ticks=self._ticks,
            last_ns=self._last_ns,
            prompts=self._prompts,
            scrapes=[entry for entry in beside if isinstance(entry, Scrape)],
            gpus=[entry for entry in beside if isinstance(entry, GpuSample)],
            hosts=list(self._hosts.values()),
        )


def summarise(journal: Path) -> dict[str, Any]:
    """Return the summary document of the run whose journal this is.

    Raises:
        StorageError: the journal cannot be read.
    """
    facts = read_run(journal)
    opened = facts.opened
    slos = msgspec.convert(opened.spec.get("slos", []), tuple[Slo, ...])
    interval_s = float(opened.spec["load"]["interval_s"])
    calibration = facts.calibration
    ceiling = calibration.events_per_s_max if calibration else None
    shared = _shared_tokens(opened.spec, facts.levels)
    documents = [
        point_document(
            repeats, interval_s, slos, events_per_s_max=ceiling, input_tokens_shared=shared
        )
        for repeats in by_point(facts.levels)
    ]
    is_search = opened.spec.get("until") and facts.levels
    searched = {"capacity": _capacity(facts.levels, slos)} if is_search else {}
    document = {
        "schema": SCHEMA,
        "run": opened.run,
        "dir": str(journal.parent),
        "started": opened.started,
        "environment": opened.environment,
        "spec": opened.spec,
        **({"calibration": msgspec.structs.asdict(calibration)} if calibration else {}),
        "levels": documents,
        "slo": [verdict for document in documents for verdict in _slo_verdicts(slos, document)],
        **searched,
    }
    return {**document, "doubts": doubts.entries(document)}


def by_point(levels: Sequence[LevelFacts]) -> list[list[LevelFacts]]:
    """Return the levels of each load point, its repeats together."""
    points: list[list[LevelFacts]] = []
    places: Counter[int] = Counter()  # of a round: how many of its levels have been seen
    for facts in levels:
        place = places[facts.started.repeat]
        places[facts.started.repeat] += 1
        if place == len(points):
            points.append([])
        points[place].append(facts)
    return points


def token_rate_intervals(journal: Path) -> list[tuple[float, float]]:
    """Return the 95 % interval of each load point's token rate between its repeats, two or more.

    Raises:
        StorageError: the journal cannot be read.
    """
    return [
        stats.student_interval95(
            np.array([token_rates(facts.columns, steady_window(facts)).mean() for facts in repeats])
        )
        for repeats in by_point(read_levels(journal)[1])
    ]


def point_document(
    repeats: Sequence[LevelFacts],
    interval_s: float,
    slos: Sequence[Slo],
    *,
    events_per_s_max: float | None = None,
    input_tokens_shared: Mapping[int, int | None],
) -> dict[str, Any]:
    """Return one load point of the document; the repeats of it are pooled.

    What belongs to one run only (window, samples, machines) is the first one's, and each one's
    headline figures stand under "repeats".
    """
    documents = [
        level_document(
            facts,
            interval_s,
            slos,
            events_per_s_max=events_per_s_max,
            input_tokens_shared=input_tokens_shared.get(facts.started.level),
        )
        for facts in repeats
    ]
    first = documents[0]
    if len(documents) == 1:
        return first
    is_open = repeats[0].started.users is None
    runs = [(facts.columns, steady_window(facts)) for facts in repeats]
    wholes = [(facts.columns, _whole(facts)) for facts in repeats]
    whole = measures(wholes, slos, is_open=is_open)
    client = _worst_client([document["client"] for document in documents])
    spoilt = {name for document in documents for name in document["doubtful"]}
    shared = [input_tokens_shared.get(facts.started.level) for facts in repeats]
    return {
        **{name: value for name, value in first.items() if name not in {"server", "gpu"}},
        "duration_s": round(sum(document["duration_s"] for document in documents), 6),
        "interrupted": any(document["interrupted"] for document in documents),
        "stopped": next(filter(None, (document["stopped"] for document in documents)), ""),
        "requests": _summed([document["requests"] for document in documents]),
        "faults": {
            fault: said
            for document in reversed(documents)  # of each the first example stays
            for fault, said in document["faults"].items()
        },
        "tokens": {
            **_summed([document["tokens"] for document in documents]),
            "source": max((facts.source for facts in repeats), key=SOURCES.index),
        },
        **measures(runs, slos, is_open=is_open),
        "whole": whole,
        "client": client,
        "doubtful": [name for name in BY_NAME if name in spoilt],
        **_beside(repeats, whole, client, None if None in shared else sum(filter(None, shared))),
        "repeats": [
            {
                "token_rate": document["token_rate"]["mean"],
                "ttft_ms_p50": document["ttft_ms"]["p50"],
                "ttft_ms_p99": document["ttft_ms"]["p99"],
                "completed": document["requests"]["completed"],
                "failed": document["requests"]["failed"],
                "window": document["window"],
                "client": document["client"]["verdict"],
            }
            for document in documents
        ],
    }


def _worst_client(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the client of the round in which it was worst, with the reasons of all rounds."""
    worst = max(
        clients, key=lambda client: (client["verdict"] != "valid", client["loop_lag_ms_p99"])
    )
    reasons = [
        f"round {number}: {reason}"
        for number, client in enumerate(clients, 1)
        for reason in client["reasons"]
    ]
    return {**worst, "reasons": reasons}


def _summed(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the counts of equal keys, and those of the tables among them."""
    summed: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, Mapping):
                summed[name] = dict(Counter(summed.get(name, {})) + Counter(value))
            elif isinstance(value, int):
                summed[name] = summed.get(name, 0) + value
    return summed


def _whole(facts: LevelFacts) -> Window:
    return Window(start_ns=facts.started.start_ns, end_ns=facts.end_ns, method="whole level")


def _shared_tokens(spec: Mapping[str, Any], levels: Sequence[LevelFacts]) -> dict[int, int | None]:
    """Return by level how many input tokens its prompts share with those before them.

    None: the workload does not tell. A turn begins with all that was said before it, and the
    requests of a trace share what blocks they like.
    """
    workload = spec.get("workload", {})
    repeats, prefix_shared = _sharing(workload.get("name", ""))
    if repeats is None:
        return {level.started.level: None for level in levels}
    shared: dict[int, int | None] = {}
    known: frozenset[int] = frozenset()  # the prompts of the levels before
    for level in levels:
        shared[level.started.level] = crosscheck.shared_tokens(
            level.prompts,
            known,
            prefix_shared=prefix_shared or bool(workload.get("system_prompt")),
        )
        if repeats and not workload.get("unique"):
            known |= {number for number, _ in level.prompts}
    return shared


def _sharing(workload: str) -> tuple[bool | None, bool]:
    """Return a workload's `repeats` and `shares_prefix`: whether prompts come again, begin alike.

    The plug-in is asked when the summary is derived, so that runs from before it said so are read
    as well. One that is not here, because another package had it, tells nothing.
    """
    try:
        found = plugins.load("workload.kinds", workload)
    except UsageError:
        return None, False
    return getattr(found, "repeats", None), bool(getattr(found, "shares_prefix", False))


def level_document(
    facts: LevelFacts,
    interval_s: float,
    slos: Sequence[Slo],
    *,
    events_per_s_max: float | None = None,
    input_tokens_shared: int | None = None,
) -> dict[str, Any]:
    """Return one level of the document."""
    columns = facts.columns
    window = steady_window(facts)
    start_ns = facts.started.start_ns
    whole = _whole(facts)
    outcomes = np.bincount(columns.outcome, minlength=len(OUTCOMES))
    is_open = facts.started.users is None
    measured = measures([(columns, window)], slos, is_open=is_open)
    over_all = measures([(columns, whole)], slos, is_open=is_open)
    client, doubtful = client_health.client_part(
        columns,
        facts.ticks,
        measured,
        duration_s=whole.length_s,
        lag_period_s=LAG_PERIOD_S,
        workers=facts.started.workers,
        events_per_s_max=events_per_s_max,
    )
    return {
        "users": facts.started.users,
        "arrival": facts.started.arrival,
        **_open_loop(facts.started),
        **_spread(facts),
        "duration_s": round(whole.length_s, 6),
        "interrupted": facts.ended is None or facts.ended.interrupted,
        "stopped": facts.ended.stopped if facts.ended else "",
        "requests": {
            **{name: int(count) for name, count in zip(OUTCOMES, outcomes, strict=True)},
            "errors": dict(facts.errors),
            **({"unsent": facts.ended.unsent} if is_open and facts.ended else {}),
        },
        "faults": {
            fault: {"meaning": meaning(fault), "example": facts.examples[fault]}
            for fault in facts.errors
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
            "steady": window.steady,
            "method": window.method,
        },
        **measured,
        "whole": over_all,
        "samples": samples(facts, interval_s),
        "client": client,
        "doubtful": doubtful,
        **_beside([facts], over_all, client, input_tokens_shared),
    }


def _spread(facts: LevelFacts) -> dict[str, Any]:
    """Return over how many workers a level was spread, and on which other machines."""
    hosts = [
        {
            "worker": host.worker,
            "host": host.host,
            "clock_uncertainty_ms": round(host.clock_uncertainty_ns / 1e6, 3),
            "clock_drift_ms": None
            if host.clock_drift_ns is None
            else round(host.clock_drift_ns / 1e6, 3),
        }
        for host in facts.hosts
    ]
    return {
        **({"workers": facts.started.workers} if facts.started.workers > 1 else {}),
        **({"machines": hosts} if hosts else {}),
    }


def _beside(
    repeats: Sequence[LevelFacts],
    over_all: Mapping[str, Any],
    client: Mapping[str, Any],
    input_tokens_shared: int | None,
) -> dict[str, Any]:
    """Return what the server and the GPUs said of a load point, where they said anything."""
    rounds = [facts.columns for facts in repeats]
    outcomes = sum(np.bincount(columns.outcome, minlength=len(OUTCOMES)) for columns in rounds)
    assert isinstance(outcomes, np.ndarray), "there is a round"
    server = crosscheck.server_part(
        [facts.scrapes for facts in repeats],
        crosscheck.Seen(
            input_tokens=sum(int(one.input_tokens[one.input_tokens > 0].sum()) for one in rounds),
            output_tokens=sum(int(one.output_tokens.sum()) for one in rounds),
            requests=int(outcomes.sum()),
            cut=int(outcomes[OUTCOMES.index("cut")]),
            failed=int(outcomes[OUTCOMES.index("failed")]),
            ttft_ms_mean=over_all["ttft_ms"]["mean"],
            source=max((facts.source for facts in repeats), key=SOURCES.index),
            input_tokens_shared=input_tokens_shared,
            late_ms_p50=client["late_ms_p50"],
        ),
    )
    gpus = crosscheck.gpu_part([sample for facts in repeats for sample in facts.gpus])
    return {**({"server": server} if server else {}), **({"gpu": gpus} if gpus else {})}


def _capacity(levels: Sequence[LevelFacts], slos: Sequence[Slo]) -> dict[str, Any]:
    """Return the highest load that meets the SLOs, by all levels of a search for it."""
    whole = levels[0].started.users is not None
    points = [capacity_point(facts, slos) for facts in levels]
    return capacity.document(capacity.capacity(points, whole=whole), whole=whole)


def capacity_point(facts: LevelFacts, slos: Sequence[Slo]) -> capacity.Point:
    """Return how far a level is from meeting its SLOs: that of the one it is furthest from."""
    started, columns = facts.started, facts.columns
    window = steady_window(facts)
    measured = measures([(columns, window)], slos, is_open=started.users is None)
    margin, sd = max(_margin(measured, columns, window, slo) for slo in slos)
    failed = np.count_nonzero(columns.outcome == FAILED)
    if failed > FAILED_SHARE_MAX * len(columns.outcome):  # what refuses requests is quick
        margin = capacity.MARGIN_MAX
    load = started.rate if started.users is None else started.users
    assert load is not None, "a search has users or a rate"
    return capacity.Point(load=float(load), margin=margin, sd=sd)


def _margin(
    measured: Mapping[str, Any], columns: Columns, window: Window, slo: Slo
) -> tuple[float, float]:
    """Return ln(value / limit), above 0 when the SLO is missed, and its standard deviation."""
    value = read_stat(measured, slo.metric, slo.stat)
    if not value:
        return capacity.MARGIN_MAX, 0.0
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
            steady=True,
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
    bins, width_s = _stretches(window)
    return _tokens_in_bins(columns, window.start_ns, window.end_ns, bins) / width_s


def request_rates(columns: Columns, window: Window) -> stats.Floats:
    """Return the requests completed (req/s) in the same stretches."""
    return _ended(columns, window, _done(columns, window))


def good_rates(columns: Columns, window: Window, slos: Sequence[Slo]) -> stats.Floats:
    """Return the requests that met every SLO of a request (req/s) in the same stretches.

    Empty: there is no such SLO, and so no goodput.
    """
    if not any(slo.metric in OF_REQUEST for slo in slos):
        return np.zeros(0)
    return _ended(columns, window, _done(columns, window) & _met(columns, slos))


def series(metric: str, columns: Columns, window: Window, slos: Sequence[Slo] = ()) -> stats.Floats:
    """Return a metric's observations inside a window, in order of time; empty: it has no value.

    Of a latency these are the requests or gaps, of a rate equal short stretches of the window.
    """
    if metric in RATES:
        return RATES[metric](columns, window, slos)
    observe = BY_NAME[metric].observe
    return np.zeros(0) if observe is None else observe(columns, window).values.astype(np.float64)


# What observations a rate is made of: its mean is theirs, and its interval comes from them.
RATES: Mapping[str, Callable[[Columns, Window, Sequence[Slo]], stats.Floats]] = {
    "token_rate": lambda columns, window, _: token_rates(columns, window),
    "request_rate": lambda columns, window, _: request_rates(columns, window),
    "goodput": good_rates,
}


def _stretches(window: Window) -> tuple[int, float]:
    """Return into how many equal stretches a window is cut, and how long one is (s)."""
    bins = int(min(600, max(20, window.length_s / 0.25)))
    return bins, max(window.length_s / bins, 1e-9)


def _ended(columns: Columns, window: Window, chosen: stats.Array) -> stats.Floats:
    bins, width_s = _stretches(window)
    ended_ns = (columns.sent_ns + columns.last_ns)[chosen]
    counts, _ = np.histogram(ended_ns, bins=bins, range=(window.start_ns, window.end_ns))
    return np.asarray(counts, dtype=np.float64) / width_s


def _observe(name: str, columns: Columns, window: Window) -> Values:
    observe = BY_NAME[name].observe
    assert observe is not None
    return observe(columns, window)


def measures(
    runs: Sequence[tuple[Columns, Window]], slos: Sequence[Slo], *, is_open: bool = False
) -> dict[str, Any]:
    """Return every metric of the table inside the window of a run, or of equal runs together.

    Of one run the intervals come from its blocks of time. Of several they come from what lies
    between them, which is more: two or three are too few to be resampled (dev/LOG.md), so it is
    Student's interval of a mean, each run one observation.
    """
    rates = [token_rates(columns, window) for columns, window in runs]
    length_s = max(sum(window.length_s for _, window in runs), 1e-9)
    done = [_done(columns, window) for columns, window in runs]
    return {
        **{
            metric.name: distribution(*(_observe(metric.name, *run) for run in runs))
            for metric in DISTRIBUTIONS
            if is_open or not metric.open_loop
        },
        "token_rate": {
            "mean": significant(float(np.mean([rate.mean() for rate in rates]))),
            "ci95": _rate_interval(rates),
        },
        "request_rate": {
            "mean": significant(sum(float(one.sum()) for one in done) / length_s),
            "ci95": _count_interval([request_rates(*run) for run in runs]),
        },
        "goodput": _goodput(runs, done, length_s, slos),
    }


def _rate_interval(rates: Sequence[stats.Floats]) -> list[float]:
    """Return the 95 % interval of a rate, of its stretches in a run or in each of equal runs."""
    if len(rates) > 1:
        return _between([float(rate.mean()) for rate in rates])
    return _interval(stats.bootstrap(rates[0], stats.mean_over_time))


def _count_interval(rates: Sequence[stats.Floats]) -> list[float] | None:
    """Return the same of requests, null where there was none: that tells of no spread."""
    return _rate_interval(rates) if any(rate.any() for rate in rates) else None


def _done(columns: Columns, window: Window) -> stats.Array:
    """Mark the requests that were completed inside the window."""
    ended_ns = columns.sent_ns + columns.last_ns
    inside = (ended_ns >= window.start_ns) & (ended_ns <= window.end_ns)
    done: stats.Array = (columns.outcome == COMPLETED) & inside
    return done


def _between(values: Sequence[float]) -> list[float]:
    """Return the 95 % interval of the mean of equal runs; nothing that we measure is negative."""
    return [significant(max(0.0, bound)) for bound in stats.student_interval95(np.array(values))]


def distribution(*runs: Values) -> dict[str, Any]:
    """Return the statistics of a latency, in ms; all null when nothing was observed."""
    observed = _pooled(runs)
    values, weights = observed.values.astype(np.float64), observed.weights
    n = len(values)
    if not n:
        return {"n": 0, **dict.fromkeys(STATS), "p50_ci95": None, **_censoring(observed)}
    document: dict[str, Any] = {
        "n": n,
        "mean": significant(float(np.average(values, weights=weights))),
    }
    named = STATS[1:-1]
    shares = [float(stat[1:]) / 100 for stat in named]
    for stat, value in zip(named, stats.quantiles(values, shares, weights), strict=True):
        document[stat] = significant(value)
    document["max"] = significant(float(values.max()))
    document["p50_ci95"] = _median_interval(runs)
    before = observed.sent_before
    return document | _censoring(observed) | ({} if before is None else {"sent_before": before})


def _pooled(runs: Sequence[Values]) -> Values:
    """Return the observations of equal runs together."""

    def joined(arrays: Sequence[stats.Array | None]) -> stats.Array | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Values(
        np.concatenate([run.values for run in runs]),
        joined([run.weights for run in runs]),
        joined([run.censored for run in runs]),
        None if runs[0].sent_before is None else sum(run.sent_before or 0 for run in runs),
    )


def _median_interval(runs: Sequence[Values]) -> list[float] | None:
    if len(runs) > 1:
        if not all(len(run.values) for run in runs):
            return None
        return _between([stats.quantile(run.values, 0.5, run.weights) for run in runs])
    values, weights = runs[0].values.astype(np.float64), runs[0].weights
    if weights is not None:
        values = np.repeat(values, weights.astype(np.int64))
    if not 1 < len(values) <= _CI_OBSERVATIONS_MAX:
        return None
    return _interval(stats.bootstrap_medians(values))


def _censoring(observed: Values) -> dict[str, Any]:
    """Say how many requests were cut before they had a value, and what that does to the quantiles.

    Without them p50 and p99 are those of the quicker requests. With them, by Kaplan and Meier, they
    are null where so many were cut that the quantile lies beyond all that was seen.
    """
    if observed.censored is None:
        return {}
    count, n = len(observed.censored), len(observed.values)
    document: dict[str, Any] = {"censored": count, "kaplan_meier": None}
    if count > _CENSORED_SHARE_MAX * (n + count):
        quantiles = {
            f"p{percent}": stats.censored_quantile(
                observed.values, observed.censored, percent / 100
            )
            for percent in (50, 99)
        }
        document["kaplan_meier"] = {
            name: None if value is None else significant(value) for name, value in quantiles.items()
        }
    return document


def _goodput(
    runs: Sequence[tuple[Columns, Window]],
    done: Sequence[stats.Array],
    length_s: float,
    slos: Sequence[Slo],
) -> dict[str, Any] | None:
    """Return requests per second that met every SLO on a latency of one request."""
    if not any(slo.metric in OF_REQUEST for slo in slos):
        return None
    good = sum(
        int((completed & _met(columns, slos)).sum())
        for (columns, _), completed in zip(runs, done, strict=True)
    )
    return {
        "mean": significant(good / length_s),
        "ci95": _count_interval([good_rates(*run, slos) for run in runs]),
    }


def _met(columns: Columns, slos: Sequence[Slo]) -> stats.Array:
    """Mark the requests that met every SLO on a latency of one request."""
    met = np.ones(len(columns.outcome), dtype=bool)
    for slo in slos:
        if slo.metric in OF_REQUEST:
            met &= OF_REQUEST[slo.metric](columns) < slo.limit
    return met


def _tpot_ms(columns: Columns) -> stats.Array:
    later = np.maximum(columns.output_tokens - columns.first_tokens, 1)
    tpot_ms: stats.Array = (columns.last_ns - columns.ttft_ns) / later * MS_PER_NS
    return tpot_ms


def _waited_ns(columns: Columns) -> stats.Array:
    waited_ns: stats.Array = columns.sent_ns - columns.due_ns
    return waited_ns


# The latencies that one request has by itself, by which goodput judges it.
OF_REQUEST: Mapping[str, Callable[[Columns], stats.Array]] = {
    "ttft_ms": lambda columns: columns.ttft_ns * MS_PER_NS,
    "tpot_ms": _tpot_ms,
    "e2e_ms": lambda columns: columns.last_ns * MS_PER_NS,
    "ttft_due_ms": lambda columns: (columns.ttft_ns + _waited_ns(columns)) * MS_PER_NS,
    "e2e_due_ms": lambda columns: (columns.last_ns + _waited_ns(columns)) * MS_PER_NS,
}


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
        # The last of each worker, if every one of them wrote some.
        last = {tick.worker: tick for tick in facts.ticks if low_ns < tick.t_ns <= high_ns}
        ticks = list(last.values()) if len(last) == facts.started.workers else []
        rows.append(
            {
                "t_s": round((high_ns - start_ns) / 1e9, 3),
                "users": _sum(tick.users for tick in ticks)
                if facts.started.users is not None
                else None,
                "in_flight": _sum(tick.in_flight for tick in ticks),
                **(
                    {"waiting": _sum(tick.waiting for tick in ticks)}
                    if facts.started.max_concurrency
                    else {}
                ),
                "completed": int((inside & (columns.outcome == COMPLETED)).sum()),
                "failed": int((inside & (columns.outcome == OUTCOMES.index("failed"))).sum()),
                "token_rate": significant(float(tokens.sum()) / window.length_s),
                "ttft_ms_p50": significant(float(np.median(ttft))) if len(ttft) else None,
                **crosscheck.sample_part(facts.scrapes, facts.gpus, low_ns, high_ns),
            }
        )
    return rows


def _sum(numbers: Iterable[int]) -> int | None:
    """Return the sum; None if there is nothing to add up."""
    found = list(numbers)
    return sum(found) if found else None


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
