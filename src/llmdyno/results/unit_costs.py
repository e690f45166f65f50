"""What a token costs: money and energy, in stretches of equal work.

The mean of the stretches is the cost of all tokens together, because each stretch holds the same
number of them: equal times would give the quiet ones too much weight. How far the stretches differ,
in order of time, gives the interval.
"""

import msgspec
import numpy as np

from llmdyno.records.columns import Columns, Window
from llmdyno.results import energy
from llmdyno.results.rates import stretches
from llmdyno.results.stats import Array, Floats

_MILLION = 1e6
_NS_PER_H = 3600e9


def cost_of_output(columns: Columns, window: Window) -> Floats | None:
    """Return the price of a million output tokens in each stretch; None: no price is known."""
    return _cost(columns, window, columns.read_ns, columns.read_tokens)


def cost_of_all(columns: Columns, window: Window) -> Floats | None:
    """Return the price of a million tokens, input and output together, in each stretch.

    The input tokens of a request count when its first token arrives: then they have been read.
    None: no price is known, or the server did not tell all input tokens.
    """
    answered = columns.ttft_ns >= 0
    if np.any(columns.input_tokens[answered] < 0):
        return None
    at_ns = np.concatenate([columns.read_ns, (columns.sent_ns + columns.ttft_ns)[answered]])
    tokens = np.concatenate([columns.read_tokens, columns.input_tokens[answered]])
    return _cost(columns, window, at_ns, tokens)


def joules_of_output(columns: Columns, window: Window) -> Floats | None:
    """Return the energy of an output token (J) in each stretch; None: it is not known."""
    if not columns.energy:
        return None
    cut = _cut(columns, window, columns.read_ns, columns.read_tokens)
    used_j = None if cut is None else energy.used_until(columns, window, cut.ends_ns)
    return None if cut is None or used_j is None else np.diff(used_j) / cut.tokens


class _Cut(msgspec.Struct, frozen=True):
    """A window cut into stretches with equally many tokens."""

    ends_ns: Floats  # the window's begin, and where each stretch ends
    tokens: float  # in each stretch


def _cut(columns: Columns, window: Window, at_ns: Array, tokens: Array) -> _Cut | None:
    """Cut a window into stretches with equally many tokens; None: there are no tokens."""
    inside = (at_ns >= window.start_ns) & (at_ns <= window.end_ns) & (tokens > 0)
    if not inside.any():
        return None
    order = np.argsort(at_ns[inside], kind="stable")
    done = np.cumsum(tokens[inside][order], dtype=np.float64)
    count, _ = stretches(columns, window)
    wanted = np.linspace(0.0, done[-1], count + 1)[1:-1]
    reached_ns = np.concatenate([[window.start_ns], at_ns[inside][order]])
    between_ns = np.interp(wanted, np.concatenate([[0.0], done]), reached_ns)
    ends_ns = np.array([window.start_ns, *between_ns, window.end_ns], dtype=np.float64)
    return _Cut(ends_ns, float(done[-1]) / count)


def _cost(columns: Columns, window: Window, at_ns: Array, tokens: Array) -> Floats | None:
    if columns.price_per_h is None:
        return None
    cut = _cut(columns, window, at_ns, tokens)
    if cut is None:
        return None
    return np.diff(cut.ends_ns) / _NS_PER_H * columns.price_per_h / cut.tokens * _MILLION
