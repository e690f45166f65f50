"""Requests that wait for their first token when the window ends count, whatever became of them."""

import msgspec
import numpy as np
import pytest

from llmdyno.records.columns import Window
from llmdyno.records.entries import Record
from llmdyno.results.capacity import measured_point
from llmdyno.results.censoring import censoring
from llmdyno.results.measures import measures, meeting
from llmdyno.results.observations import Values
from llmdyno.results.slo import Judged, judge, parse_slos
from results.run_facts import MS, SECOND, columns_of, level_facts, record

WINDOW = Window(start_ns=SECOND, end_ns=5 * SECOND, method="-")


def starved(*, answered_ms: int = 3600, waiting: int = 3) -> list[Record]:
    """Return two users whose first tokens come after 90 ms, and others that wait for 3.5 s."""
    served = [record(n, 1010 + 50 * n, gaps_ns=(90 * MS, MS)) for n in range(70)]
    sent_ms = 5000 - 3500
    return served + [
        record(100 + n, sent_ms, gaps_ns=(answered_ms * MS, MS)) for n in range(waiting)
    ]


@pytest.mark.parametrize("sent_ms", [500, 1500])
@pytest.mark.parametrize("outcome", ["completed", "cut", "failed"])
def test_a_wait_that_outlasts_the_window_is_censored_at_its_end(sent_ms: int, outcome: str) -> None:
    late = record(99, sent_ms, gaps_ns=(5000 * MS,), outcome=outcome)

    found = measures([(columns_of(*starved(waiting=0), late), WINDOW)], ())["ttft_ms"]

    assert (found["n"], found["censored"], found["max"]) == (70, 1, 90)
    assert found["censored_ms_max"] == 5000 - sent_ms
    assert found["kaplan_meier"]["p50"] == 90


@pytest.mark.parametrize(
    "other",
    [
        record(99, 4000, gaps_ns=(), end_ns=500 * MS, outcome="failed"),  # refused before
        record(99, 5001, gaps_ns=(90 * MS,)),  # sent after the window
        record(99, 4000, gaps_ns=(1000 * MS,)),  # answered at its very end
    ],
)
def test_what_did_not_wait_at_the_windows_end_is_not_censored(other: Record) -> None:
    found = measures([(columns_of(*starved(waiting=0), other), WINDOW)], ())["ttft_ms"]

    assert (found["censored"], found["kaplan_meier"]) == (0, None)


@pytest.mark.parametrize("error", ["timeout", "http-504", "http-503"])
def test_a_timeout_is_a_wait_and_a_refusal_is_none(error: str) -> None:
    given_up = [
        record(100 + n, 2000, gaps_ns=(), end_ns=1000 * MS, outcome="failed", error=error)
        for n in range(20)
    ]
    slos = parse_slos("ttft:p90<500ms,e2e:p90<500ms")
    measured = measures([(columns_of(*starved(waiting=0), *given_up), WINDOW)], slos)

    waited = error != "http-503"
    for slo in slos:
        assert measured[slo.metric]["censored"] == (20 if waited else 0)
        judged = judge(slo, measured)
        assert (judged.met, judged.at_least) == ((False, 1000) if waited else (True, None))
    assert measured["ttft_ms"]["max"] == 90


def test_a_timeout_after_the_first_token_is_a_wait_for_the_last() -> None:
    late = record(99, 2000, gaps_ns=(90 * MS,), end_ns=1000 * MS, outcome="failed", error="timeout")
    measured = measures([(columns_of(*starved(waiting=0), late), WINDOW)], ())

    assert (measured["ttft_ms"]["censored"], measured["e2e_ms"]["censored"]) == (0, 1)
    assert measured["e2e_ms"]["censored_ms_max"] == 1000


def test_starved_users_miss_the_slo_that_the_others_meet() -> None:
    columns = columns_of(*starved())
    (slo,) = parse_slos("ttft:p99<1s")
    measured = measures([(columns, WINDOW)], (slo,))

    assert measured["ttft_ms"]["p99"] == 90
    assert judge(slo, measured) == Judged(met=False, value=None, at_least=3500)
    (median,) = parse_slos("ttft:p50<1s")
    assert judge(median, measured) == Judged(met=True, value=90)
    # Their E2E is as unknown, and the mean of both is at least what they have waited for.
    (e2e,) = parse_slos("e2e:p99<1s")
    assert judge(e2e, measured).at_least == 3500
    (mean,) = parse_slos("ttft:mean<200ms")
    judged = judge(mean, measured)
    assert not judged.met
    assert judged.at_least == pytest.approx((70 * 90 + 3 * 3500) / 73, rel=1e-5)


def test_a_wait_a_little_longer_than_all_seen_misses_no_slo_that_it_met_in_the_end() -> None:
    columns = columns_of(*starved(waiting=0), record(99, 4900, gaps_ns=(110 * MS,)))
    tight, wide = parse_slos("ttft:max<105ms,ttft:max<1s")
    measured = measures([(columns, WINDOW)], ())

    assert measured["ttft_ms"]["kaplan_meier"]["max"] is None
    assert judge(wide, measured) == Judged(met=True, value=110)
    assert judge(tight, measured) == Judged(met=False, value=None, at_least=100)


def test_what_was_never_answered_meets_no_slo() -> None:
    never = record(99, 4900, gaps_ns=(), end_ns=150 * MS, outcome="cut")
    measured = measures([(columns_of(*starved(waiting=0), never), WINDOW)], ())
    (slo,) = parse_slos("ttft:max<1s")

    assert judge(slo, measured) == Judged(met=False, value=None, at_least=100)


def test_a_request_that_never_got_a_slot_counts_from_when_it_was_due() -> None:
    sent = columns_of(*starved(waiting=0))
    columns = msgspec.structs.replace(sent, unsent_due_ns=(SECOND, 2 * SECOND, 9 * SECOND))
    measured = measures([(columns, WINDOW)], (), is_open=True)
    due, e2e, plain = parse_slos("ttft_due:p99<200ms,e2e_due:p99<200ms,ttft:p99<200ms")

    assert measured["ttft_due_ms"]["censored"] == 2  # the third was due after the window
    assert judge(due, measured) == Judged(met=False, value=None, at_least=4000)
    assert judge(e2e, measured).at_least == 4000
    assert judge(plain, measured).met


def test_a_search_for_the_capacity_counts_them_too() -> None:
    slos = parse_slos("ttft:p99<1s")
    served, waited = (
        measured_point(level_facts(*starved(waiting=n), seconds=5.0), slos) for n in (0, 3)
    )

    assert served.margin < 0 < waited.margin


def test_a_waiting_request_is_no_goodput() -> None:
    slos = parse_slos("ttft<1s")
    measured = measures([(columns_of(*starved()), WINDOW)], slos)

    met = meeting(columns_of(*starved()), slos)
    assert met is not None
    assert met.tolist() == [True] * 70 + [False] * 3
    assert measured["goodput"]["mean"] == measured["request_rate"]["mean"]


def test_equal_runs_are_pooled_with_those_that_waited() -> None:
    columns = columns_of(*starved())

    pooled = measures([(columns, WINDOW), (columns, WINDOW)], ())["ttft_ms"]

    assert (pooled["n"], pooled["censored"]) == (140, 6)
    assert "p50" not in pooled["at_least"]  # it is known
    assert pooled["answered_later"]["max"] == 3600


def test_a_few_short_waits_change_nothing() -> None:
    values = np.arange(1.0, 1001.0)

    assert censoring(Values(values), 990.0) == {}
    assert censoring(Values(values, censored=np.zeros(0)), 990.0) == {
        "censored": 0,
        "kaplan_meier": None,
    }
    short = censoring(Values(values, censored=np.array([5.0])), 990.0)
    assert (short["censored"], short["kaplan_meier"]) == (1, None)
    longer = censoring(Values(values, censored=np.array([995.0])), 990.0)
    assert longer["kaplan_meier"]["p99"] == 991


def test_the_mean_by_kaplan_and_meier_is_that_of_its_curve() -> None:
    # Known 1, 2, 4; one more is greater than 2: three quarters are done at 2 but for that one.
    found = censoring(Values(np.array([1.0, 2, 4]), censored=np.array([2.0])), 4.0)

    assert found["kaplan_meier"]["mean"] == pytest.approx(0.25 * 1 + 0.25 * 2 + 0.5 * 4)


def test_a_statistic_that_the_waits_do_not_move_is_the_plain_one() -> None:
    """Kaplan and Meier do not interpolate: their median of 1, 2, 3, 4 is 2 and not 2.5."""
    found = censoring(Values(np.array([1.0, 2, 3, 4]), censored=np.array([0.5])), 3.97)
    (slo,) = parse_slos("ttft:p50<1s")

    assert (found["kaplan_meier"]["p50"], found["moved"]) == (2, [])
    assert judge(slo, {"ttft_ms": {"p50": 2.5, **found}}).value == 2.5
    moved = censoring(Values(np.array([1.0, 2, 3, 4]), censored=np.array([2.0])), 3.97)
    assert moved["moved"] == ["mean", "p50"]
    assert judge(slo, {"ttft_ms": {"p50": 2.5, **moved}}).value == 3
