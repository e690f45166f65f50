"""How numbers are written: three significant digits, a unit, the interval beside it.

Every table, chart label and sentence of the report comes through here, so that one number reads the
same wherever it stands. A value that is not there is a dash and never a zero.
"""

import math
from collections.abc import Callable, Sequence

from llmdyno.results.documents import Interval

ABSENT = "-"


def significant(value: float | None) -> str:
    """Write three significant digits without an exponent: 0.0421, 4.21, 1,370."""
    if value is None:
        return ABSENT
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def short(value: float) -> str:
    """Write at most four significant digits, none that is a zero at the end: 8, 12.5, 14,160."""
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{float(f'{value:.4g}'):,.0f}"


def count(value: float | None) -> str:
    """Write a count, exactly."""
    return ABSENT if value is None else f"{value:,.0f}"


def milliseconds(value_ms: float | None) -> str:
    """Write a latency in the unit that reads best: 412 ms, 1.29 s."""
    if value_ms is None:
        return ABSENT
    if abs(value_ms) >= 1000:
        return f"{significant(value_ms / 1000)} s"
    return f"{significant(value_ms)} ms"


def seconds(value_s: float | None) -> str:
    """Write a duration: 4.2 s, 12.5 min, 1.4 h."""
    if value_s is None:
        return ABSENT
    if value_s >= 5400:
        return f"{significant(value_s / 3600)} h"
    if value_s >= 600:
        return f"{significant(value_s / 60)} min"
    return f"{significant(value_s)} s"


def ratio(value: float | None) -> str:
    """Write how many times as much: 3.10x."""
    return ABSENT if value is None else f"{significant(value)}x"


def share(value: float | None, digits: int = 0) -> str:
    """Write a share of one: 21 %, with a digit 21.3 %; a share that is typed is 21%."""
    return ABSENT if value is None else f"{100 * value:.{digits}f} %"


def interval(bounds: Interval) -> str:
    """Write an interval: [2.81, 3.42]."""
    low, high = bounds
    return f"[{significant(low)}, {significant(high)}]"


def milliseconds_interval(bounds_ms: Interval, value_ms: float) -> str:
    """Write an interval of latencies with its unit once, that of its value: [1.95, 2.21] s."""
    low_ms, high_ms = bounds_ms
    if abs(value_ms) >= 1000:
        return f"{interval((low_ms / 1000, high_ms / 1000))} s"
    return f"{interval(bounds_ms)} ms"


def with_interval(
    value: float | None,
    bounds: Interval | None,
    write: Callable[[float | None], str] = significant,
) -> str:
    """Write a value with its interval behind it: 3.10x [2.81, 3.42]."""
    if value is None or bounds is None:
        return write(value)
    return f"{write(value)} {interval(bounds)}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: "a", "a and b", "a, b and c"."""
    return " and ".join(one for one in (", ".join(names[:-1]), *names[-1:]) if one)


_NAMED = 3  # studies that a sentence names; more are counted


def studies_beside(beside: Sequence[str]) -> str:
    """Say which other studies ran on the machine: "Another study ran on this machine: a".

    Args:
        beside: a study each, its folder's name with the process.
    """
    if len(beside) == 1:
        return f"Another study ran on this machine at the same time: {beside[0]}"
    names = list(dict.fromkeys(one.partition(" (process ")[0] for one in beside))
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    said = ", ".join([*names[:_NAMED], *more])
    return f"{len(beside)} other studies ran on this machine at the same time: {said}"
