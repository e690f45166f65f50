"""The rows of the table are whole, and agree with each other."""

import numpy as np
import pytest

from llmdyno.records.columns import Window
from llmdyno.records.entries import OUTCOMES
from llmdyno.results import metrics
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.stats import STATISTICS
from results.run_facts import MS, SECOND, columns_of, record

ALL = Window(start_ns=0, end_ns=100 * SECOND, method="-")


@pytest.mark.parametrize("row", BY_NAME.values(), ids=BY_NAME)
def test_a_row_is_whole(row: metrics.Metric) -> None:
    assert BY_NAME[row.name] is row
    assert (row.observe is None) != (row.rate is None)
    assert row.name.endswith("_ms") == (row.unit == "ms") == (row.observe is not None)
    assert row.of_request is None or row.observe is not None
    assert row.definition.endswith(".")
    assert {shown.stat for shown in row.shown} <= set(row.statistics)
    assert {bound.stat for bound in row.lateness} <= set(STATISTICS)
    assert row.spoilt_with is None or row.spoilt_with[0] in BY_NAME


@pytest.mark.parametrize("row", metrics.of_requests(), ids=lambda row: row.name)
def test_what_is_observed_is_what_requests_have(row: metrics.Metric) -> None:
    rng = np.random.default_rng(1)
    columns = columns_of(
        *(
            record(
                n,
                50 * n,
                due_ns=50 * n * MS - 3,
                outcome=OUTCOMES[n % 3],
                gaps_ns=rng.integers(1, 40 * MS, size=1 + n % 4).tolist(),
                end_ns=300 * MS,
            )
            for n in range(60)
        )
    )
    assert row.of_request is not None
    each = row.of_request(columns)

    observed = metrics.latency_values(row.name, columns, ALL).values

    kept = each[~np.isnan(each)]
    assert sorted(observed) == pytest.approx(sorted(kept))
    assert len(kept) > 5


def test_the_schedule_delay_is_from_due_to_sent() -> None:
    columns = columns_of(
        record(0, 10, due_ns=3 * MS, gaps_ns=[MS], end_ns=MS),
        record(1, 20, due_ns=20 * MS, gaps_ns=[MS], end_ns=MS),
    )

    observed = metrics.latency_values("schedule_delay_ms", columns, ALL).values

    assert observed.tolist() == [7.0, 0.0]


def test_names_on_the_command_line_lead_back_to_the_rows() -> None:
    assert metrics.by_flag()["ttft"] == "ttft_ms"
    assert metrics.by_flag()["token_rate"] == "token_rate"
    assert {BY_NAME[name].flag for name in metrics.by_flag().values()} == set(metrics.by_flag())


def test_only_metrics_from_due_are_of_an_open_loop() -> None:
    assert {row.name for row in metrics.latencies()} - {
        row.name for row in metrics.latencies(open_loop=False)
    } == {"ttft_due_ms", "e2e_due_ms", "schedule_delay_ms"}
