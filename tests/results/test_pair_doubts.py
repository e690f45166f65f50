"""What befell the pairs of a confirmation, as doubts."""

from typing import Any

from llmdyno.results import pair_doubts


def run(pair: int, arm: str, *names: str, engine: str = "", asked: str = "m") -> dict[str, Any]:
    return {
        "pair": pair,
        "arm": arm,
        "state": "measured",
        "doubts": [],
        "answered_by": {asked: dict.fromkeys(names, 48)} if names else {},
        "engine": engine,
    }


def found(*runs: dict[str, Any]) -> dict[str, str]:
    return dict(pair_doubts.find({"runs": list(runs)}))


def test_a_server_that_names_another_model_in_some_runs_is_doubted() -> None:
    said = found(
        run(0, "before", "m"),
        run(0, "after", "another"),
        run(1, "after", "another"),
        run(1, "before", "m"),
    )

    assert said["several-models"].startswith(
        "Where 'm' was asked, the answers name 'm' in 2 runs of the baseline; 'another' in 2 runs"
        " of the tuned."
    )


def test_a_mixture_that_is_in_some_runs_alone_is_doubted() -> None:
    said = found(run(0, "before", "m"), run(0, "after", "m", "another"))

    assert "'another' and 'm' in 1 run of the tuned" in said["several-models"]


def test_one_name_or_none_and_the_names_of_two_engines_are_no_doubt() -> None:
    assert found(run(0, "before", "path/m"), run(0, "after", "path/m")) == {}
    assert found(run(0, "before"), run(0, "after")) == {}
    assert found(run(0, "before", "m", engine="a"), run(0, "after", "M", engine="b")) == {}
    assert found(run(0, "before", "m"), run(0, "after", "n", asked="n")) == {}


def test_a_run_in_which_the_server_stood_still_is_named_if_the_others_went_on() -> None:
    runs = [run(0, "before"), run(0, "after"), run(1, "after"), run(1, "before")]
    runs[1]["doubts"] = ["held-back-stream", "short-window"]

    assert found(*runs) == {
        "doubtful-pairs": "Runs of the pairs have doubts of their own: held-back-stream in 1 of 2"
        " runs of the tuned."
    }

    for one in runs:
        one["doubts"] = ["held-back-stream"]
    assert found(*runs) == {}


def test_a_standstill_is_named_however_many_runs_have_one() -> None:
    runs = [run(0, "before"), run(0, "after"), run(1, "after"), run(1, "before")]
    for one in runs:
        one["doubts"] = ["stood-still", "held-back-stream"]

    assert found(*runs) == {
        "doubtful-pairs": "Runs of the pairs have doubts of their own: stood-still in 2 of 2 runs"
        " of the baseline; stood-still in 2 of 2 runs of the tuned."
    }
