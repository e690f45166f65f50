"""The table of metrics: what is measured, in which unit, which way is better, how, where it shows.

A metric is a row. The summary, the terminal, the pages, the export, the checks of SLOs, objectives
and doubts all read the rows when they need them, so a new metric is one new row here. The functions
take a level's columns (records/columns.py) and a window and return values; nothing here knows of
files or networks.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, CUT
from llmdyno.results.rates import request_rates, token_rates
from llmdyno.results.stats import STATISTICS, Array, Floats

MS_PER_NS = 1e-6
# TTFT is doubtful when a larger share of the first tokens in a window belongs to requests that were
# sent before the window.
SENT_BEFORE_MAX = 0.2

Part = Literal["first token", "later tokens", "last token", "token count", "due time"]


class Values(msgspec.Struct, frozen=True):
    """Observations of a metric inside a window, in order of time, and how much each one counts."""

    values: Array
    weights: Array | None = None
    # One value in ms for each request that was cut before it had a value: how long it had waited.
    # Its true value is greater. None: such requests do not matter to the metric.
    censored: Array | None = None
    # How many observations are of requests sent before the window. None: it does not matter.
    sent_before: int | None = None


class LatenessBound(msgspec.Struct, frozen=True):
    """How much of a latency may be the client's own lateness, at the same quantile."""

    stat: str
    share: float  # of the latency
    floor_ms: float  # lateness below this spoils nothing


# A gap between two reads holds the difference of two latenesses, a first token holds one whole.
LATENCY_BOUNDS = (LatenessBound("p50", 0.1, 1.0), LatenessBound("p99", 0.25, 5.0))
GAP_BOUNDS = (LatenessBound("p50", 0.25, 1.0), LatenessBound("p99", 0.5, 10.0))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the terminal's table."""

    stat: str
    heading: str
    interval: bool = False  # the 95 % interval stands beside the value
    wide: bool = False  # only where the terminal is wide


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: a latency has `observe`, a rate has `rate`."""

    name: str  # the JSON key; its unit comes last
    short: str  # for columns and sentences
    title: str
    unit: str
    better: Literal["lower", "higher"]
    definition: str  # printed beside the numbers
    # A latency: its observations inside a window.
    observe: Callable[[Columns, Window], Values] | None = None
    # The same of each request by itself, in ms; NaN where it has none. Goodput judges requests by
    # it, and it is a column of the export. None: a request has no such latency.
    of_request: Callable[[Columns], Floats] | None = None
    # A rate: its values over equal short stretches of a window, in order of time. The last argument
    # marks the requests that met every SLO on a latency of theirs; None: there is no such SLO.
    # Without a value it returns None.
    rate: Callable[[Columns, Window, Array | None], Floats | None] | None = None
    counts_requests: bool = False  # a rate of requests, which are few: see measures.py
    needs_slo: bool = False  # without an SLO on a latency of one request it has no value
    rests_on: frozenset[Part] = frozenset()  # doubts of one of these are doubts of the metric
    lateness: tuple[LatenessBound, ...] = LATENCY_BOUNDS  # see client_health.py
    spoilt_with: tuple[str, str] | None = None  # a metric and statistic: the client spoils both
    shown: tuple[Shown, ...] = ()  # on the terminal
    explained: bool = True  # its definition stands under the terminal's table
    headline: bool = False  # stands in the first table of a page

    @property
    def open_loop(self) -> bool:
        """Whether only levels have it whose requests have due times of their own."""
        return "due time" in self.rests_on

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of its statistics: a rate has a mean alone."""
        return tuple(STATISTICS) if self.observe is not None else ("mean",)

    @property
    def flag(self) -> str:
        """Its name on the command line: without the unit of a latency."""
        return self.name.removesuffix("_ms")


def latencies(*, open_loop: bool = True) -> list[Metric]:
    """Return the metrics that are distributions, with or without those of an open loop alone."""
    return [
        row
        for row in BY_NAME.values()
        if row.observe is not None and (open_loop or not row.open_loop)
    ]


def latency_values(name: str, columns: Columns, window: Window) -> Values:
    """Return what was observed of a latency inside a window."""
    observe = BY_NAME[name].observe
    assert observe is not None, f"{name} is a rate"
    return observe(columns, window)


def rates() -> list[Metric]:
    """Return the metrics that are rates."""
    return [row for row in BY_NAME.values() if row.rate is not None]


def of_requests(*, open_loop: bool = True) -> list[Metric]:
    """Return the latencies that one request has by itself."""
    return [row for row in latencies(open_loop=open_loop) if row.of_request is not None]


def by_flag() -> dict[str, str]:
    """Return the names of the metrics by what the command line calls them."""
    return {row.flag: row.name for row in BY_NAME.values()}


def resting_on(*parts: Part) -> Callable[[Metric], bool]:
    """Return what tells whether a metric rests on one of these."""
    return lambda row: not row.rests_on.isdisjoint(parts)


def at_last_token(of_request: Callable[[Columns], Floats]) -> Callable[[Columns, Window], Values]:
    """Return what observes a latency of requests that is known with their last token.

    It counts in the window in which that token came, and only of completed requests.
    """

    def observe(columns: Columns, window: Window) -> Values:
        last_ns = columns.sent_ns + columns.last_ns
        values = of_request(columns)
        chosen = (columns.outcome == COMPLETED) & ~np.isnan(values) & _inside(last_ns, window)
        return Values(values[chosen][np.argsort(last_ns[chosen], kind="stable")])

    return observe


def _inside(times_ns: Array, window: Window) -> Array:
    return (times_ns >= window.start_ns) & (times_ns <= window.end_ns)


def _where(has_value: Array, values: Array) -> Floats:
    return np.where(has_value, values, np.nan)


def _ttft_of_request(columns: Columns) -> Floats:
    answered = (columns.outcome == COMPLETED) | (columns.outcome == CUT)
    return _where(answered & (columns.ttft_ns >= 0), columns.ttft_ns * MS_PER_NS)


def _ttft(columns: Columns, window: Window) -> Values:
    first_ns = columns.sent_ns + columns.ttft_ns
    values = _ttft_of_request(columns)
    # A first token counts in the window in which it arrived: every such token was seen, however
    # long it took. Of the requests sent in a window, the slowest may have been cut (dev/LOG.md).
    chosen = ~np.isnan(values) & _inside(first_ns, window)
    return Values(
        values[chosen][np.argsort(first_ns[chosen], kind="stable")],
        censored=_cut(columns, window, columns.ttft_ns < 0),
        sent_before=int((columns.sent_ns[chosen] < window.start_ns).sum()),
    )


def _cut(columns: Columns, window: Window, without_value: Array) -> Array:
    """Return for how long those had waited that were cut after having been sent by the window."""
    chosen = (columns.outcome == CUT) & without_value & (columns.sent_ns <= window.end_ns)
    chosen &= columns.sent_ns + columns.end_ns >= window.start_ns
    waited: Array = columns.end_ns[chosen] * MS_PER_NS
    return waited


def _itl(columns: Columns, window: Window) -> Values:
    chosen = columns.read_later & columns.read_timed & _inside(columns.read_ns, window)
    chosen &= columns.read_tokens > 0
    order = np.argsort(columns.read_ns[chosen], kind="stable")
    tokens = columns.read_tokens[chosen][order].astype(float)
    return Values(columns.read_gap_ns[chosen][order] / tokens * MS_PER_NS, tokens)


def _tpot_of_request(columns: Columns) -> Floats:
    later = columns.output_tokens - columns.first_tokens
    decode_ns = columns.last_ns - columns.ttft_ns
    has_value = (columns.outcome == COMPLETED) & (later > 0)
    return _where(has_value, decode_ns / np.maximum(later, 1) * MS_PER_NS)


def _e2e_of_request(columns: Columns) -> Floats:
    return _where(columns.outcome == COMPLETED, columns.last_ns * MS_PER_NS)


def _e2e(columns: Columns, window: Window) -> Values:
    found = at_last_token(_e2e_of_request)(columns, window)
    censored = _cut(columns, window, columns.outcome == CUT)
    return msgspec.structs.replace(found, censored=censored)


def _delay_of_request(columns: Columns) -> Floats:
    waited_ns = columns.sent_ns - columns.due_ns
    return _where(columns.outcome == COMPLETED, waited_ns * MS_PER_NS)


def _since_due(columns: Columns) -> Columns:
    """Return the columns as if each request had been sent when it was due."""
    waited_ns = columns.sent_ns - columns.due_ns
    answered = columns.ttft_ns >= 0
    return msgspec.structs.replace(
        columns,
        sent_ns=columns.due_ns,
        ttft_ns=np.where(answered, columns.ttft_ns + waited_ns, -1),
        last_ns=np.where(answered, columns.last_ns + waited_ns, -1),
        end_ns=columns.end_ns + waited_ns,
    )


BY_NAME: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            name="ttft_ms",
            short="TTFT",
            title="Time to first token",
            unit="ms",
            better="lower",
            definition=(
                "TTFT = sent → first non-empty token text"
                " (reasoning text counts, a role-only or empty chunk does not);"
                " of the first texts that arrive inside the window."
            ),
            observe=_ttft,
            of_request=_ttft_of_request,
            rests_on=frozenset({"first token"}),
            shown=(
                Shown(stat="p50", heading="TTFT p50", interval=True),
                Shown(stat="p99", heading="p99"),
            ),
            headline=True,
        ),
        Metric(
            name="itl_ms",
            short="ITL",
            title="Inter-token latency",
            unit="ms",
            better="lower",
            definition=(
                "ITL = gap between token-carrying reads ÷ tokens in the later one,"
                " weighted by tokens."
            ),
            observe=_itl,
            rests_on=frozenset({"later tokens", "token count"}),
            lateness=GAP_BOUNDS,
            shown=(
                Shown(stat="p50", heading="ITL p50"),
                Shown(stat="p99", heading="p99", wide=True),
            ),
        ),
        Metric(
            name="tpot_ms",
            short="TPOT",
            title="Time per output token",
            unit="ms",
            better="lower",
            definition=(
                "TPOT = (last - first token) ÷ (output tokens - tokens in the first chunk),"
                " per request."
            ),
            observe=at_last_token(_tpot_of_request),
            of_request=_tpot_of_request,
            rests_on=frozenset({"later tokens", "token count"}),
            lateness=(),  # over many gaps the client's lateness averages out, until
            spoilt_with=("itl_ms", "p50"),  # the median gap itself is wrong
            shown=(Shown(stat="p50", heading="TPOT p50", wide=True),),
        ),
        Metric(
            name="e2e_ms",
            short="E2E",
            title="End-to-end latency",
            unit="ms",
            better="lower",
            definition="E2E = sent → last token.",
            observe=_e2e,
            of_request=_e2e_of_request,
            rests_on=frozenset({"last token"}),
            shown=(Shown(stat="p50", heading="E2E p50", wide=True),),
        ),
        Metric(
            name="token_rate",
            short="token rate",
            title="Token generation rate",
            unit="tok/s",
            better="higher",
            definition=(
                "token_rate = output tokens arriving inside the window ÷ window length,"
                " all users together."
            ),
            rate=lambda columns, window, _: token_rates(columns, window),
            rests_on=frozenset({"token count"}),
            shown=(Shown(stat="mean", heading="tok/s", interval=True),),
            headline=True,
        ),
        Metric(
            name="request_rate",
            short="request rate",
            title="Request rate",
            unit="req/s",
            better="higher",
            definition="request_rate = requests completed inside the window ÷ window length.",
            rate=lambda columns, window, _: request_rates(columns, window),
            counts_requests=True,
            shown=(Shown(stat="mean", heading="req/s", wide=True),),
            explained=False,
            headline=True,
        ),
        Metric(
            name="goodput",
            short="goodput",
            title="Goodput",
            unit="req/s",
            better="higher",
            definition=(
                "goodput = requests completed inside the window that met every per-request SLO"
                " ÷ window length."
            ),
            rate=lambda columns, window, good: (
                None if good is None else request_rates(columns, window, good)
            ),
            counts_requests=True,
            needs_slo=True,
            explained=False,
            headline=True,
        ),
        Metric(
            name="ttft_due_ms",
            short="TTFT DUE",
            title="Time to first token from due",
            unit="ms",
            better="lower",
            definition="TTFT from due = when an open loop's request was due → first token text.",
            observe=lambda columns, window: _ttft(_since_due(columns), window),
            of_request=lambda columns: _ttft_of_request(_since_due(columns)),
            rests_on=frozenset({"first token", "due time"}),
            shown=(
                Shown(stat="p50", heading="due TTFT p50"),
                Shown(stat="p99", heading="due p99"),
            ),
        ),
        Metric(
            name="e2e_due_ms",
            short="E2E DUE",
            title="End-to-end latency from due",
            unit="ms",
            better="lower",
            definition="E2E from due = when an open loop's request was due → last token.",
            observe=lambda columns, window: _e2e(_since_due(columns), window),
            of_request=lambda columns: _e2e_of_request(_since_due(columns)),
            rests_on=frozenset({"last token", "due time"}),
        ),
        Metric(
            name="schedule_delay_ms",
            short="schedule delay",
            title="Schedule delay",
            unit="ms",
            better="lower",
            definition=(
                "Schedule delay = when an open loop's request was due → sent: the wait for a slot"
                " or a connection."
            ),
            observe=at_last_token(_delay_of_request),
            of_request=_delay_of_request,
            rests_on=frozenset({"due time"}),
        ),
    )
}
