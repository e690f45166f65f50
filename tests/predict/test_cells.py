"""Cells of a table: numbers, and latencies in milliseconds."""

import pytest

from llmdyno.errors import UsageError
from llmdyno.predict.cells import check_units, read_number


def test_a_cell_is_a_number_from_0_on_or_empty() -> None:
    assert read_number("1e3", "token_rate", "t.csv:2") == 1000
    assert read_number("", "token_rate", "t.csv:2") is None
    for cell in ("-1", "inf", "50%"):
        with pytest.raises(UsageError, match=r"t.csv:2: token_rate is '.*'; it must be a number"):
            read_number(cell, "token_rate", "t.csv:2")


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_latencies_in_other_units_break_littles_law(factor: float) -> None:
    ttft_ms, tpot_ms = 100.0, 10.0  # 10 users wait 1.09 s for 100 tokens: 9.2 requests/s
    check_units(10, 9.2, ttft_ms, tpot_ms, 100, "t.csv:2")
    check_units(None, 9.2, ttft_ms * factor, tpot_ms * factor, 100, "t.csv:2")  # nothing to tell
    with pytest.raises(UsageError, match=r"t.csv:2: .* must be in milliseconds"):
        check_units(10, 9.2, ttft_ms * factor, tpot_ms * factor, 100, "t.csv:2")


@pytest.mark.parametrize("pause_s", [0, 3, 30, 100])
def test_users_who_pause_are_in_no_other_unit(pause_s: float) -> None:
    """50 of them, each waiting 0.49 s for 40 tokens."""
    check_units(50, 50 / (pause_s + 0.49), 100, 10, 40, "t.csv:2")
