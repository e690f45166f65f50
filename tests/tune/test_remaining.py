"""How a study stands before each trial, and how a person ends the trials."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.results.conclusions import remarks
from llmdyno.results.configs import described
from llmdyno.serve.stack import Stack
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.outlook import Outlook, Proving, proving_sentence, sentences
from llmdyno.tune.runner import Runner
from llmdyno.tune.tuner import Tuner
from study_lab import LEVEL_S, StudyLab, fast


@pytest.fixture
def study_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def told(
    study_lab: StudyLab, asked: Any, enough: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Any], list[Outlook]]:
    """Run a study; return its document, and what was told before each trial."""
    foretold: list[Outlook] = []
    study_lab.world, study_lab.starts = fast, []
    narrator = Narrator(
        notify=study_lab.told.append,
        notify_waiting=lambda _: None,
        display=lambda *_: lambda *_: None,
        foretell=foretold.append,
        enough=enough,
    )
    return Tuner(asked, study_lab.folder, narrator).run(), foretold


def test_before_each_trial_it_is_told_what_comes_and_what_is_best(study_lab: StudyLab) -> None:
    asked = study_lab.study(search="fast,itl_ms", trials=4, candidates=[{"fast": True}])

    document, foretold = told(study_lab, asked)

    assert [one.number for one in foretold] == [1, 2, 3, 4]
    assert {one.trials for one in foretold} == {4}
    assert [one.config for one in foretold] == [described(t["config"]) for t in document["trials"]]
    assert foretold[0].why == "given"
    assert all("expected" in one.why for one in foretold[1:])
    first, second = foretold[:2]
    assert first.best is not None
    assert first.best.phase != "trial"
    assert first.times == 1.0
    assert second.best is not None
    assert second.best.phase == "trial"
    assert second.times is not None
    assert second.times > 1.5


def test_the_expected_end_comes_nearer_and_counts_all_that_is_left(study_lab: StudyLab) -> None:
    asked = study_lab.study(search="fast,itl_ms", trials=3, warmup="0s", grace="0s")

    _, foretold = told(study_lab, asked)

    left = [one.left_s for one in foretold]
    assert all(one is not None for one in left)
    # Three trials, the best in full, two pairs, and three of the ablation: fourteen loads.
    first = left[0]
    assert first is not None
    assert 14 * LEVEL_S <= first <= 14 * (LEVEL_S + 1)
    assert left[-1] is not None
    assert left[-1] < first


def test_a_trial_that_cannot_work_is_none_of_those_that_were_asked_for(
    study_lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Stack.check
    refused: list[Any] = []

    def refuse_one(stack: Stack, config: Any) -> None:
        if config.get("itl_ms") and not refused:
            refused.append(config)
            raise UsageError("itl_ms: this one cannot work.")
        check(stack, config)

    asked = study_lab.study(search="itl_ms", trials=3)
    monkeypatch.setattr(Stack, "check", refuse_one)

    _, foretold = told(study_lab, asked)

    assert refused
    assert [(one.number, one.trials) for one in foretold] == [(1, 3), (2, 4), (3, 4), (4, 4)]


def test_enough_ends_the_trials_and_the_best_is_confirmed(study_lab: StudyLab) -> None:
    asked = study_lab.study(
        search="fast,itl_ms", trials=9, candidates=[{"fast": True}, {"itl_ms": 30}]
    )

    def after_two() -> bool:
        return len(Ledger(study_lab.folder).of("trial")) == 2

    document, foretold = told(study_lab, asked, after_two)

    assert len(foretold) == 2
    assert document["outcome"]["ended_by"] == "hand"
    assert document["outcome"]["state"] == "confirmed"
    assert document["confirmation"]["verdict"] == "better"
    assert "The trials were ended by hand after 2 of 9." in remarks(document)
    assert "Ended by hand; no further trials." in study_lab.told

    again, foretold = told(study_lab, asked)  # --resume does not begin the trials again
    assert (foretold, again["trials"]) == ([], document["trials"])

    more = study_lab.study(
        search="fast,itl_ms", trials=10, candidates=[{"fast": True}, {"itl_ms": 30}]
    )
    _, foretold = told(study_lab, more)  # ... unless it asks for more of them
    assert len(foretold) == 8


def test_enough_before_the_first_trial_leaves_the_baseline(study_lab: StudyLab) -> None:
    document, _ = told(study_lab, study_lab.study(), lambda: True)

    assert document["outcome"]["state"] == "nothing tried"
    assert document["outcome"]["said"].startswith(
        "Nothing was tried: the trials were ended by hand."
    )


def outlook(**changes: Any) -> Outlook:
    best = Step(phase="trial", number=2, config={"a": 64}, state="measured", value=812.3)
    found = Outlook(
        number=4,
        trials=12,
        config="max_num_seqs=128, enable_prefix_caching=true",
        why="expected 3.1 % better than the best, 95 % to start",
        best=best,
        times=1.142,
        unit="tok/s",
        left_s=1500.0,
    )
    return msgspec.structs.replace(found, **changes)


def test_before_a_trial_it_says_how_the_study_stands_and_what_comes_why() -> None:
    now = datetime(2026, 11, 29, 23, 20, tzinfo=UTC)

    stands, comes = sentences(outlook(), now)

    assert stands == (
        "best so far 812.3 tok/s (trial 3, 1.14x the baseline); ends about 23:45, in 25.0 min"
    )
    assert comes == (
        "next, 4 of 12: max_num_seqs=128, enable_prefix_caching=true (expected 3.1 %"
        " better than the best, 95 % to start)"
    )


def test_an_end_on_another_day_names_it() -> None:
    now = datetime(2026, 11, 29, 23, 50, tzinfo=UTC)

    assert "ends about Mon 00:15" in sentences(outlook(), now)[0]


def test_what_is_not_known_is_left_out() -> None:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    baseline = Step(phase="reference", number=0, config={}, state="measured", value=9.0)

    assert sentences(outlook(best=None, left_s=None, why=""), now) == [
        "next, 4 of 12: max_num_seqs=128, enable_prefix_caching=true"
    ]
    assert sentences(outlook(best=baseline, times=1.0, left_s=None), now)[0] == (
        "best so far 9 tok/s (the baseline)"
    )


def proof_of(study_lab: StudyLab, asked: Any) -> tuple[list[Proving], dict[str, Any]]:
    """Run a study whose runs take a second; return what was told before each step of its proof."""
    foretold: list[Proving] = []
    study_lab.world = fast
    narrator = Narrator(
        notify=study_lab.told.append,
        notify_waiting=lambda _: None,
        display=lambda *_: lambda *_: None,
        foretell_proof=foretold.append,
    )
    return foretold, Tuner(asked, study_lab.folder, narrator).run()


def test_before_each_step_of_the_proof_it_is_told_what_comes_and_when_it_ends(
    study_lab: StudyLab,
) -> None:
    given: dict[str, Any] = {"warmup": "0s", "grace": "0s", "pairs": 3}
    asked = study_lab.study(
        search="fast,itl_ms", trials=1, candidates=[{"fast": True, "itl_ms": 10}], **given
    )

    foretold, _ = proof_of(study_lab, asked)

    assert [one.comes for one in foretold] == [
        "the best in full",
        *(f"pair {number} of 3" for number in (1, 2, 3)),
        *("without fast", "without itl_ms", "without fast and itl_ms"),
        *("without fast", "without itl_ms"),
    ]
    loads = [one.left_s / LEVEL_S for one in foretold]
    # One knob is taken to matter until both turn out to, and work apart as together.
    assert loads == pytest.approx([15, 14, 12, 10, 8, 6, 6, 4, 2])


def test_a_study_that_goes_on_says_nothing_of_what_it_has(study_lab: StudyLab) -> None:
    proof_of(study_lab, study_lab.study(trials=1))

    foretold, document = proof_of(study_lab, study_lab.study(trials=1))

    assert (foretold, document["outcome"]["state"]) == ([], "confirmed")


def test_a_budget_that_is_used_up_leaves_the_least_number_of_pairs_and_no_ablation(
    study_lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study_lab.study(
        search="fast,itl_ms",
        trials=1,
        pairs=None,
        budget="1h",
        candidates=[{"fast": True, "itl_ms": 10}],
    )
    monkeypatch.setattr(Runner, "left_s", lambda runner: 0.1 if runner.ledger.of("trial") else 1e9)

    foretold, _ = proof_of(study_lab, asked)

    first = foretold[0]
    assert first.comes == "the best in full"
    assert first.left_s / LEVEL_S == pytest.approx(1 + 2 * 2)


def test_a_step_of_the_proof_and_the_end_are_one_line() -> None:
    now = datetime(2026, 11, 29, 9, 42, 30, tzinfo=UTC)

    said = proving_sentence(Proving(comes="pair 2 of about 4", left_s=94.0), now)

    assert said == "next, pair 2 of about 4; ends about 09:44, in 94.0 s"
