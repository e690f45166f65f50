"""Measures: every metric of a window, which requests goodput counts, and how runs are pooled."""

import numpy as np
import pytest

from llmdyno.records.columns import Columns, Window
from llmdyno.results.measures import distribution, measures, meeting, series
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.observations import Values
from llmdyno.results.slo import parse_slos
from results.run_facts import MS, SECOND, columns_of, record

TEN_S = Window(start_ns=0, end_ns=10 * SECOND, method="-")


def even(count: int, every_ms: int = 100) -> Columns:
    return columns_of(*(record(n, every_ms * n) for n in range(count)))


def test_every_row_has_a_value_but_those_that_need_an_slo_or_due_times() -> None:
    measured = measures([(even(90), TEN_S)], ())

    assert list(measured) == [
        *(row.name for row in BY_NAME.values() if row.observe and not row.open_loop),
        *(row.name for row in BY_NAME.values() if row.rate),
    ]
    assert [name for name, value in measured.items() if value is None] == [
        row.name for row in BY_NAME.values() if row.may_lack
    ]
    assert measured["ttft_ms"]["p50"] == 20
    assert measured["itl_ms"]["p99"] == 10
    assert measured["tpot_ms"]["mean"] == 10
    assert measured["e2e_ms"]["max"] == 40
    assert measured["request_rate"]["mean"] == 9


def test_requests_pool_by_time_and_token_rates_by_run() -> None:
    short = Window(start_ns=0, end_ns=2 * SECOND, method="-")
    runs = [(even(90), TEN_S), (even(10, every_ms=200), short)]

    measured = measures(runs, ())

    assert measured["request_rate"]["mean"] == pytest.approx(100 / 12, rel=1e-5)
    assert measured["token_rate"]["mean"] == pytest.approx((27 + 15) / 2)


def test_a_request_misses_no_limit_on_what_it_does_not_have() -> None:
    """An answer of one token has no time per token."""
    columns = columns_of(record(0, 0), record(1, 0, gaps_ns=(20 * MS,)))

    assert BY_NAME["tpot_ms"].of_request is not None
    assert np.isnan(BY_NAME["tpot_ms"].of_request(columns)).tolist() == [False, True]
    met = meeting(columns, parse_slos("tpot<5ms,ttft<30ms"))
    assert met is not None
    assert met.tolist() == [False, True]
    assert meeting(columns, parse_slos("itl<5ms,token_rate>1")) is None


def test_due_latencies_are_of_an_open_loop_and_longer_by_the_wait() -> None:
    columns = columns_of(*(record(n, 100 * n + 7, due_ns=100 * n * MS) for n in range(50)))

    measured = measures([(columns, TEN_S)], (), is_open=True)

    assert measured["ttft_due_ms"]["p50"] == 27
    assert measured["e2e_due_ms"]["p50"] == 47


def test_nothing_observed_is_null_and_keeps_its_keys() -> None:
    found, some = distribution(Values(np.zeros(0))), distribution(Values(np.ones(3)))

    assert list(found) == list(some)
    assert {value for name, value in found.items() if name != "n"} == {None}


def test_where_many_were_cut_the_quantiles_stand_with_them() -> None:
    found = distribution(Values(np.arange(1.0, 91.0), censored=np.full(60, 1000.0)))

    assert found["censored"] == 60
    assert found["kaplan_meier"]["p50"] > found["p50"]
    assert found["kaplan_meier"]["p99"] is None  # beyond all that was seen
    few = distribution(Values(np.arange(1.0, 1001.0), censored=np.array([5.0])))
    assert few["kaplan_meier"] is None


def test_a_series_is_in_order_of_time_and_empty_without_a_value() -> None:
    columns = columns_of(record(0, 500, gaps_ns=(30 * MS,)), record(1, 100, gaps_ns=(10 * MS,)))

    assert series("ttft_ms", columns, TEN_S).tolist() == [10, 30]
    assert len(series("goodput", columns, TEN_S)) == 0
    assert series("goodput", columns, TEN_S, parse_slos("ttft<20ms")).mean() == pytest.approx(0.1)
