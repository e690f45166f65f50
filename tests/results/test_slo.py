"""Thresholds and objectives as the command line writes them."""

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.results.slo import HEADLINES, judge, parse_objective, parse_slos, read_stat


def test_thresholds_are_read_in_the_metrics_own_unit() -> None:
    first, second, third = parse_slos("ttft:p99<2s, tpot:p95 <= 50ms ,token_rate>1000")

    assert (first.metric, first.stat, first.relation, first.limit) == ("ttft_ms", "p99", "<", 2000)
    assert (second.metric, second.stat, second.limit) == ("tpot_ms", "p95", 50)
    assert (third.metric, third.stat, third.relation, third.limit) == (
        *("token_rate", "mean", ">", 1000),
    )
    (cost,) = parse_slos("joules_per_token<0.5")  # a rate of which less is better
    assert (cost.relation, cost.limit, cost.stat) == ("<", 0.5, "mean")
    assert parse_slos(None) == parse_slos(" , ") == ()


def test_the_constraints_of_llm_optimizer_are_read() -> None:
    first, second, third = parse_slos("ttft:p95<200ms;itl:median<20ms; e2e_latency:mean<=2s;")

    assert (first.metric, first.stat, first.limit) == ("ttft_ms", "p95", 200)
    assert (second.metric, second.stat, second.limit) == ("itl_ms", "p50", 20)
    assert (third.metric, third.stat, third.limit) == ("e2e_ms", "mean", 2000)
    assert second.expr == "itl:median<20ms"


def test_a_threshold_is_read_however_it_is_spaced_and_in_capitals() -> None:
    plain, odd = (
        parse_slos("ttft:p95<200ms,itl:p50<20ms"),
        parse_slos(" TTFT : P95 <= 200 MS ;itl :median< 20ms;"),
    )
    assert [msgspec.structs.replace(one, expr="") for one in plain] == [
        msgspec.structs.replace(one, expr="") for one in odd
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ttft", "write metric:stat<limit"),
        ("tttf<2s", "no metric 'tttf'"),
        ("ttft:p42<2s", "'p42' is no statistic of ttft; use mean, p50, p90, p95, p99, max"),
        ("token_rate:p50>2", "'p50' is no statistic of token_rate; use mean"),
        ("ttft>2s", "ttft is better lower; use <"),
        ("goodput<2", "goodput is better higher; use >"),
        ("ttft<2", "ttft needs a unit"),
        ("ttft:p95<1min", "'min' is no unit here; write us, ms, s or m"),
        ("ttft:p95<-200ms", "'-200ms' is no limit; write a number"),
        ("ttft:p99<1,5s", "'1,5s' is no limit; write a number"),
        ("TTFT:p99<=1,5 S", "'1,5 S' is no limit; write a number"),
        ("ttft:p95<nan", "'nan' is no limit; write a number"),
        ("ttft:p95<1e3ms", "'1e3ms' is no limit; write a number"),
        ("token_rate>1,000", "'1,000' is no limit; write a number"),
        ("token_rate>.", "'.' is no limit; write a number"),
        ("ttft:p95<", "'' is no limit; write a number"),
        ("token_rate>1000tok/s", "token_rate is in tok/s; write the number alone"),
        ("token_rate>2s", "token_rate is in tok/s"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused_with_what_would_be_right(
    text: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_slos(text)

    assert str(refused.value).startswith(f"--slo {text}: ")
    assert sentence in str(refused.value)


def test_an_objective_knows_its_key_its_statistic_and_its_name() -> None:
    latency, rate = parse_objective("ttft"), parse_objective("goodput")

    assert (str(latency), latency.key, latency.maximise) == ("ttft:p50", "ttft_ms_p50", False)
    assert (str(rate), rate.key, rate.maximise) == ("goodput:mean", "goodput", True)
    assert latency.statistic.share == 0.5
    assert rate.statistic.share is None
    assert [one.key for one in HEADLINES] == ["token_rate", "ttft_ms_p50"]


def test_what_a_level_lacks_has_no_value() -> None:
    assert read_stat({"goodput": None}, "goodput", "mean") is None
    assert read_stat({}, "ttft_ms", "p50") is None
    assert read_stat({"ttft_ms": {"p50": 3.0}}, "ttft_ms", "p50") == 3.0


@pytest.mark.parametrize(
    ("expr", "failed", "met"),
    [
        ("ttft:p99<2s", 10, True),
        ("ttft:p99<2s", 11, False),
        ("ttft:p90<2s", 100, True),
        ("ttft:p90<2s", 101, False),
        ("e2e:p50<2s", 501, False),
        ("e2e:mean<2s", 11, False),
        ("e2e:max<2s", 11, False),
        ("itl:p99<2s", 11, False),  # a request that failed has no gaps, which is no good one
        ("itl:p50<2s", 500, True),
        ("token_rate>1", 500, True),  # what failed is not in it
    ],
)
def test_an_slo_is_missed_where_its_statistic_is_one_of_failed_requests(
    expr: str, failed: int, *, met: bool
) -> None:
    (slo,) = parse_slos(expr)
    level = {
        "requests": {"completed": 1000 - failed, "failed": failed},
        slo.metric: {slo.stat: 50.0},
    }

    judged = judge(slo, level)

    assert (judged.met, judged.value) == (met, 50.0)
    assert judged.failed_share == (None if met else failed / 1000)
