"""Configs that a user gives to try first."""

from pathlib import Path

import pytest

from llmdyno.cli import flags
from llmdyno.errors import UsageError
from llmdyno.results.configs import described
from llmdyno.tune.candidates import changed, checked_candidates, effective
from llmdyno.tune.folder import stack_of
from llmdyno.tune.tuner import Tuner
from studies import STUDY, run, unheard

GIVEN = {"engine": "timed.engine", "model": "m", "users": "2,6"}

WRONG_CANDIDATES = {
    "knob": ("[[candidates]]\nitl = 4", "candidate 1: itl=4: no such knob. Did you mean 'itl_ms'?"),
    "value": ("[[candidates]]\nitl_ms = 400", "candidate 1: itl_ms=400: must be a whole number"),
    "kind": ("[[candidates]]\nitl_ms = [4]", "candidate 1: itl_ms=[4]: must be a whole number"),
    "engine": ("[[candidates]]\nitl_ms = 13", "candidate 1: itl_ms=13: brings bad luck"),
    "form": ("candidates = 3", "candidates 3: must be tables of knobs, each under [[candidates]]"),
    "nothing": ("[[candidates]]", "candidate 1: no knob set is the baseline again"),
    "baseline": (
        "[baseline]\nitl_ms = 30\n[[candidates]]\nitl_ms = 30\nidle = false",
        "candidate 1: itl_ms=30, idle=false is the baseline again",
    ),
    "twice": (
        "[[candidates]]\nitl_ms = 20\n[[candidates]]\nitl_ms = 20\nmode = 'good'",
        "candidate 2: itl_ms=20, mode=good is candidate 1 again",
    ),
    "trials": (
        "trials = 1\n[[candidates]]\nitl_ms = 20\n[[candidates]]\nitl_ms = 21",
        "--trials 1: the 2 [[candidates]] are trials, too; set at least 2",
    ),
    "output": (
        "[[candidates]]\nlossy = true",
        "candidate 1: lossy=true may change the tokens; set allow_altered_output = true",
    ),
}


@pytest.mark.parametrize("name", WRONG_CANDIDATES)
def test_a_wrong_candidate_is_one_sentence_and_nothing_starts(name: str, tmp_path: Path) -> None:
    text, words = WRONG_CANDIDATES[name]
    (tmp_path / "study.toml").write_text(text)

    with pytest.raises(UsageError) as caught:
        Tuner(
            flags.study_spec({**GIVEN, **flags.read_toml(tmp_path / "study.toml")}),
            tmp_path / "s",
            unheard(),
        )

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_wrong_candidate_is_told_by_the_command_line(tmp_path: Path) -> None:
    text, words = WRONG_CANDIDATES["engine"]
    (tmp_path / "study.toml").write_text(text)

    done = run(tmp_path, *STUDY, "study.toml", "--out", "s")

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"dyno: {words}")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_a_candidate_stands_over_the_baseline_as_the_search_would_write_it() -> None:
    study = flags.study_spec(
        {
            **GIVEN,
            "baseline": {"mode": "good", "itl_ms": 30},
            "candidates": [{"itl_ms": 20, "idle": False}, {"itl_ms": 30, "idle": True}],
        }
    )
    stack = stack_of(study)
    searched = [knob for knob in stack.engine.knobs if knob.name in {"itl_ms", "idle"}]

    # The engine's own default, idle=false, is left out; what is not searched stays.
    assert checked_candidates(study, stack, searched) == [
        {"mode": "good", "itl_ms": 20},
        {"mode": "good", "itl_ms": 30, "idle": True},
    ]


def test_how_configs_differ() -> None:
    knobs = stack_of(flags.study_spec(GIVEN)).engine.knobs

    assert changed({"a": 1, "b": 2}, {"c": 3, "b": 5}) == ["c", "b", "a"]
    assert effective({"itl_ms": 40, "mode": "dies"}, knobs) == {"mode": "dies"}
    assert described({"idle": True, "itl_ms": 4}) == "idle=true, itl_ms=4"
    assert described({}) == "all defaults"
