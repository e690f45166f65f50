"""Cells that several tables share."""

import pytest

from llmdyno.report.tables import Cell, bounds_cell, met_cell


def test_an_interval_or_a_dash() -> None:
    assert bounds_cell((1.0, 2.5)) == Cell("[1.00, 2.50]", "number")
    assert bounds_cell(None) == Cell("-", "number")


@pytest.mark.parametrize(
    ("met", "text", "tone"), [(True, "met", "good"), (False, "missed", "bad"), (None, "-", "")]
)
def test_whether_an_slo_was_met(met: object, text: str, tone: str) -> None:
    cell = met_cell(met)

    assert (cell.text, cell.tone) == (text, tone)
