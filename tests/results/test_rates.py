"""Rates over equal stretches of a window, of requests whose times are known."""

import numpy as np
import pytest

from llmdyno.records.columns import Columns, Window
from llmdyno.results import stats
from llmdyno.results.rates import (
    completed,
    lockstep_period_s,
    request_rates,
    token_rates,
    tokens_in_bins,
)
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


def lockstep(rng: np.random.Generator, seconds: float, jitter_ms: float) -> Columns:
    """Return ten users who send at once: 200 ms, 16 tokens 5 ms apart, 10 ms of thought."""
    starts_ms = np.cumsum(285 + rng.normal(0, jitter_ms, int(seconds / 0.285) + 4)) - 570
    starts_ms += rng.uniform(0, 285)  # the window begins anywhere in a period
    gaps_ns = [200_000_000, *[5_000_000] * 15]
    return columns_of(
        *(
            record(n, start_ms, gaps_ns=gaps_ns, tokens=(10,) * 16, output_tokens=160)
            for n, start_ms in enumerate(starts_ms)
        )
    )


@pytest.mark.parametrize("jitter_ms", [0.0, 5.0])
def test_the_interval_of_users_in_lockstep_is_as_wide_as_their_rate_varies(
    jitter_ms: float,
) -> None:
    rng = np.random.default_rng(1)
    window = Window(start_ns=0, end_ns=20 * SECOND, method="-")
    truth = 160 / 0.285
    means, held, widths, blind = [], 0, [], []
    for _ in range(40):
        columns = lockstep(rng, 20, jitter_ms)
        rates = token_rates(columns, window)
        even = tokens_in_bins(columns, 0, window.end_ns, 80) * 4
        low, high = stats.interval95(stats.bootstrap(rates, stats.mean_over_time, resamples=200))
        of_even = stats.Blocks(stats.block_length(80), wraps=True)
        drawn = stats.block_resamples(even, 200, np.random.default_rng(0), of_even)
        means.append(rates.mean())
        held += low <= truth <= high
        widths.append(high - low)
        blind.append(np.ptp(stats.interval95(stats.mean_over_time(drawn))))

    right = 2 * 1.96 * np.std(means)
    assert held >= 36  # 95 % of 40 is 38
    assert np.mean(widths) < 2 * right
    assert np.mean(blind) > 1.5 * np.mean(widths)  # blocks that know no period


def test_the_period_is_that_of_the_users_and_others_have_none() -> None:
    window = Window(start_ns=0, end_ns=20 * SECOND, method="-")
    rng = np.random.default_rng(2)

    found = lockstep_period_s(lockstep(rng, 20, 1.0), window)

    assert found is not None
    assert found / 0.285 == pytest.approx(round(found / 0.285), abs=0.02)
    alone = (record(n, at_ms) for n, at_ms in enumerate(rng.uniform(0, 20_000, 700)))
    assert lockstep_period_s(columns_of(*alone), window) is None
    short = Window(start_ns=0, end_ns=SECOND // 10, method="-")
    assert lockstep_period_s(lockstep(rng, 20, 1.0), short) is None
