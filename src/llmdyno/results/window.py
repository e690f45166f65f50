"""The part of a level that counts: found from the token rate, never set by hand."""

from llmdyno.records.columns import Columns, Window
from llmdyno.results import stats
from llmdyno.results.facts import LevelFacts
from llmdyno.results.metrics import latency_values
from llmdyno.results.rates import tokens_in_bins

_WINDOW_FIRST_TOKENS_MIN = 5
_BIN_NS = 100_000_000
_BINS_MIN, _BINS_MAX = 20, 500


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
        bins = min(_BINS_MAX, max(_BINS_MIN, span_ns // _BIN_NS))
        counts = tokens_in_bins(columns, ramped_ns, facts.full_until_ns, int(bins))
        cut_ns = round(span_ns * stats.steady_start(counts) / bins)
        window = Window(
            start_ns=ramped_ns + cut_ns,
            end_ns=facts.full_until_ns,
            steady=True,
            method="after the ramp, MSER-5 on the token rate",
        )
        if _first_tokens(columns, window) >= _WINDOW_FIRST_TOKENS_MIN:
            return window
    return Window(
        start_ns=start_ns,
        end_ns=facts.end_ns,
        method="whole level: too short for a steady state",
    )


def _first_tokens(columns: Columns, window: Window) -> int:
    return len(latency_values("ttft_ms", columns, window).values)


def whole_level(facts: LevelFacts) -> Window:
    """Return the window that is all of a level, ramp and drain included."""
    return Window(start_ns=facts.started.start_ns, end_ns=facts.end_ns, method="whole level")
