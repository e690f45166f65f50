"""Observations: what a latency was, of each request or gap, from a level's columns.

Each function takes columns (records/columns.py) and a window. The rows of metrics.py name them.
"""

from collections.abc import Callable

import msgspec
import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, CUT
from llmdyno.results.stats import Array, Floats

MS_PER_NS = 1e-6


class Values(msgspec.Struct, frozen=True):
    """Observations of a metric inside a window, in order of time, and how much each one counts."""

    values: Array
    weights: Array | None = None
    # One value in ms for each request that still waited when the window ended, or was cut, or timed
    # out: how long it had waited. Its true value is greater. None: such requests do not matter to
    # the metric.
    censored: Array | None = None
    # Of each of those the value that it had in the end, after the window; infinite: it never had.
    later: Array | None = None
    # How many observations are of requests sent before the window. None: it does not matter.
    sent_before: int | None = None


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


def ttft_of_request(columns: Columns) -> Floats:
    """Return the time to first token of each answered request, cut ones too, in ms."""
    answered = (columns.outcome == COMPLETED) | (columns.outcome == CUT)
    return _where(answered & (columns.ttft_ns >= 0), columns.ttft_ns * MS_PER_NS)


def ttft(columns: Columns, window: Window) -> Values:
    """Return the times to first token, in ms, of the first tokens that came inside the window."""
    first_ns = columns.sent_ns + columns.ttft_ns
    values = ttft_of_request(columns)
    # A first token counts in the window in which it arrived: every such token was seen, however
    # long it took. Of the requests sent in a window, the slowest may have been cut (dev/LOG.md).
    chosen = ~np.isnan(values) & _inside(first_ns, window)
    waiting = _waiting(columns, window)
    return Values(
        values[chosen][np.argsort(first_ns[chosen], kind="stable")],
        censored=_waited_ms(columns, window, waiting),
        later=_ms_or_never(values[waiting]),
        sent_before=int((columns.sent_ns[chosen] < window.start_ns).sum()),
    )


def _waiting(columns: Columns, window: Window) -> Array:
    """Mark the requests that were sent by the window's end and had no first token then.

    What became of them later does not matter. Of those that a full server lets wait, most are
    answered as soon as the load falls, in the grace: without them p99 is that of the lucky ones.
    """
    ended_ns = columns.sent_ns + columns.end_ns
    answered = (columns.ttft_ns >= 0) & (columns.sent_ns + columns.ttft_ns <= window.end_ns)
    # A level's window may outlast the cut that ends the level. A timeout is a wait as well: its
    # request would be no quicker than those that were answered, however it ended.
    in_flight = (ended_ns > window.end_ns) | (_given_up(columns) & (ended_ns >= window.start_ns))
    waiting: Array = (columns.sent_ns <= window.end_ns) & ~answered & in_flight
    return waiting


def _given_up(columns: Columns) -> Array:
    """Mark the requests that were cut, or failed because they took too long."""
    given_up: Array = (columns.outcome == CUT) | (columns.timed_out == 1)
    return given_up


def _waited_ms(columns: Columns, window: Window, chosen: Array) -> Array:
    """Return for how long each had waited when the window ended, or when it was cut before."""
    until_ns = np.minimum(columns.sent_ns + columns.end_ns, window.end_ns)[chosen]
    waited: Array = (until_ns - columns.sent_ns[chosen]) * MS_PER_NS
    return waited


def _ms_or_never(values: Floats) -> Floats:
    return np.where(np.isnan(values), np.inf, values)


def itl(columns: Columns, window: Window) -> Values:
    """Return the gaps between reads per token, in ms, weighted by tokens."""
    chosen = columns.read_later & columns.read_timed & _inside(columns.read_ns, window)
    chosen &= columns.read_tokens > 0
    order = np.argsort(columns.read_ns[chosen], kind="stable")
    tokens = columns.read_tokens[chosen][order].astype(float)
    return Values(columns.read_gap_ns[chosen][order] / tokens * MS_PER_NS, tokens)


def tpot_of_request(columns: Columns) -> Floats:
    """Return the time per output token after the first read of each completed request, in ms."""
    later = columns.output_tokens - columns.first_tokens
    decode_ns = columns.last_ns - columns.ttft_ns
    has_value = (columns.outcome == COMPLETED) & (later > 0)
    return _where(has_value, decode_ns / np.maximum(later, 1) * MS_PER_NS)


def e2e_of_request(columns: Columns) -> Floats:
    """Return the time to the last token of each completed request, in ms."""
    return _where(columns.outcome == COMPLETED, columns.last_ns * MS_PER_NS)


def e2e(columns: Columns, window: Window) -> Values:
    """Return the times to last token, in ms, of the last tokens that came inside the window."""
    found = at_last_token(e2e_of_request)(columns, window)
    # Of those that have their first token most are in flight at any window's end, and nothing is
    # wrong with them. Those that wait for it, and those that were cut, are missing above.
    waiting = _waiting(columns, window)
    ended_ns = columns.sent_ns + columns.end_ns
    cut = _given_up(columns) & (columns.sent_ns <= window.end_ns) & ~waiting
    cut &= ended_ns >= window.start_ns
    waited = [_waited_ms(columns, window, waiting), columns.end_ns[cut] * MS_PER_NS]
    values = e2e_of_request(columns)
    later = [_ms_or_never(values[waiting]), np.full(int(cut.sum()), np.inf)]
    return msgspec.structs.replace(
        found, censored=np.concatenate(waited), later=np.concatenate(later)
    )


def delay_of_request(columns: Columns) -> Floats:
    """Return how long after it was due each completed request was sent, in ms."""
    waited_ns = columns.sent_ns - columns.due_ns
    return _where(columns.outcome == COMPLETED, waited_ns * MS_PER_NS)


def ttft_due(columns: Columns, window: Window) -> Values:
    """Return what ttft() does, of requests as if each had been sent when it was due."""
    return _with_unsent(ttft(since_due(columns), window), columns, window)


def e2e_due(columns: Columns, window: Window) -> Values:
    """Return what e2e() does, of requests as if each had been sent when it was due."""
    return _with_unsent(e2e(since_due(columns), window), columns, window)


def _with_unsent(found: Values, columns: Columns, window: Window) -> Values:
    """Add the waits of requests that were due by the window's end and never got a slot.

    They waited as much as those that were sent: without them a latency from due is that of the
    lucky ones.
    """
    due_ns = np.array(columns.unsent_due_ns, dtype=np.int64)
    waited_ms = (window.end_ns - due_ns[due_ns <= window.end_ns]) * MS_PER_NS
    if found.censored is None or found.later is None or not len(waited_ms):
        return found
    return msgspec.structs.replace(
        found,
        censored=np.concatenate([found.censored, waited_ms]),
        later=np.concatenate([found.later, np.full(len(waited_ms), np.inf)]),
    )


def since_due(columns: Columns) -> Columns:
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
