"""The words for a confirmation: which one a ratio gives, and how it is told."""

from typing import Any

import pytest

from llmdyno.results import verdicts


@pytest.mark.parametrize(
    ("ratio", "more", "less"),
    [
        ({"mean": 1.2, "ci95": [1.1, 1.3]}, "better", "worse"),
        ({"mean": 0.8, "ci95": [0.7, 0.9]}, "worse", "better"),
        ({"mean": 1.2, "ci95": [1.0, 1.4]}, "no difference", "no difference"),
        ({"mean": 1.2, "ci95": None}, "not confirmed", "not confirmed"),
        ({"mean": None, "ci95": None}, "not confirmed", "not confirmed"),
        (
            {"mean": None, "ci95": None, "difference": {"mean": 2.0, "ci95": [1.0, 3.0]}},
            "better",
            "worse",
        ),
    ],
)
def test_the_interval_decides(ratio: dict[str, Any], more: str, less: str) -> None:
    assert verdicts.verdict(ratio, maximise=True) == more
    assert verdicts.verdict(ratio, maximise=False) == less


@pytest.mark.parametrize(
    ("word", "ratio", "expected"),
    [
        ("no difference", {"mean": 1.0, "ci95": [0.995, 1.005]}, True),
        ("no difference", {"mean": 1.0, "ci95": [0.99, 1.01]}, True),  # within, its ends too
        ("no difference", {"mean": 1.0, "ci95": [0.98999, 1.005]}, False),
        ("no difference", {"mean": 1.0, "ci95": [0.995, 1.01001]}, False),
        ("better", {"mean": 1.004, "ci95": [1.002, 1.006]}, False),  # a difference is shown
        ("not confirmed", {"mean": 1.0, "ci95": [0.999, 1.001]}, False),  # SLOs now and then
        ("no difference", {"mean": 1.0, "ci95": None}, False),
        (
            "no difference",
            {"mean": None, "ci95": None, "difference": {"mean": 0.0, "ci95": [-0.001, 0.001]}},
            False,
        ),
    ],
)
def test_equal_is_what_lies_within_one_percent(
    word: verdicts.Word, ratio: dict[str, Any], *, expected: bool
) -> None:
    assert verdicts.shown_equal(word, ratio, []) is expected


@pytest.mark.parametrize(
    ("word", "ratio", "more", "less"),
    [
        ("no difference", {"mean": 0.98, "ci95": [0.9, 1.07]}, True, False),
        ("no difference", {"mean": 1.02, "ci95": [0.93, 1.1]}, False, True),
        ("no difference", {"mean": 1.0, "ci95": [0.9, 1.1]}, True, True),
        ("worse", {"mean": 0.9, "ci95": [0.85, 0.95]}, False, False),  # it is rejected anyway
        ("not confirmed", {"mean": 0.98, "ci95": [0.9, 1.07]}, False, False),
        ("no difference", {"mean": None, "ci95": None}, False, False),
        (
            "no difference",
            {"mean": None, "ci95": None, "difference": {"mean": -1.0, "ci95": [-3.0, 1.0]}},
            True,
            False,
        ),
    ],
)
def test_nothing_speaks_for_what_is_no_better_in_the_mean(
    word: verdicts.Word, ratio: dict[str, Any], *, more: bool, less: bool
) -> None:
    assert verdicts.no_better(word, ratio, [], maximise=True) is more
    assert verdicts.no_better(word, ratio, [], maximise=False) is less


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [(7, 10, False), (9, 10, False), (10, 10, True), (7, 7, True), (10, 9, True)],
)
def test_who_meets_the_slos_in_more_runs_is_neither_equal_nor_no_better(
    before: int, after: int, *, stays: bool
) -> None:
    """SLOs come first: 10 of 10 runs for 7 had been thrown away for a mean of 0.999."""
    runs = [
        {"arm": arm, "slo_met": number < met}
        for arm, met in (("before", before), ("after", after))
        for number in range(10)
    ]
    ratio = {"mean": 0.999, "ci95": [0.995, 1.004]}
    word = verdicts.with_slo(verdicts.verdict(ratio, maximise=True), runs)

    assert word == "no difference"
    assert verdicts.shown_equal(word, ratio, runs) is stays
    assert verdicts.no_better(word, ratio, runs, maximise=True) is stays


def study(**confirmation: Any) -> dict[str, Any]:
    return {"confirmation": {"verdict": "better", "pairs": 6, "level": 1000, **confirmation}}


def test_a_confirmation_is_told_with_what_decided_it() -> None:
    ratio = {"ttft_ms_p50": {"mean": 0.212, "ci95": [0.19, 0.24]}}
    found = verdicts.confirmed(study(ratio=ratio, decided_by="ttft_ms_p50"))

    assert (found.word, found.level) == ("better", "1,000 users")
    assert found.gain == "TTFT p50 0.212x [0.190, 0.240]"
    assert found.times == "0.212 times the TTFT p50 [0.19, 0.24]"
    assert found.basis == "6 interleaved pairs, 95 % intervals"


@pytest.mark.parametrize(
    ("asked", "said"),
    [(8, "8 were asked for, the budget ended them"), (None, "the budget ended them")],
)
def test_pairs_that_the_budget_ended_are_told(asked: int | None, said: str) -> None:
    found = verdicts.confirmed(study(pairs=3, pairs_asked=asked, pairs_ended_by="budget"))

    assert found.basis == f"3 interleaved pairs ({said}), 95 % intervals"


def test_one_of_the_first_version_was_decided_by_the_token_rate() -> None:
    found = verdicts.confirmed(study(ratio={"token_rate": {"mean": 3.1, "ci95": None}}, pairs=1))

    assert found.gain == "token rate 3.10x"
    assert found.basis.startswith("1 interleaved pair,")


@pytest.mark.parametrize(("mean", "said"), [(2.0, "+2.00 [1.00, 3.00] req/s"), (-2.0, "-2.00")])
def test_a_difference_has_its_sign_and_unit(mean: float, said: str) -> None:
    bounds = [1.0, 3.0] if mean > 0 else None
    ratio = {"mean": None, "difference": {"mean": mean, "ci95": bounds}}

    assert verdicts.told(ratio, "req/s").startswith(said)


def test_of_nothing_nothing_is_told() -> None:
    found = verdicts.confirmed({})

    assert (found.pairs, found.level, found.gain) == (0, "", "")


def test_runs_that_meet_the_slos_are_told_by_arm_where_it_is_known() -> None:
    arms = {"before": (True, None, False), "after": (False, True, None)}
    runs = [{"arm": arm, "slo_met": met} for arm, of in arms.items() for met in of]

    assert verdicts.slo_met(runs) == ([True, False], [False, True])
    assert verdicts.slo_met([{"arm": "after", "slo_met": None}]) == ([], [])


def test_a_run_of_which_it_is_not_known_whether_it_met_the_slos_is_no_miss() -> None:
    def found(*met: bool | None) -> dict[str, Any]:
        runs = [{"arm": "after", "slo_met": one} for one in met]
        ratio = {"token_rate": {"mean": 1.1}}
        return {"runs": runs, "ratio": ratio, "decided_by": "token_rate", "verdict": "better"}

    failed, missed = found(True, None), found(True, False)

    assert verdicts.stands_above(failed, missed, maximise=True)
    assert not verdicts.stands_above(missed, failed, maximise=True)
    assert not verdicts.stands_above(found(True, True), failed, maximise=True)


def test_the_baselines_runs_of_earlier_pairs_are_judged_with_its_own() -> None:
    runs = [{"arm": "before", "slo_met": False}, {"arm": "after", "slo_met": True}]

    assert verdicts.judged({"runs": runs}) == runs  # as an older version wrote it
    judged = verdicts.judged({"runs": runs, "baseline_before": [True, False]})
    assert verdicts.slo_met(judged) == ([False, True, False], [True])
    assert verdicts.may_be_alike([True] * 9 + [False] * 4, [True] * 2 + [False] * 5)
    assert not verdicts.may_be_alike([True] * 13, [False] * 7)
    assert verdicts.may_be_alike([], [False])
