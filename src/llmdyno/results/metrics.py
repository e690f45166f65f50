"""The table of metrics: what is measured, in which unit, which way is better, and how.

A metric is a row. The console, the JSON document, the report, the SLO check and the tuner's
objective all read these rows, so a new metric is one new row here. The functions take a level's
columns (records.Columns) and a window and return values; nothing here knows of files or networks.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, CUT
from llmdyno.results.stats import Array

MS_PER_NS = 1e-6
# Of the first tokens in a window: with a larger share of requests sent before it TTFT is doubtful.
SENT_BEFORE_MAX = 0.2


class Values(msgspec.Struct, frozen=True):
    """Observations of a metric inside a window, in order of time, and how much each one counts."""

    values: Array
    weights: Array | None = None
    # Requests that were cut before there was a value: it is greater than this. None: such requests
    # do not matter to the metric.
    censored: Array | None = None
    # Of the observations, those whose request was sent before the window. None: it does not matter.
    sent_before: int | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str  # the JSON key; its unit comes last
    title: str
    unit: str
    better: Literal["lower", "higher"]
    definition: str  # printed beside the numbers
    # A distribution: observations inside a window. None: a rate, which summary.py derives.
    observe: Callable[[Columns, Window], Values] | None = None
    open_loop: bool = False  # only levels whose requests have due times of their own have it


def _inside(times_ns: Array, window: Window) -> Array:
    return (times_ns >= window.start_ns) & (times_ns <= window.end_ns)


def _ttft(columns: Columns, window: Window) -> Values:
    first_ns = columns.sent_ns + columns.ttft_ns
    # By when it arrives, not by when it was sent: every first token in the window was seen, however
    # long it took, while of the requests sent there the slowest may have been cut (dev/LOG.md).
    counts = (columns.outcome == COMPLETED) | (columns.outcome == CUT)
    chosen = counts & (columns.ttft_ns >= 0) & _inside(first_ns, window)
    order = np.argsort(first_ns[chosen], kind="stable")
    return Values(
        columns.ttft_ns[chosen][order] * MS_PER_NS,
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


def _tpot(columns: Columns, window: Window) -> Values:
    last_ns = columns.sent_ns + columns.last_ns
    later = columns.output_tokens - columns.first_tokens
    chosen = (columns.outcome == COMPLETED) & (later > 0) & _inside(last_ns, window)
    order = np.argsort(last_ns[chosen], kind="stable")
    decode_ns = (columns.last_ns - columns.ttft_ns)[chosen][order]
    return Values(decode_ns / later[chosen][order] * MS_PER_NS)


def _e2e(columns: Columns, window: Window) -> Values:
    last_ns = columns.sent_ns + columns.last_ns
    chosen = (columns.outcome == COMPLETED) & _inside(last_ns, window)
    order = np.argsort(last_ns[chosen], kind="stable")
    return Values(
        columns.last_ns[chosen][order] * MS_PER_NS,
        censored=_cut(columns, window, columns.outcome == CUT),
    )


def _ttft_due(columns: Columns, window: Window) -> Values:
    return _ttft(_since_due(columns), window)


def _e2e_due(columns: Columns, window: Window) -> Values:
    return _e2e(_since_due(columns), window)


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


METRICS: tuple[Metric, ...] = (
    Metric(
        name="ttft_ms",
        title="Time to first token",
        unit="ms",
        better="lower",
        definition=(
            "TTFT = sent → first non-empty token text"
            " (reasoning text counts, a role-only or empty chunk does not);"
            " of the first texts that arrive inside the window."
        ),
        observe=_ttft,
    ),
    Metric(
        name="itl_ms",
        title="Inter-token latency",
        unit="ms",
        better="lower",
        definition=(
            "ITL = gap between token-carrying reads ÷ tokens in the later one, weighted by tokens."
        ),
        observe=_itl,
    ),
    Metric(
        name="tpot_ms",
        title="Time per output token",
        unit="ms",
        better="lower",
        definition=(
            "TPOT = (last - first token) ÷ (output tokens - tokens in the first chunk),"
            " per request."
        ),
        observe=_tpot,
    ),
    Metric(
        name="e2e_ms",
        title="End-to-end latency",
        unit="ms",
        better="lower",
        definition="E2E = sent → last token.",
        observe=_e2e,
    ),
    Metric(
        name="token_rate",
        title="Token generation rate",
        unit="tok/s",
        better="higher",
        definition=(
            "token_rate = output tokens arriving inside the window ÷ window length,"
            " all users together."
        ),
    ),
    Metric(
        name="request_rate",
        title="Request rate",
        unit="req/s",
        better="higher",
        definition="request_rate = requests completed inside the window ÷ window length.",
    ),
    Metric(
        name="goodput",
        title="Goodput",
        unit="req/s",
        better="higher",
        definition=(
            "goodput = requests completed inside the window that met every per-request SLO"
            " ÷ window length."
        ),
    ),
    Metric(
        name="ttft_due_ms",
        title="Time to first token from due",
        unit="ms",
        better="lower",
        definition="TTFT from due = when an open loop's request was due → first token text.",
        observe=_ttft_due,
        open_loop=True,
    ),
    Metric(
        name="e2e_due_ms",
        title="End-to-end latency from due",
        unit="ms",
        better="lower",
        definition="E2E from due = when an open loop's request was due → last token.",
        observe=_e2e_due,
        open_loop=True,
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
DISTRIBUTIONS = tuple(metric for metric in METRICS if metric.observe is not None)
