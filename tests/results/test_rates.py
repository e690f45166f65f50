"""Rates over equal stretches of a window, of requests whose times are known."""

import numpy as np
import pytest

from llmdyno.records.columns import Window
from llmdyno.results.rates import completed, request_rates, token_rates, tokens_in_bins
from results.run_facts import SECOND, columns_of, record

TEN_S = Window(start_ns=0, end_ns=10 * SECOND, method="-")


def test_the_mean_of_the_stretches_is_the_rate() -> None:
    columns = columns_of(*(record(n, 100 * n) for n in range(99)))

    assert len(token_rates(columns, TEN_S)) == 40  # a quarter of a second each
    assert token_rates(columns, TEN_S).mean() == pytest.approx(99 * 3 / 10)
    assert request_rates(columns, TEN_S).mean() == pytest.approx(99 / 10)


def test_only_what_is_chosen_and_completed_inside_the_window_counts() -> None:
    columns = columns_of(
        record(0, 100),
        record(1, 200),
        record(2, 300, outcome="cut"),
        record(3, 9_990),  # ends after the window
    )

    assert completed(columns, TEN_S).tolist() == [True, True, False, False]
    chosen = np.array([True, False, True, True])
    assert request_rates(columns, TEN_S, chosen).sum() * 0.25 == pytest.approx(1)


@pytest.mark.parametrize(("seconds", "stretches"), [(0.001, 20), (30, 120), (3600, 600)])
def test_a_window_has_20_to_600_stretches(seconds: float, stretches: int) -> None:
    window = Window(start_ns=0, end_ns=round(seconds * SECOND), method="-")

    assert len(token_rates(columns_of(record(0, 0)), window)) == stretches


def test_tokens_are_counted_when_they_arrive() -> None:
    columns = columns_of(record(0, 0, gaps_ns=(SECOND, SECOND), tokens=(1, 5)))

    # Reads at 1 s and 2 s, the last of which is the end of the last bin.
    assert tokens_in_bins(columns, 0, 2 * SECOND, 2).tolist() == [0, 6]
