"""The comparison document: rows, verdicts and the sentence on top."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from compared_runs import SPEC, changed, side
from llmdyno.importers import import_file
from llmdyno.results import comparison, comparison_words, doubts
from llmdyno.results.comparison import Decided, document
from llmdyno.results.comparison_words import Row
from llmdyno.results.fail_on import parse_limits
from llmdyno.results.likeness import Difference
from llmdyno.results.sides import Side, Start

SAMPLES = Path(__file__).parents[1] / "importers" / "samples"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A run, made once."""
    return side(tmp_path_factory.mktemp("before"), "a")


def one(before: Side, after: Side, **how: Any) -> dict[str, Any]:
    (found,) = document(before, [after], **how)["comparisons"]
    assert isinstance(found, dict)
    return found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{row['metric']}:{row['stat']} {row['at']}": row for row in found["rows"]}


def test_equal_runs_are_not_called_different(before: Side, tmp_path: Path) -> None:
    found = one(before, side(tmp_path, "b", seed=1))

    assert found["verdict"] == "no difference"
    assert found["said"].startswith("No difference shown: token rate within ±1.")
    assert found["said"].endswith("at 2 users (one run each; 95 % intervals).")
    assert {row["verdict"] for row in found["rows"]} == {"no difference"}
    assert [doubt["code"] for doubt in found["doubts"]] == ["single-start"]
    assert "single-start" in doubts.CODES


def test_a_run_that_is_3_percent_slower_is_worse(before: Side, tmp_path: Path) -> None:
    found = one(before, side(tmp_path, "b", seed=1, slower=0.03))

    assert found["verdict"] == "worse"
    assert found["said"].startswith("Worse: token rate -2.")
    row = rows(found)["token_rate:mean 2 users"]
    assert row["difference_pct"] == pytest.approx(-2.9, abs=0.2)
    low, high = row["ci95_pct"]
    assert low < -2.9 < high < 0
    assert row["decides"]
    back = one(side(tmp_path, "c", slower=0.03), before)
    assert back["verdict"] == "better"


def test_runs_that_swing_slowly_are_too_short_and_say_so(tmp_path: Path) -> None:
    sides = [
        side(tmp_path, name, seed=seed, slower=slower, swing=0.1)
        for name, seed, slower in (("a", 0, 0.0), ("b", 1, 0.04))
    ]

    found = one(*sides)

    assert found["verdict"] == "no difference"
    assert "95 % intervals); the run is too short for its swings." in found["said"]
    row = rows(found)["token_rate:mean 2 users"]
    assert row["swings"]
    assert row["within_pct"] > 5
    assert comparison_words.verdict(msgspec.convert(row, comparison_words.Row)).startswith(
        "no difference shown: the run is too short for its swings (within ±"
    )
    assert [(doubt["code"], doubt["at"]) for doubt in found["doubts"]] == [
        ("single-start", None),
        ("slow-swings", "2 users"),
    ]
    assert all(doubt["code"] in doubts.CODES for doubt in found["doubts"])


def test_several_starts_measure_what_one_each_assumes(tmp_path: Path) -> None:
    before, after = (
        side(tmp_path, name, runs=3, seconds=10, seed=seed, slower=slower, started_s=moments)
        for name, seed, slower, moments in (
            ("a", 0, 0.0, [0, 3, 4]),
            ("b", 3, 0.03, [1, 2, 5]),
        )
    )

    found = one(before, after)

    assert (found["paired"], found["basis"]) == (True, "3 pairs of runs in turns")
    assert found["verdict"] == "worse"
    assert found["doubts"] == []
    low, high = rows(found)["token_rate:mean 2 users"]["ci95_pct"]
    assert high - low < 1.5


def test_rounds_of_one_run_each_are_observations(tmp_path: Path) -> None:
    before, after = (
        side(tmp_path, name, rounds=3, seconds=10, seed=seed) for name, seed in (("a", 0), ("b", 1))
    )

    found = one(before, after)

    assert found["basis"] == "one run each, of 3 and 3 rounds"
    assert [doubt["code"] for doubt in found["doubts"]] == ["single-start"]


def test_unlike_work_is_not_compared(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", spec=changed(SPEC, workload__isl__a=128.0))

    found = one(before, after)

    assert found["verdict"] == "not comparable"
    assert found["said"] == "Not comparable: workload.isl: 30 before, 128 after."
    row = rows(found)["token_rate:mean 2 users"]
    assert (row["verdict"], row["ci95_pct"], row["ratio"]) == ("not comparable", None, None)


def test_levels_of_one_side_only_are_named(before: Side, tmp_path: Path) -> None:
    found = one(before, side(tmp_path, "b", users=(2, 3), seconds=20))

    assert found["only_in_one"] == ["3 users: measured in b only"]
    assert "; 1 level not comparable." in found["said"]
    other = one(before, side(tmp_path, "c", users=(3,), seconds=10))
    assert other["said"].startswith("Not comparable: the runs have no level in common")


def test_an_imported_file_is_compared_as_far_as_it_goes() -> None:
    vllm, guidellm = (
        Side(name, "import", [Start(SAMPLES / name, import_file(SAMPLES / name))])
        for name in ("vllm_appended.json", "guidellm.json")
    )

    same = one(vllm, vllm)
    assert same["verdict"] == "not comparable"
    assert "without an interval: nothing tells it from noise" in same["said"]
    row = same["rows"][0]
    assert row["difference_pct"] == 0.0
    other = one(vllm, guidellm)
    assert other["verdict"] == "not comparable"


def test_failed_requests_make_a_better_latency_doubtful(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", slower=-0.2, failing=3)

    found = one(before, after, limits=parse_limits("ttft:p50:+10%"), strict=True)

    assert "failed-requests" in rows(found)["ttft_ms:p50 2 users"]["doubts"]
    assert "doubtful: failed-requests" in found["said"]


def test_a_limit_brings_its_statistic_with_it(before: Side, tmp_path: Path) -> None:
    limits = parse_limits("itl:p95:+1%,token_rate:-1%")

    found = document(before, [side(tmp_path, "b", slower=0.05)], limits=limits)

    assert "itl_ms:p95 2 users" in rows(found["comparisons"][0])
    assert found["gate"]["status"] == 1
    assert found["schema"] == comparison.SCHEMA
    msgspec.json.encode(found)


def test_a_server_that_answers_nothing_any_more_fails_the_gate(
    before: Side, tmp_path: Path
) -> None:
    limits = parse_limits("token_rate:-5%")

    found = document(before, [side(tmp_path, "b", failing=1)], limits=limits)

    assert found["gate"]["status"] == 1
    (comparison_,) = found["comparisons"]
    assert rows(comparison_)["token_rate:mean 2 users"]["difference_pct"] == -100.0
    back = document(side(tmp_path, "c", failing=1), [before], limits=limits)
    assert back["gate"]["status"] == 3  # of 0 there is no percentage


def test_requests_that_fail_are_worse_whatever_the_others_are(before: Side, tmp_path: Path) -> None:
    """One request in ten is refused: no gate passes, and nothing is simply better."""
    limits = parse_limits("token_rate:-50%,ttft:p99:+50%,goodput:-50%")
    failing = side(tmp_path, "b", slower=-0.2, failing=10)

    found = document(before, [failing], limits=limits)

    (refusing,) = found["comparisons"]
    assert refusing["verdict"] == "mixed"
    assert "but failed requests 0 % before, 9.63 %" in refusing["said"]
    (told,) = refusing["requests"]
    assert (told["before"]["failed"], told["verdict"]) == (0, "worse")
    assert found["gate"]["status"] == 1
    states = {one["expr"]: one["state"] for one in found["gate"]["limits"]}
    assert states["token_rate:-50%"] == states["ttft:p99:+50%"] == "failed"
    assert states["goodput:-50%"] == "failed"  # here is no SLO by which it would count them itself
    mended = one(failing, before)
    assert "failed requests 9.63 % before" in mended["said"]
    assert mended["verdict"] == "mixed"  # slower, and it serves them all


def test_a_level_at_which_nothing_is_answered_any_more_misses_every_limit(tmp_path: Path) -> None:
    """A latency has no value there, and another level that is as before is no excuse."""
    before, after = (side(tmp_path, name, users=(1, 2)) for name in "ab")
    dead = side(tmp_path, "dead", users=(2,), failing=1).first
    after.first.levels["2 users"] = dead.levels["2 users"]

    found = document(before, [after], limits=parse_limits("ttft:p99:+10%"))

    assert found["gate"]["status"] == 1
    assert "2 users (failed requests 0 % before, 100 % after)" in found["gate"]["said"]


def test_other_work_says_nothing_of_failed_requests(before: Side, tmp_path: Path) -> None:
    other = changed(SPEC, workload__name="chat")

    found = one(before, side(tmp_path, "b", failing=3, spec=other))

    assert (found["verdict"], found["requests"]) == ("not comparable", [])


def test_a_study_whose_baseline_stays_compares_nothing(before: Side) -> None:
    stays = Decided(
        key=("token_rate", "mean"),
        at="2 users",
        word="not confirmed",
        said="Not confirmed: the study stopped.",
        stays=True,
    )

    found = document(before, [before], decided=stays, limits=parse_limits("token_rate:-5%"))

    (told,) = found["comparisons"]
    assert {row["verdict"] for row in told["rows"]} == {"not comparable"}
    assert told["said"] == "Not confirmed: the study stopped."
    assert found["gate"]["status"] == 3
    assert "the baseline stays; it is one run" in found["gate"]["said"]


def test_a_study_has_the_verdict_of_its_confirmation(before: Side, tmp_path: Path) -> None:
    setting = Difference(kind="settings", name="batch", before="1", after="8")
    decided = Decided(
        key=("token_rate", "mean"),
        at="2 users",
        word="better",
        said="Better at 2 users.",
        settings=[setting],
    )

    found = one(before, side(tmp_path, "b", seed=1), decided=decided)

    assert (found["verdict"], found["said"]) == ("better", "Better at 2 users.")
    assert rows(found)["token_rate:mean 2 users"]["verdict"] == "better"
    assert found["differences"][0]["name"] == "batch"
    assert not found["differences"][0]["warns"]


def row(**values: Any) -> Row:
    plain: dict[str, Any] = {
        "at": "2 users",
        "metric": "ttft_ms",
        "stat": "p50",
        "decides": True,
        "before": 100.0,
        "after": 200.0,
        "verdict": "worse",
    }
    return Row(**{**plain, **values})


def test_numbers_are_written_for_people() -> None:
    assert comparison_words.difference(row(difference_pct=6200.0)) == "63.0x"
    assert comparison_words.change(row(difference_pct=-5.214, ci95_pct=(-6.0, -4.1))) == (
        "-5.21 % [-6.00, -4.10]"
    )
    assert comparison_words.difference(row(difference=2.5)) == "+2.50 ms"
    assert comparison_words.difference(row()) == "-"
    assert comparison_words.value(row(before=1500.0), "before") == "1.50 s"
    money = row(metric="cost_per_million_output", before=0.741)
    assert comparison_words.value(money, "before") == "0.741"  # in the currency of --price
    assert comparison_words.verdict(row(verdict="no difference", within_pct=2.345)) == (
        "no difference within ±2.35 %"
    )


def test_an_interval_that_says_nothing_is_no_bound() -> None:
    wide = row(
        verdict="no difference", difference_pct=340.0, ci95_pct=(-48.1, 3431.0), within_pct=3431.0
    )

    assert comparison_words.interval(wide) == "[0.519x, 35.3x]"
    assert comparison_words.verdict(wide) == "no difference shown: too noisy to tell"


def test_better_and_worse_at_once_is_said() -> None:
    words = comparison_words.Words(
        rows=[
            row(verdict="better", metric="token_rate", stat="mean", difference_pct=5.0),
            row(difference_pct=9.0),
        ],
        basis="one run each",
        alone=[],
        levels=1,
    )

    assert words.verdict == "mixed"
    assert words.sentence == (
        "Better and worse: token rate +5.00 % at 2 users, but TTFT p50 +9.00 % at 2 users"
        " (one run each; 95 % intervals)."
    )
