"""`--fail-on`: its grammar, and what it makes of intervals."""

from typing import Any

import pytest

from llmdyno.errors import UsageError
from llmdyno.results import fail_on
from llmdyno.results.fail_on import judge, parse_limits


def row(
    metric: str = "token_rate",
    stat: str = "mean",
    *,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    why: str = "",
    doubts: tuple[str, ...] = (),
    at: str = "100 users",
) -> dict[str, Any]:
    mean = None if bounds is None else sum(bounds) / 2
    return {
        "at": at,
        "metric": metric,
        "stat": stat,
        "difference_pct": mean,
        "ci95_pct": bounds,
        "verdict": "not comparable" if why else "no difference",
        "why": why,
        "doubts": list(doubts),
    }


def gate(
    limits: str, *rows: dict[str, Any], strict: bool = False, alone: tuple[str, ...] = ()
) -> dict[str, Any]:
    comparison = {
        "after": {"name": "b"},
        "rows": list(rows),
        "why": "",
        "only_in_one": list(alone),
    }
    found = judge(parse_limits(limits), [comparison], strict=strict)
    assert found is not None
    return found


def test_limits_are_read() -> None:
    limits = parse_limits("token_rate:-5%, ttft:p99:+10 %;itl_ms:p50:+2.5%,ttft_due:+1%")

    assert [(one.metric, one.stat, one.share) for one in limits] == [
        ("token_rate", "mean", -0.05),
        ("ttft_ms", "p99", 0.1),
        ("itl_ms", "p50", 0.025),
        ("ttft_due_ms", "p99", 0.01),
    ]
    assert parse_limits(None) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "names no metric; write token_rate:-5%"),
        (" , ", "names no metric"),
        ("token_rate", "write metric:change"),
        ("token_rate<5", "write metric:change"),
        ("token_rate:-5", "is a share; write -5%."),
        ("token_rate:5%", "token_rate is worse when it falls; write -5%."),
        ("token_rate:+5%", "token_rate is worse when it falls; write -5%."),
        ("ttft:p99:-10%", "ttft is worse when it rises; write +10%."),
        ("ttft:10%", "ttft is worse when it rises; write +10%."),
        ("tokenrate:-5%", "no metric 'tokenrate'. Did you mean 'token_rate'?"),
        ("ttft:p98:+5%", "'p98' is no statistic of ttft; use mean, p50, p90, p95, p99, max."),
        ("token_rate:p99:-5%", "'p99' is no statistic of token_rate; use mean."),
        ("token_rate:-100%", "nothing falls by 100%; write less than 100%."),
        ("ttft:+5%,ttft:p99:+6%", "--fail-on ttft:p99:+6%: that metric has a limit already"),
    ],
)
def test_what_cannot_be_a_limit_is_refused(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"^--fail-on .*[.?]$") as caught:
        parse_limits(given)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "status", "strict"),
    [
        ((-9.0, -5.1), 1, 1),  # the whole interval is beyond the limit
        ((-9.0, -4.9), 0, 1),  # it may be
        ((-4.9, 3.0), 0, 0),
        ((5.1, 9.0), 0, 0),  # better is never worse
    ],
)
def test_a_limit_is_missed_by_the_whole_interval(
    bounds: tuple[float, float], status: int, strict: int
) -> None:
    assert gate("token_rate:-5%", row(bounds=bounds))["status"] == status
    assert gate("token_rate:-5%", row(bounds=bounds), strict=True)["status"] == strict


def test_a_latency_is_worse_when_it_rises() -> None:
    worse = row("ttft_ms", "p99", bounds=(10.5, 20.0))
    better = row("ttft_ms", "p99", bounds=(-20.0, -10.5))

    assert gate("ttft:p99:+10%", worse)["status"] == 1
    assert gate("ttft:p99:+10%", better, strict=True)["status"] == 0
    assert gate("ttft:p99:+0%", row("ttft_ms", "p99", bounds=(0.1, 0.2)))["status"] == 1


def test_what_a_doubt_spoils_fails_the_strict_only() -> None:
    spoilt = row(doubts=("failed-requests",))

    assert gate("token_rate:-5%", spoilt)["status"] == 0
    found = gate("token_rate:-5%", spoilt, strict=True)
    assert (found["status"], found["limits"][0]["state"]) == (1, "doubtful")
    assert "failed-requests spoils it" in found["said"]


def test_a_level_that_is_not_comparable_is_said_and_fails_the_strict_only() -> None:
    rows = (row(), row(at="10 users", why="the load was not the same", bounds=None))

    found = gate("token_rate:-5%", *rows)

    assert found["status"] == 0
    assert found["said"].endswith("; 1 of 2 could not be compared.")
    assert gate("token_rate:-5%", *rows, strict=True)["status"] == 1


def test_a_level_that_one_side_lacks_is_said_and_fails_the_strict_only() -> None:
    alone = ("3 users: measured in a only",)

    found = gate("token_rate:-5%", row(), alone=alone)

    assert (found["status"], found["limits"][1]["at"]) == (0, "3 users")
    assert found["said"].endswith("; 1 of 2 could not be compared.")
    assert gate("token_rate:-5%", row(), alone=alone, strict=True)["status"] == 1
    assert gate("token_rate:-5%", alone=alone)["status"] == 3


def test_a_limit_that_was_judged_nowhere_is_no_pass() -> None:
    nowhere = row(why="the load was not the same", bounds=None)

    for rows in ((nowhere,), (row(bounds=None),), ()):
        found = gate("token_rate:-5%", *rows)
        assert found["status"] == fail_on.EXIT_NOTHING_JUDGED
        assert "compared nothing for token_rate:-5%" in found["said"]
        assert gate("token_rate:-5%", *rows, strict=True)["status"] == 1
    # One that was judged is no excuse for another that was not; one that fails says more.
    assert gate("token_rate:-5%,ttft:+5%", row())["status"] == 3
    assert gate("token_rate:-5%,ttft:+5%", row(bounds=(-9.0, -8.0)))["status"] == 1


def test_without_limits_there_is_no_gate() -> None:
    assert judge((), [], strict=False) is None
