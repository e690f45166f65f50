"""Cells of a table of measured levels: are they numbers, and in the units that they should be?"""

import math

from llmdyno.errors import UsageError

_UNIT = 1000.0  # between seconds, milliseconds and microseconds
_NEAR = 3.0  # times that medians of latencies in another unit may be from Little's law
_ANSWER_LEAST = 8  # tokens; of a shorter answer TPOT says little


def read_number(cell: str, name: str, where: str) -> float | None:
    """Return a cell's number; None: it is empty.

    Raises:
        UsageError: it is no number from 0 on; names the row and the column.
    """
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--from {where}: {name} is {cell!r}; it must be a number from 0 on.")
    return value


def check_units(
    users: float | None,
    requests_s: float,
    ttft_ms: float | None,
    tpot_ms: float | None,
    osl: float,
    where: str,
) -> None:
    """Refuse latencies in other units: by Little's law users x 1000 = requests/s x latency in ms.

    Users who pause between answers wait for less of the time. So latencies are refused only where
    another unit would make about all users wait.

    Raises:
        UsageError: names the columns.
    """
    if users is None or ttft_ms is None or tpot_ms is None or osl < _ANSWER_LEAST:
        return
    waiting = requests_s * (ttft_ms + (osl - 1) * tpot_ms) / 1e3
    for factor in (_UNIT, 1 / _UNIT):
        if users / _NEAR < waiting * factor < users * _NEAR:
            raise UsageError(
                f"--from {where}: ttft_ms_p50 {ttft_ms:g} and tpot_ms_p50 {tpot_ms:g} would keep"
                f" {waiting:.3g} of {users:g} users waiting by Little's law, and"
                f" {waiting * factor:.3g} if they were {factor:g} times as long; both must be in"
                " milliseconds."
            )
