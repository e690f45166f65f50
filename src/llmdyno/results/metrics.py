"""The table of metrics: what is measured, in which unit, which way is better, how, where it shows.

A metric is a row. The summary, the terminal, the pages, the export, the checks of SLOs, objectives
and doubts all read the rows when they need them, so a new metric is one new row here. What a row
observes is a function of a level's columns (observations.py, rates.py); nothing here knows of files
or networks.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from llmdyno.records.columns import Columns, Window
from llmdyno.results import observations, unit_costs
from llmdyno.results.observations import Values, since_due
from llmdyno.results.rates import request_rates, token_rates
from llmdyno.results.stats import STATISTICS, Array, Floats

# TTFT is doubtful when a larger share of the first tokens in a window belongs to requests that were
# sent before the window.
SENT_BEFORE_MAX = 0.2

Part = Literal["first token", "later tokens", "last token", "token count", "due time", "energy"]


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
    needs_price: bool = False  # without --price it has no value
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
    def may_lack(self) -> bool:
        """Whether most runs have no value of it: a table leaves it out where none has one."""
        return self.needs_slo or self.needs_price or "energy" in self.rests_on

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
            observe=observations.ttft,
            of_request=observations.ttft_of_request,
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
            observe=observations.itl,
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
            observe=observations.at_last_token(observations.tpot_of_request),
            of_request=observations.tpot_of_request,
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
            observe=observations.e2e,
            of_request=observations.e2e_of_request,
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
            name="cost_per_million_output",
            short="cost per million output tokens",
            title="Cost of a million output tokens",
            unit="currency",
            better="lower",
            definition=(
                "cost_per_million_output = --price x window length ÷ output tokens arriving inside"
                " the window, in millions."
            ),
            rate=lambda columns, window, _: unit_costs.cost_of_output(columns, window),
            needs_price=True,
            rests_on=frozenset({"token count"}),
            explained=False,
            headline=True,
        ),
        Metric(
            name="cost_per_million_total",
            short="cost per million tokens",
            title="Cost of a million tokens, input and output",
            unit="currency",
            better="lower",
            definition=(
                "cost_per_million_total = --price x window length ÷ tokens inside the window, in"
                " millions: output tokens as they arrive, input tokens with their request's first."
            ),
            rate=lambda columns, window, _: unit_costs.cost_of_all(columns, window),
            needs_price=True,
            rests_on=frozenset({"token count"}),
            explained=False,
            headline=True,
        ),
        Metric(
            name="joules_per_token",
            short="energy a token",
            title="Energy of an output token",
            unit="J",
            better="lower",
            definition=(
                "joules_per_token = energy that this machine's GPUs and processors used inside the"
                " window ÷ output tokens arriving inside it; idle use and, on the same machine, the"
                " load generator's are in it."
            ),
            rate=lambda columns, window, _: unit_costs.joules_of_output(columns, window),
            rests_on=frozenset({"token count", "energy"}),
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
            observe=observations.ttft_due,
            of_request=lambda columns: observations.ttft_of_request(since_due(columns)),
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
            observe=observations.e2e_due,
            of_request=lambda columns: observations.e2e_of_request(since_due(columns)),
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
            observe=observations.at_last_token(observations.delay_of_request),
            of_request=observations.delay_of_request,
            rests_on=frozenset({"due time"}),
            lateness=(),  # it is the client's own lateness, where no slot is waited for
        ),
    )
}
