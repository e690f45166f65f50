"""Columns against records of which every value is known."""

from typing import Any

import numpy as np

from llmdyno.records.columns import Collector, Columns, Window
from llmdyno.records.entries import COMPLETED, CUT, FAILED, OUTCOMES, Record

# The columns of requests and reads; energy and price stand beside them.
BESIDE = {"unsent_due_ns", "energy", "price_per_h"}
ARRAYS = [name for name in Columns.__struct_fields__ if name not in BESIDE]


def record(request: int, outcome: int, **facts: Any) -> Record:
    return Record(
        level=0,
        request=request,
        user=0,
        prompt=0,
        due_ns=90 + request,
        sent_ns=100 + request,
        end_ns=40,
        outcome=OUTCOMES[outcome],
        **facts,
    )


def collected(*records: Record) -> Columns:
    collector = Collector()
    for one in records:
        collector.add(one)
    return collector.columns()


def test_each_value_of_a_record_is_in_its_own_column() -> None:
    columns = collected(
        record(
            7,
            COMPLETED,
            gaps_ns=(10, 5, 6),
            tokens=(2, 3, 4),
            input_tokens=11,
            output_tokens=9,
            asked_tokens=8,
            reads=5,
        ),
        record(8, CUT, error="timeout"),
    )

    per_request = {
        "due_ns": [97, 98],
        "sent_ns": [107, 108],
        "ttft_ns": [10, -1],
        "last_ns": [21, -1],
        "end_ns": [40, 40],
        "outcome": [COMPLETED, CUT],
        "timed_out": [0, 1],
        "input_tokens": [11, -1],
        "output_tokens": [9, 0],
        "asked_tokens": [8, -1],
        "first_tokens": [2, 0],
        "reads": [5, 0],
    }
    per_read = {
        "read_ns": [117, 122, 128],
        "read_gap_ns": [10, 5, 6],
        "read_tokens": [2, 3, 4],
        "read_later": [False, True, True],
        "read_timed": [True, True, True],
        "read_request": [7, 7, 7],
    }
    found = {name: getattr(columns, name).tolist() for name in ARRAYS}
    assert found == per_request | per_read


def test_gaps_of_a_failed_request_do_not_count_and_reads_hold_a_token_unless_said() -> None:
    columns = collected(
        record(0, FAILED, gaps_ns=(1, 2)), record(1, COMPLETED, gaps_ns=(3,), output_tokens=1)
    )

    assert columns.read_timed.tolist() == [False, False, True]
    assert columns.read_tokens.tolist() == [1, 1, 1]
    assert columns.read_later.tolist() == [False, True, False]


def test_no_record_gives_empty_columns() -> None:
    columns = collected()

    assert {len(getattr(columns, name)) for name in ARRAYS} == {0}
    assert columns.read_later.dtype == np.bool_


def test_the_length_of_a_window_is_in_seconds() -> None:
    assert Window(start_ns=500_000_000, end_ns=2_000_000_000, method="-").length_s == 1.5
