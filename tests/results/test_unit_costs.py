"""What a token costs: the sum is the truth, however unevenly the tokens come."""

import msgspec
import numpy as np
import pytest

from llmdyno.records.columns import Columns, Energy, Window
from llmdyno.results import unit_costs
from results.run_facts import MS, SECOND, columns_of, record

TEN_S = Window(start_ns=0, end_ns=10 * SECOND, method="-")


def uneven(*, price_per_h: float | None = None, energy: tuple[Energy, ...] = ()) -> Columns:
    """500 tokens in the first second, 100 in the nine others; each request asked with 40."""
    fast = [record(n, 0, gaps_ns=[10 * MS] * 100, end_ns=SECOND, input_tokens=40) for n in range(5)]
    slow = record(5, 1000, gaps_ns=[90 * MS] * 100, end_ns=9 * SECOND, input_tokens=40)
    return msgspec.structs.replace(columns_of(*fast, slow), price_per_h=price_per_h, energy=energy)


def test_the_cost_is_that_of_all_tokens_together() -> None:
    columns = uneven(price_per_h=36.0)  # 0.1 in ten seconds

    output = unit_costs.cost_of_output(columns, TEN_S)
    both = unit_costs.cost_of_all(columns, TEN_S)

    assert output is not None
    assert both is not None
    assert output.mean() == pytest.approx(0.1 / 600 * 1e6)
    assert both.mean() == pytest.approx(0.1 / (600 + 6 * 40) * 1e6)
    assert output[0] < output[-1]  # the slow tokens are the dear ones


def test_the_energy_is_that_of_all_tokens_together() -> None:
    source = Energy(
        source="gpu-0",
        by="counter",
        t_ns=np.arange(0, 11) * SECOND,
        joules=np.array([0, *np.cumsum([500] + [100] * 9)], dtype=np.float64),
    )

    joules = unit_costs.joules_of_output(uneven(energy=(source,)), TEN_S)

    assert joules is not None
    assert joules.mean() == pytest.approx(1400 / 600)


def test_without_price_energy_or_tokens_there_is_no_value() -> None:
    assert unit_costs.cost_of_output(uneven(), TEN_S) is None
    assert unit_costs.cost_of_all(uneven(), TEN_S) is None
    assert unit_costs.joules_of_output(uneven(), TEN_S) is None
    later = Window(start_ns=20 * SECOND, end_ns=30 * SECOND, method="-")
    assert unit_costs.cost_of_output(uneven(price_per_h=1.0), later) is None


def test_input_tokens_that_were_not_told_leave_no_total() -> None:
    columns = msgspec.structs.replace(
        columns_of(record(0, 0, gaps_ns=[MS], end_ns=MS, input_tokens=-1)), price_per_h=1.0
    )

    assert unit_costs.cost_of_all(columns, TEN_S) is None
    assert unit_costs.cost_of_output(columns, TEN_S) is not None
