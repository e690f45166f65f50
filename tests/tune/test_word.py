"""The tuner's word is true whatever happens: machines that break, winners that die, SLOs."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from llmdyno import store
from llmdyno.cli.app import app
from llmdyno.cli.flags import with_baseline
from llmdyno.cli.rebuild import rebuild
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.quality.answers import Answers
from llmdyno.report import study_tables
from llmdyno.results import findings
from llmdyno.results.conclusions import NOTHING_BETTER, misses_slo
from llmdyno.results.verdicts import Word, with_slo
from llmdyno.terminal.study import verdict_lines
from llmdyno.tune import runner
from llmdyno.tune.folder import open_study, stack_of
from llmdyno.tune.gate import Gate
from llmdyno.tune.going_on import extended
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.spec import Study
from llmdyno.tune.study import study_document
from study_lab import LENGTH, Start, StudyLab, World, answers, fast

WINNER = {"fast": True}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def headline(document: dict[str, Any]) -> str:
    """Return the first sentence of a study's page."""
    return findings.verdict(document).sentence


def breaks(at: int, *, until: int | None = None, kind: str = "missing-library") -> World:
    """Return a world whose machine is broken from one start on, or up to another."""

    def world(start: Start) -> tuple[float, float] | str:
        broken = start.number >= at and (until is None or start.number <= until)
        return kind if broken else fast(start)

    return world


def test_a_study_in_a_sound_world(lab: StudyLab) -> None:
    document = lab.run(fast)

    # Baseline, trial, best, four runs of two pairs; one change needs no ablation.
    assert [start.phase for start in lab.starts] == [
        *("baseline", "trial", "best"),
        *["confirm"] * 4,
    ]
    assert document["confirmation"]["verdict"] == "better"
    assert document["outcome"]["state"] == "confirmed"
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] == pytest.approx(1.9, rel=0.05)
    assert (document["rejected"], document["stopped"], document["slo_outcome"]) == ([], None, None)
    assert "**Mind:**" not in lab.bundled()


@pytest.mark.parametrize(
    ("at", "kind"),
    [*((at, "missing-library") for at in range(2, 8)), *((6, "died"), (3, "out-of-memory"))],
)
def test_a_machine_that_breaks_stops_the_study_wherever_it_is(
    lab: StudyLab, at: int, kind: str
) -> None:
    error = lab.fails(breaks(at, kind=kind))

    assert isinstance(error, ServerError)
    assert error.exit_status == 3
    assert "the machine is at fault, not a config: " in str(error)
    assert f"({kind})" in str(error)
    assert f"dyno tune --resume {lab.folder}" in str(error)
    assert len(lab.starts) <= at + 4  # twice what failed, twice the baseline
    document = lab.document
    assert document["confirmation"]["verdict"] == "not confirmed"
    assert document["stopped"]["class"] == kind
    assert document["outcome"]["state"] == "stopped"
    said = document["outcome"]["said"]
    assert said.startswith("Better at 2 users" if at > 7 else "Not confirmed: the study stopped")
    assert "as the machine is at fault" in said
    assert verdict_lines(document) == [document["outcome"]["said"]]
    assert [trial["state"] for trial in document["trials"]] in ([], ["measured"])

    document = lab.run(fast)

    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["pairs"] == 2
    assert [trial["state"] for trial in document["trials"]] == ["measured"]
    assert [row["knob"] for row in document["ablation"]] == ["fast"]
    assert document["stopped"] is None
    assert len(lab.starts) <= 7 - (at - 1) + 1


@pytest.mark.parametrize("at", range(3, 8))
def test_one_run_that_fails_is_made_again(lab: StudyLab, at: int) -> None:
    document = lab.run(breaks(at, until=at))

    assert len(lab.starts) == 8
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["pairs"] == 2
    assert len(document["confirmation"]["runs"]) == 4
    assert "  This config has worked before; it is tried once more." in lab.told


@pytest.mark.parametrize("at", [3, 5])
def test_a_machine_that_mends_itself_while_the_baseline_is_checked_costs_no_winner(
    lab: StudyLab, at: int
) -> None:
    document = lab.run(breaks(at, until=at + 2, kind="died"))

    told = "  The baseline had failed with it; it is tried a last time."
    assert lab.told.count(told) == 1
    assert document["best"]["config"] == WINNER
    assert document["confirmation"]["verdict"] == "better"
    assert document["rejected"] == []


@pytest.mark.parametrize("at", [3, 5])
def test_a_study_that_stops_in_the_last_try_loses_no_winner(lab: StudyLab, at: int) -> None:
    mended = breaks(at, until=at + 2, kind="died")

    def world(start: Start) -> tuple[float, float] | tuple[float, float, int] | str:
        if start.number == at + 4:  # two tries, the check that fails and the one that works
            raise KeyboardInterrupt
        return mended(start)

    with pytest.raises(KeyboardInterrupt):
        lab.run(world)
    assert lab.told[-1] == "  The baseline had failed with it; it is tried a last time."

    document = lab.run(fast)

    assert lab.starts[0].config == WINNER
    assert document["best"]["config"] == WINNER
    assert document["confirmation"]["verdict"] == "better"
    assert document["rejected"] == []


def test_a_winner_that_dies_once_more_after_the_machine_has_mended_is_none(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        dies = bool(start.config) and start.phase == "best"
        return "died" if dies or start.number == 5 else fast(start)  # the fifth is the check

    document = lab.run(world)

    phases = [start.phase for start in lab.starts]
    assert phases == ["baseline", "trial", "best", "best", "check", "check", "best", "check"]
    assert [one["config"] for one in document["rejected"]] == [WINNER]
    assert document["best"]["config"] == {}
    assert lab.run(world)["best"]["config"] == {}
    assert lab.starts == []


def test_a_reference_that_fails_is_made_again_or_stops_the_study(lab: StudyLab) -> None:
    asked = lab.study(users="1,2")
    lab.run(breaks(2, until=2), asked)
    assert [start.phase for start in lab.starts[:4]] == [
        *("baseline", "reference", "reference", "trial")
    ]


def test_trials_that_all_fail_are_the_machines_fault_if_the_baseline_fails_too(
    lab: StudyLab,
) -> None:
    asked = lab.study(search="fast,idle,itl_ms", trials=6)
    lab.fails(breaks(2), asked)

    assert len(lab.starts) <= 1 + 2 + 2  # the baseline, two trials, the baseline twice
    assert lab.document["trials"] == []

    document = lab.run(fast, asked)
    assert [trial["state"] for trial in document["trials"]] == ["measured"] * 6


def test_trials_that_fail_by_themselves_are_results(lab: StudyLab) -> None:
    asked = lab.study(search="fast,idle,itl_ms", trials=5)
    document = lab.run(lambda start: "out-of-memory" if start.config else fast(start), asked)

    assert [trial["failure"]["class"] for trial in document["trials"]] == ["out-of-memory"] * 5
    assert document["confirmation"]["verdict"] == "not confirmed"
    assert document["best"]["config"] == {}
    assert document["outcome"]["said"] == (
        "Not confirmed: of 5 trials none could be measured. The baseline stays."
    )
    assert document["outcome"]["said"] in headline(document)
    assert [start.phase for start in lab.starts].count("check") == 2  # after three, and at the end


def test_a_winner_that_dies_is_none_and_the_next_best_is_confirmed(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        dies = start.config.get("itl_ms") == 5 and start.phase in {"confirm", "best"}
        return "hung" if dies else fast(start)

    candidates = [{"itl_ms": 5}, {"itl_ms": 10}]
    asked = lab.study(search="itl_ms,fast", trials=2, candidates=candidates)
    document = lab.run(world, asked)

    assert document["best"]["config"] == {"itl_ms": 10}
    assert document["confirmation"]["verdict"] == "better"
    assert [one["config"] for one in document["rejected"]] == [{"itl_ms": 5}]
    assert "died" in document["rejected"][0]["why"]
    assert "itl_ms=10" in lab.bundled()
    said = f"Passed over: itl_ms=5 {document['rejected'][0]['why']}."
    for text in ("\n".join(verdict_lines(document)), lab.bundled(), headline(document)):
        assert text.count(said) == 1
    assert lab.run(world, asked)["best"]["config"] == {"itl_ms": 10}
    assert lab.starts == []  # what is settled is not started again


@pytest.mark.parametrize("dies", [True, False])
def test_without_another_winner_the_baseline_stays(lab: StudyLab, dies: bool) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        if start.config == WINNER and start.phase == "confirm":
            return "died" if dies else (30.0 + start.number % 2, 30.0)
        return fast(start)

    document = lab.run(world)

    assert document["best"]["config"] == document["baseline"]["config"] == {}
    assert document["confirmation"]["verdict"] == ("not confirmed" if dies else "worse")
    assert document["outcome"]["state"] == "rejected"
    why = "died in the confirmation (died)" if dies else "was confirmed as worse"
    said = f"The baseline stays: fast=true {why}."
    assert verdict_lines(document) == [said]
    assert said in lab.bundled()
    assert said in headline(document)
    assert "all settings at their defaults" in lab.bundled()


@pytest.mark.parametrize(
    ("again", "outcome"), [("died", "rejected"), ("works", "confirmed"), ("auth", "stopped")]
)
def test_a_winner_that_dies_when_it_is_asked_for_its_answers(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch, again: str, outcome: str
) -> None:
    """It is started again as what has worked and fails is, and only then judged."""

    def dies(_: Gate, __: object, like: Answers | None) -> Answers:
        if like is not None:
            raise ServerError("died", "it died")
        return answers(LENGTH)

    def world(start: Start) -> tuple[float, float] | str:
        checked = start.phase == "check" and start.config == WINNER
        return again if checked and again != "works" else fast(start)

    monkeypatch.setattr(Gate, "_ask", dies)
    asked = lab.study(quality=True)
    if outcome == "stopped":
        assert "the machine is at fault" in str(lab.fails(world, asked))
    else:
        lab.run(world, asked)

    document = lab.document
    assert document["outcome"]["state"] == outcome
    assert document["best"]["config"] == ({} if outcome == "rejected" else WINNER)
    checks = [start.config for start in lab.starts if start.phase == "check"]
    assert (
        checks
        == {
            "rejected": [WINNER, WINNER, {}],
            "confirmed": [WINNER],
            "stopped": [WINNER, WINNER],
        }[outcome]
    )
    if outcome == "rejected":
        assert document["confirmation"]["verdict"] == "not confirmed"
        said = "The baseline stays: fast=true died after the confirmation (died)."
        assert document["outcome"]["said"] == said
        assert lab.run(world, asked)["outcome"]["said"] == said
        assert lab.starts == []


def test_a_bundle_says_that_its_settings_are_not_shown_to_be_better(lab: StudyLab) -> None:
    """Its trial was luck: in the pairs it is as fast as the baseline."""

    def world(start: Start) -> tuple[float, float]:
        lucky = start.config == WINNER and start.phase != "confirm"
        return fast(start) if lucky else (20.0 + 0.1 * (start.number % 3), 20.0)

    document = lab.run(world)

    assert document["confirmation"]["verdict"] == "no difference"
    assert document["best"]["config"] == WINNER
    said = "these settings are not shown to be better than those of the baseline, all defaults ("
    assert f"**Mind:** {said}" in lab.bundled()
    assert (
        f"keep the baseline; dyno tune --resume {lab.folder} --pairs 4 measures more pairs."
        in lab.bundled()
    )
    assert f"# Mind: {said}" in (lab.folder / store.BUNDLE / "serve.sh").read_text()
    assert f"fast=true is in the bundle: {said}" in "\n".join(verdict_lines(document))


def test_what_beats_the_baseline_but_for_the_slo_is_told(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        return (10.0, 200.0) if start.config else (20.0, 20.0)

    document = lab.run(world, lab.study(slo="ttft:p99<100ms"))

    assert document["best"]["config"] == {}
    assert document["outcome"]["said"].endswith(
        "The baseline meets ttft:p99<100ms; fast=true had the better token rate in its trial,"
        " 200 against 99.8 tok/s, and misses it."
    )


def test_what_is_worse_by_the_slo_alone_is_called_so(lab: StudyLab) -> None:
    """Its trial was luck; in the pairs it is twice as fast, and later with the first token."""

    def world(start: Start) -> tuple[float, float]:
        lucky = start.phase in {"trial", "best"}
        return (10.0, 30.0 if lucky else 200.0) if start.config else (20.0, 20.0)

    document = lab.run(world, lab.study(slo="ttft:p99<100ms"))

    assert (document["best"]["config"], document["confirmation"]["verdict"]) == ({}, "worse")
    assert document["outcome"]["said"] == (
        "The baseline stays: fast=true was confirmed as worse: it misses an SLO in all runs of the"
        " pairs, which the baseline meets. The baseline meets ttft:p99<100ms."
    )


def test_runs_that_are_gone_are_measured_again_and_trials_are_not(lab: StudyLab) -> None:
    lab.run(fast)
    for step in lab.steps:
        if (step.phase, step.number) in {("baseline", 0), ("trial", 0), ("confirm", 1)}:
            shutil.rmtree(lab.folder / step.run)

    document = lab.run(fast)

    assert [start.phase for start in lab.starts] == ["baseline", "confirm"]
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["pairs"] == 2
    assert "torn-pairs" in [doubt["code"] for doubt in document["doubts"]]
    assert [trial["value"] for trial in document["trials"]] == [pytest.approx(187.5)]
    lab.run(fast)
    assert lab.starts == []


def test_the_pairs_of_a_winner_whose_line_is_lost_are_no_other_config_s(lab: StudyLab) -> None:
    lab.run(fast)
    ledger = lab.folder / store.LEDGER
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"best"' not in line))

    document = lab.run(fast)

    assert [start.phase for start in lab.starts] == ["best", *["confirm"] * 4]
    assert document["confirmation"]["verdict"] == "better"


def test_a_run_in_which_dyno_was_stopped_is_made_again(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z, and fg a while later: what was measured meanwhile tells of nobody."""
    sound = vars(runner)["measure"]

    def measure(*asked: Any, **named: Any) -> Measurement:
        came: Measurement = sound(*asked, **named)
        stopped = len(lab.starts) in {2, 5}  # the trial, and a run of the pairs
        return msgspec.structs.replace(came, stood_s=15.0) if stopped else came

    monkeypatch.setattr(runner, "measure", measure)

    document = lab.run(lambda s: (900.0, 900.0) if s.number in {2, 5} else fast(s))

    assert [start.phase for start in lab.starts].count("trial") == 2
    assert document["trials"][0]["value"] == pytest.approx(187.5, rel=0.1)
    assert document["confirmation"]["verdict"] == "better"
    assert len(document["confirmation"]["runs"]) == 4
    assert "! dyno was stopped for 15 s in trial 1; it is made again." in lab.told


def test_the_third_run_in_which_dyno_was_stopped_counts_and_is_a_doubt(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = vars(runner)["measure"]

    def measure(*asked: Any, **named: Any) -> Measurement:
        came: Measurement = sound(*asked, **named)
        before = [start.phase for start in lab.starts].count("confirm")
        stopped = lab.starts[-1].phase in {"baseline", "trial"} or 2 <= before <= 4
        return msgspec.structs.replace(came, stood_s=15.0) if stopped else came

    monkeypatch.setattr(runner, "measure", measure)

    document = lab.run(fast)

    phases = [start.phase for start in lab.starts]
    assert [phases.count(one) for one in ("baseline", "trial", "confirm")] == [3, 3, 6]
    told = "! dyno was stopped for 15 s in trial 1"
    assert lab.told.count(f"{told}; it is made again.") == 2
    assert lab.told.count(f"{told}, too; it counts, with a doubt.") == 1
    assert [one["phase"] for one in document["stood"]] == ["baseline", "trial", "confirm"]
    assert {one["stood_s"] for one in document["stood"]} == {15.0}
    doubts = {one["code"]: one["text"] for one in document["doubts"]}
    assert (
        "Of 1 trial some have doubts of their own: dyno-stopped in 1" in doubts["doubtful-trials"]
    )
    assert "dyno-stopped in 1 of 2 runs of the " in doubts["doubtful-pairs"]
    assert "that count all the same: baseline (15 s)." in doubts["dyno-stopped"]
    assert document["spent_s"] == len(lab.starts)  # each took 1 s, those that were dropped, too


def test_one_pair_is_no_verdict(lab: StudyLab) -> None:
    lab.run(fast)
    ledger = lab.folder / store.LEDGER
    lines = ledger.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"confirm"' not in line or json.loads(line)["number"] < 3]
    ledger.write_text("".join(kept))

    document = study_document(lab.folder, Ledger(lab.folder), stack_of(lab.study()))

    assert document["confirmation"]["pairs"] == 1
    assert document["confirmation"]["verdict"] == "not confirmed"
    assert document["outcome"]["said"].startswith(
        "Not confirmed: 1 whole pair at 2 users does not decide"
    )


def slow_first(start: Start) -> tuple[float, float]:
    """Answer at once with fast=true, and then at 0.75 times the rate."""
    if start.config.get("fast"):
        return 26.7 * (1 + 0.002 * (start.number % 2)), 20.0
    return 20.0 * (1 + 0.002 * (start.number % 2)), 300.0


def test_a_winner_that_meets_what_the_baseline_misses_is_better(lab: StudyLab) -> None:
    document = lab.run(slow_first, lab.study(slo="ttft:p99<100ms"))

    assert document["confirmation"]["verdict"] == "better"
    assert document["slo_outcome"]["baseline_meets"] == [False, False]
    said = "Tuned meets ttft:p99<100ms, which the baseline misses; 0.7"
    for text in (*verdict_lines(document)[-1:], lab.bundled(), headline(document)):
        assert said in text
        assert "times the token rate" in text


def test_a_winner_that_is_none_says_nothing_of_the_slos(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        return "died" if start.config and start.number > 5 else slow_first(start)

    document = lab.run(world, lab.study(slo="ttft:p99<100ms"))

    assert document["best"]["config"] == {}
    (said,) = verdict_lines(document)
    assert said == (
        "The baseline stays: fast=true died in the confirmation (died). The baseline misses"
        " ttft:p99<100ms."
    )


@pytest.mark.parametrize(
    ("gap_ms", "baseline_ms", "misses"), [(10.0, 50.0, 3), (20.0, 300.0, 3), (10.0, 50.0, 2)]
)
def test_what_met_the_slo_by_luck_gives_way_to_the_next(
    lab: StudyLab, gap_ms: float, baseline_ms: float, misses: int
) -> None:
    """Where the baseline meets it and the lucky one is faster; or where neither is so."""
    pairs = iter(range(100))

    def world(start: Start) -> tuple[float, float]:
        wobble = 1 + 0.002 * (start.number % 2)
        if start.config.get("fast"):
            late = start.phase == "confirm" and next(pairs) < misses  # of four runs
            gap = gap_ms if start.phase == "confirm" else 10.0
            return gap * wobble, 300.0 if late else 30.0
        if start.config.get("idle") == "b":
            return 19.0 * wobble, 40.0
        return 20.0 * wobble, baseline_ms

    given = [{"fast": True}, {"idle": "b"}]
    asked = lab.study(slo="ttft:p99<100ms", search="fast,idle", candidates=given, trials=2, pairs=4)
    document = lab.run(world, asked)

    (lucky,) = document["rejected"]
    assert lucky["config"] == {"fast": True}
    of_baseline = 0 if baseline_ms < 100 else 4
    assert lucky["why"] == (
        f"met the SLOs by luck: it misses them in {misses} of 4 runs of the pairs, the baseline in"
        f" {of_baseline} of 4"
    )
    assert document["best"]["config"] == {"idle": "b"}
    assert document["confirmation"]["verdict"] == "better"
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


@pytest.mark.parametrize("next_meets", [True, False])
def test_a_winner_that_misses_what_it_had_met_is_kept_until_none_meets_it(
    lab: StudyLab, *, next_meets: bool
) -> None:
    """The baseline misses it, too; the lucky one is twice as fast, the next one a little."""

    def world(start: Start) -> tuple[float, float]:
        wobble, late = 1 + 0.002 * (start.number % 2), start.phase == "confirm"
        if start.config.get("fast"):
            return 10.0 * wobble, 300.0 if late else 30.0
        if start.config.get("idle") == "b":
            return 18.0 * wobble, 300.0 if late and not next_meets else 40.0
        return 20.0 * wobble, 300.0

    given = [{"fast": True}, {"idle": "b"}]
    asked = lab.study(slo="ttft:p99<100ms", search="fast,idle", candidates=given, trials=2)
    document = lab.run(world, asked)

    assert document["rejected"] == []
    assert document["best"]["config"] == (given[1] if next_meets else given[0])
    assert document["confirmation"]["verdict"] == "better"
    assert [row["knob"] for row in document["ablation"]] == ["idle" if next_meets else "fast"]
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


@pytest.mark.parametrize(("late", "before", "stands"), [(3, [True] * 4, False), (4, [], True)])
def test_whether_the_baseline_meets_the_slo_is_judged_by_all_its_pairs(
    lab: StudyLab, late: int, before: list[bool], *, stands: bool
) -> None:
    """Near its limit it meets it in all runs beside the first, and then in few by chance.

    In none beside the second, though, is no chance: the machine has changed.
    """
    given = [{"fast": True}, {"idle": "b"}]
    of_baseline = iter(range(100))

    def world(start: Start) -> tuple[float, float]:
        wobble = 1 + 0.002 * (start.number % 2)
        proves = start.phase == "confirm"
        if start.config:  # both look better in their trials, and are slower
            gap_ms = (30.0 if proves else 10.0) + 2 * ("idle" in start.config)
            return gap_ms * wobble, 30.0
        misses = proves and next(of_baseline) >= 8 - late
        return 20.0 * wobble, 300.0 if misses else 30.0

    asked = lab.study(slo="ttft:p99<100ms", search="fast,idle", candidates=given, trials=2, pairs=4)
    document = lab.run(world, asked)

    assert document["confirmation"]["baseline_before"] == before
    if stands:
        assert document["best"]["config"] == given[1]
        assert document["confirmation"]["verdict"] == "better"
    else:
        assert document["best"]["config"] == {}
        assert [one["config"] for one in document["rejected"]] == given
        whys = {one["why"] for one in document["rejected"]}
        assert whys == {"was confirmed as worse"}
        assert document["slo_outcome"]["baseline_meets"] == [True, False, False, False, *before]
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


@pytest.mark.parametrize("slo", ["ttft:p99<100ms", ""])
def test_after_a_winner_that_dies_the_next_is_confirmed_whatever_it_claims(
    lab: StudyLab, slo: str
) -> None:
    """The best misses the SLO that it had met, and dies in the ablation; the next claims none."""
    given = [{"fast": True, "idle": "c"}, {"idle": "b"}]

    def world(start: Start) -> tuple[float, float] | str:
        wobble, late = 1 + 0.002 * (start.number % 2), start.phase in {"confirm", "ablation"}
        if start.config == given[0] and start.phase == "ablation":
            return "died"
        if start.config.get("fast"):
            return 10.0 * wobble, 300.0 if late else 30.0
        return (15.0 if start.config.get("idle") == "b" else 20.0) * wobble, 300.0

    asked = lab.study(
        search="fast,idle", candidates=given, trials=2, **({"slo": slo} if slo else {})
    )
    document = lab.run(world, asked)

    assert [one["config"] for one in document["rejected"]] == given[:1]
    assert "died in the ablation" in document["rejected"][0]["why"]
    assert document["best"]["config"] == given[1]
    assert document["confirmation"]["verdict"] == "better"
    full = [start.number for start in lab.starts if start.phase == "best"]
    died = [start.number for start in lab.starts if start.phase == "ablation"]
    assert full[0] < died[0] < full[1]  # the next one is not measured before it is in question
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


@pytest.mark.parametrize(("budget", "confirmed"), [(None, 3), ("5m", 1)])
def test_of_many_that_miss_what_they_had_met_three_are_confirmed_within_the_budget(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch, budget: str | None, confirmed: int
) -> None:
    """In their trials each is better than the one before; in the pairs the second is the best."""
    given = [{"itl_ms": gap} for gap in (10, 11, 12, 13, 14)]

    def world(start: Start) -> tuple[float, float]:
        gap_ms, late = float(start.config.get("itl_ms", 20)), start.phase == "confirm"
        if late:
            if budget is not None:  # the first confirmation has taken all
                monkeypatch.setattr("llmdyno.tune.budgeted.Budgeted.left_s", lambda _: 10.0)
            gap_ms = 9.0 if gap_ms == 11 else gap_ms
        meets = start.config and not late
        return gap_ms * (1 + 0.002 * (start.number % 2)), 30.0 if meets else 300.0

    asked = lab.study(
        slo="ttft:p99<100ms", search="itl_ms", candidates=given, trials=5, budget=budget
    )
    document = lab.run(world, asked)

    assert [one.config for one in lab.starts if one.phase == "best"] == given[:confirmed]
    assert document["best"]["config"] == given[min(1, confirmed - 1)]
    assert document["confirmation"]["verdict"] == "better"
    assert lab.run(world, asked)["outcome"] == document["outcome"]
    assert lab.starts == []


def test_luck_is_not_told_before_the_pairs_are_whole(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        if start.phase == "confirm" and start.number > 6:
            raise KeyboardInterrupt
        if not start.config:
            return 20.0, 30.0
        return 10.0, 300.0 if start.phase == "confirm" else 30.0

    with pytest.raises(KeyboardInterrupt):
        lab.run(world, lab.study(slo="ttft:p99<100ms", pairs=4))

    assert lab.document["rejected"] == []


@pytest.mark.parametrize(
    ("runs", "word", "expected"),
    [
        ("bF aT aT bF", "worse", "better"),
        ("bT aF aF bT", "better", "worse"),
        ("bF aT aF bF", "better", "better"),
        ("bF aT aF bF", "worse", "not confirmed"),
        ("bT aT aF bT", "no difference", "not confirmed"),
        ("bT aT aT bT", "no difference", "no difference"),
        ("b- a- a- b-", "better", "better"),
        # Near a limit one run of three that misses it contradicts nothing, whoever's it is.
        ("bT aT aF bT bT aT", "better", "better"),
        ("bF aT aT bT bT aT", "worse", "worse"),
        ("bF aF aT bF bF aF", "worse", "worse"),
        # Half of the runs, or more misses than chance makes, do.
        ("bT aT aF bT bT aF", "better", "not confirmed"),
        ("bT aT aT bT " * 4 + "aF " * 6, "better", "not confirmed"),
        ("bT aT aT bT " * 4 + "aF " * 2, "better", "better"),
    ],
)
def test_slos_go_before_the_objective(runs: str, word: Word, expected: Word) -> None:
    arms = {"b": "before", "a": "after"}
    met = {"T": True, "F": False, "-": None}
    found = [{"arm": arms[run[0]], "slo_met": met[run[1]]} for run in runs.split()]
    assert with_slo(word, found) == expected


def test_what_nobody_meets_is_said_with_the_nearest(lab: StudyLab) -> None:
    document = lab.run(fast, lab.study(slo="ttft:p99<1ms"))

    said = "No config that was tried meets ttft:p99<1ms; nearest: fast=true (ttft:p99<1ms at 12.5"
    assert document["confirmation"]["verdict"] == "better"
    assert document["slo_outcome"]["nearest"]["config"] == WINNER
    page = headline(document)
    for text in (verdict_lines(document)[-1], document["outcome"]["said"], lab.bundled(), page):
        assert said in text


def test_of_two_that_miss_one_slo_alike_the_one_that_meets_the_other_is_nearest(
    lab: StudyLab,
) -> None:
    def world(start: Start) -> tuple[float, float]:
        return (10.0, 20.4) if start.config else (20.0, 20.0)  # the gap, and the first token

    asked = lab.study(slo="ttft:p99<5ms,tpot:p50<15ms", candidates=[WINNER])
    nearest = lab.run(world, asked)["slo_outcome"]["nearest"]

    assert nearest["config"] == WINNER
    assert nearest["missed_by"]["tpot:p50<15ms"] < 0 < nearest["missed_by"]["ttft:p99<5ms"]


@pytest.mark.parametrize(
    ("slo", "status"),
    [("ttft:p99<1ms", 1), ("ttft:p99<15ms", 0), ("ttft:p99<1s", 0), (None, 0)],
)
def test_the_exit_status_says_whether_an_slo_is_missed(
    lab: StudyLab, slo: str | None, status: int
) -> None:
    given = {"trials": "1", "pairs": "2", "duration": "8s", "trial-duration": "8s"} | {
        "engine": "faulty.engine", "model": "m", "users": "2", "search": "fast", "interval": "1s",
        "out": str(lab.folder), **({"slo": slo} if slo else {}),
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    ended = CliRunner().invoke(app, ["tune", *words, "--no-quality", "--json"])

    assert ended.exit_code == status, ended.output
    document = json.loads(ended.stdout.splitlines()[-1])  # it is printed whatever the status
    assert misses_slo(document) == bool(status)
    assert document["confirmation"]["verdict"] == "better"


@pytest.mark.parametrize("baseline_misses", [False, True])
def test_where_the_baseline_is_handed_over_the_exit_status_is_of_its_slos(
    lab: StudyLab, *, baseline_misses: bool
) -> None:
    """A config that was no better missed the SLO in one run, and the study ended with 1 for it."""
    runs = {True: iter(range(99)), False: iter(range(99))}

    def world(start: Start) -> tuple[float, float]:
        if start.phase != "confirm":
            return fast(start)
        tuned = bool(start.config)
        misses = next(runs[tuned]) == 0 and (tuned or baseline_misses)
        return 20.0, 40.0 if misses else 10.0

    document = lab.run(world, lab.study(pairs=3, slo="ttft:p99<35ms"))

    assert document["best"]["config"] == {}
    assert document["slo_outcome"]["tuned_meets"] == [False, True, True]
    assert document["slo_outcome"]["baseline_meets"] == [not baseline_misses, True, True]
    assert misses_slo(document) is baseline_misses


def test_a_budget_that_ends_before_any_trial(lab: StudyLab) -> None:
    document = lab.run(fast, lab.study(budget="0.0001s"))

    assert verdict_lines(document) == ["Nothing was tried: the budget ended. The baseline stays."]
    assert document["confirmation"]["verdict"] == "not confirmed"
    assert document["outcome"]["ended_by"] == "budget"

    document = lab.run(fast, lab.study(budget="2h"))
    assert document["confirmation"]["verdict"] == "better"


def test_a_default_that_is_written_out_is_the_baseline(lab: StudyLab) -> None:
    document = lab.run(fast, with_baseline(lab.study(trials=2), {"fast": False}))

    assert [trial["config"] for trial in document["trials"]] == [WINNER]
    assert [row["knob"] for row in document["ablation"]] == ["fast"]
    assert document["outcome"]["ended_by"] == "space"


def test_nothing_better_is_no_difference(lab: StudyLab) -> None:
    document = lab.run(lambda start: (20.0, 20.0 + start.number % 2))

    assert document["confirmation"]["verdict"] == "no difference"
    assert document["outcome"]["said"] == NOTHING_BETTER
    assert verdict_lines(document) == [NOTHING_BETTER]


def test_resume_raises_trials_budget_and_pairs(lab: StudyLab) -> None:
    lab.run(fast, lab.study(search="fast,idle"))
    given = {"trials": 2, "pairs": 4, "budget": "1h"}
    was = open_study(lab.folder)
    more = extended(was, lab.study(**given), given, "s")

    document = lab.run(fast, more)

    assert [start.phase for start in lab.starts].count("trial") == 1
    assert document["confirmation"]["pairs"] == 4
    assert document["spec"]["trials"] == 2
    assert open_study(lab.folder) == more
    assert extended(more, more, {"trials": 2}, "s") == more
    with pytest.raises(UsageError, match=r"--pairs 2: the study s has 4; it can be raised"):
        extended(more, lab.study(pairs=2), {"pairs": 2}, "s")


def test_resume_takes_a_narrower_interval_more_pairs_and_money(lab: StudyLab) -> None:
    def asked(**given: Any) -> Study:
        return lab.study(**{"price": "2/h", "confirm_until": "5%", **given})

    was = asked(confirm_until="5%", budget="1h", max_pairs=6)
    given = {"confirm_until": "3%", "budget": "$4", "max_pairs": 9}

    more = extended(was, asked(**given), given, "s")

    assert (more.confirm_until, more.max_pairs, more.limit_s) == (0.03, 9, 7200.0)
    for less, said in (
        (
            {"confirm_until": "6%"},
            "--confirm-until 6%: the study s has 5%; it can be lowered",
        ),
        ({"budget": "$1"}, r"--budget \$1: the study s has 1h; it can be raised"),
        (
            {"confirm_until": "5%", "max_pairs": 5},
            "--max-pairs 5: the study s has 6; it can be raised",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            extended(was, asked(**less), less, "s")


@pytest.mark.parametrize("most", [30, 12])  # 12 is the default, and says no more here
def test_resume_refuses_pairs_at_most_where_their_number_is_given(lab: StudyLab, most: int) -> None:
    given = {"max_pairs": most}
    asked = lab.study(pairs=None, **given)

    with pytest.raises(UsageError, match=f"--max-pairs {most}: the study s has --pairs 4, which"):
        extended(lab.study(pairs=4), asked, given, "s")
    assert extended(lab.study(pairs=None), asked, given, "s").max_pairs == most
    until = {**given, "confirm_until": "3%"}
    more = extended(lab.study(pairs=4), lab.study(pairs=None, **until), until, "s")
    assert (more.pairs, more.pairs_most) == (4, most)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "vllm"}, "--engine vllm: the study s began with faulty.engine, and"),
        ({"osl": "7"}, "--osl 7: the study s began with"),
        ({"users": "5"}, "--users 5: the study s began with 2, and"),
        ({"slo": "ttft:p99<2s"}, "--slo ttft:p99<2s: the study s began with none, and"),
        ({"objective": "ttft:p50"}, "--objective ttft:p50: the study s began with token_rate:mean"),
        ({"duration": "9s"}, "--duration 9s: the study s began with 8s"),
    ],
)
def test_resume_refuses_another_study(lab: StudyLab, given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        extended(lab.study(), lab.study(**given), given, "s")


def test_another_version_is_refused_or_marked(
    lab: StudyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.fails(breaks(5))
    monkeypatch.setenv("FAULTY_VERSION", "2.0")

    error = lab.fails(fast)
    assert isinstance(error, UsageError)
    assert "the engine's version: 1.0 before, 2.0 after" in str(error)
    assert "--elsewhere" in str(error)
    assert lab.starts == []

    document = lab.run(fast, elsewhere=True)
    assert document["moves"] == ["the engine's version: 1.0 before, 2.0 after"]
    assert [doubt["code"] for doubt in document["doubts"]].count("another-place") == 1
    assert document["engine_version"] == "2.0"
    places = [run["place"] for run in document["confirmation"]["runs"]]
    assert places == [1, 1, 1, 1]  # a pair over two places would be none
    assert document["trials"][0]["place"] == 0
    assert document["confirmation"]["verdict"] == "better"
    table = study_tables.confirmation_runs(document)
    assert table is not None
    assert [row.cells[2].text for row in table.rows] == ["measured (place 2)"] * 4


def test_studies_on_one_machine_warn_each_other(lab: StudyLab, tmp_path: Path) -> None:
    left = store.runtime_folder("studies-at-work") / "1-dead.json"
    left.parent.mkdir(parents=True)
    left.write_text('{"pid": 1, "folder": "/gone"}')
    with Presence(tmp_path / "other"):
        document = lab.run(fast)

    assert not left.exists()
    assert len([line for line in lab.told if "Another study runs on this machine" in line]) == 1
    assert document["beside"][0].startswith("other (process ")
    said = [doubt["text"] for doubt in document["doubts"] if doubt["code"] == "studies-beside"]
    assert said[0].startswith("Another study ran on this machine at the same time: other")
    assert list(left.parent.glob("*")) == []


def test_a_ledger_of_another_version_is_refused(lab: StudyLab) -> None:
    lab.run(fast)
    ledger = lab.folder / store.LEDGER
    ledger.write_text(ledger.read_text().replace('"version":1', '"version":2', 1))

    with pytest.raises(
        StorageError, match="is a ledger of version 2; this llmdyno reads version 1"
    ):
        Ledger(lab.folder)


def test_a_knob_that_is_gone_is_read_and_a_study_with_it_does_not_go_on(lab: StudyLab) -> None:
    lab.run(fast)
    ledger = lab.folder / store.LEDGER
    ledger.write_text(ledger.read_text().replace('"fast"', '"brisk"'))

    document = rebuild(lab.folder)[0]

    assert [row["knob"] for row in document["ablation"]] == ["brisk"]
    with pytest.raises(UsageError, match="brisk"):
        lab.run(fast, open_study(lab.folder))


def test_a_gone_knob_of_a_config_alone_is_refused_too(lab: StudyLab) -> None:
    """The winner would have been handed over with a knob that nothing knows."""
    lab.run(fast, lab.study(search="fast"))
    ledger = lab.folder / store.LEDGER
    first, *steps = ledger.read_text().splitlines(keepends=True)
    ledger.write_text(first + "".join(one.replace('"fast":', '"brisk":') for one in steps))
    written = (lab.folder / store.STUDY).read_bytes()

    with pytest.raises(UsageError, match=r"brisk=true was measured, and .* has no such knob"):
        lab.run(fast, open_study(lab.folder))
    assert (lab.folder / store.STUDY).read_bytes() == written


def test_a_trial_whose_folder_is_gone_keeps_its_value(lab: StudyLab) -> None:
    asked = lab.study(slo="ttft:p99<1s", trials=2, search="fast,idle")
    lab.run(fast, asked)
    for step in lab.steps:
        if step.phase == "trial":
            shutil.rmtree(lab.folder / step.run)

    document = lab.run(fast, asked)

    assert all(trial["value"] for trial in document["trials"])
    assert lab.starts == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trial_duration": "10ms", "ramp": "100ms"}, "--trial-duration 10ms"),
        ({"trial_duration": "0s"}, "--trial-duration 0s"),
        ({"trial_duration": "10ms"}, "--trial-duration 10ms"),
        ({"hang": "0s"}, "hang 0s: must be longer than 0"),
        ({"slo": "ttft:p99<0s"}, "--slo ttft:p99<0s"),
        ({"objective": "goodput"}, "goodput"),
        ({"objective": "ttft_due"}, "due"),
        ({"objective": "tpot", "osl": "1"}, "tpot"),
    ],
)
def test_what_cannot_be_is_refused_by_its_own_name(
    lab: StudyLab, given: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        lab.run(fast, lab.study(**given))
    assert lab.starts == []


def test_an_objective_without_a_value_ends_after_the_baseline(lab: StudyLab) -> None:
    error = lab.fails(fast, lab.study(objective="joules_per_token"))

    assert len(lab.starts) == 1
    assert "the baseline has no value of --objective joules_per_token" in str(error)
    assert "no energy counter can be read here" in str(error)


def test_the_ablation_says_which_setting_meets_the_slo(lab: StudyLab) -> None:
    """It costs token rate, so by that alone it is the one setting that does harm."""

    def world(start: Start) -> tuple[float, float]:
        is_fast = start.config.get("fast", False)
        wobble = 1 + 0.002 * (start.number % 2)
        return (24 if is_fast else 20) * wobble, (60 if is_fast else 240) * wobble

    asked = lab.study(
        search="fast,idle", slo="ttft:p99<120ms", candidates=[{"fast": True, "idle": "b"}]
    )
    document = lab.run(world, asked)

    assert document["confirmation"]["verdict"] == "better"
    rows = {row["knob"]: row for row in document["ablation"]}
    assert rows["fast"]["slo_met"]["with"] == [True, True]
    assert rows["fast"]["slo_met"]["without"] == [False, False]
    assert rows["fast"]["matters"]
    assert 0.2 < rows["fast"]["effect"]["ttft_ms_p99"]["ratio"] < 0.35
    assert rows["idle"]["slo_met"] == {"with": [True], "without": [True], "decides": False}
    said = findings.which_setting(document, ["fast", "idle"])
    assert said.startswith(
        "What did it is fast (false → true): with it ttft:p99<120ms is met in 2 of 2 runs, without"
        " it in 0 of 2 runs and the token rate is"
    )


@pytest.mark.parametrize(
    ("first", "later", "stays"),
    [
        (1.10, 1.40, False),  # neither is shown to be better with two noisy pairs
        (1.40, 1.10, True),
    ],
)
def test_of_two_that_are_not_shown_to_be_better_the_one_of_the_better_ratio_stands(
    lab: StudyLab, first: float, later: float, *, stays: bool
) -> None:
    """With more trials another one is tried first: its trial was lucky, or is what it is."""
    gains = {"b": first, "c": later}

    def world(start: Start) -> tuple[float, float]:
        gain = gains.get(str(start.config.get("idle")), 1.0)
        if start.phase == "trial" and start.config.get("idle") == "c":
            gain = 1.6
        noise = 1.25 if start.phase == "confirm" and start.number % 2 else 1.0
        return 20 / gain * noise, 20.0

    given = [{"idle": "b"}, {"idle": "c"}]
    asked = lab.study(search="idle", trials=1, candidates=given[:1])
    assert lab.run(world, asked)["best"]["config"] == given[0]

    more = msgspec.structs.replace(asked, trials=2, candidates=tuple(given))
    document = lab.run(world, more)

    assert document["confirmation"]["verdict"] == "no difference"
    assert document["best"]["config"] == given[0 if stays else 1]


def test_the_nearest_is_told_as_its_run_in_full_has_it(lab: StudyLab) -> None:
    """It had been the trial's value, beside a table with another one of the same config."""

    def world(start: Start) -> tuple[float, float]:
        gap_ms, ttft_ms = fast(start)
        return gap_ms, ttft_ms * (2 if start.phase == "trial" else 1)

    document = lab.run(world, lab.study(slo="ttft:p99<1ms"))

    nearest = document["slo_outcome"]["nearest"]
    level = document["best"]["summary"]["levels"][-1]
    assert nearest["config"] == document["best"]["config"]
    assert nearest["values"]["ttft:p99<1ms"] == level["ttft_ms"]["p99"]


def test_a_baseline_that_is_nearest_is_told_as_its_run_in_full_has_it(lab: StudyLab) -> None:
    """It had been its reference run's value, which no table shows."""

    def world(start: Start) -> tuple[float, float]:
        ttft_ms = 60.0 if start.config else {"baseline": 42.0}.get(start.phase, 22.0)
        return 20.0, ttft_ms

    document = lab.run(world, lab.study(slo="ttft:p99<20ms", trial_duration="6s"))

    nearest = document["slo_outcome"]["nearest"]
    level = document["baseline"]["summary"]["levels"][-1]
    assert nearest["config"] == {}
    assert nearest["values"]["ttft:p99<20ms"] == level["ttft_ms"]["p99"] > 40


@pytest.mark.parametrize("meets", ["best", "before", "after", "baseline", None])
def test_whoever_meets_the_slos_in_one_run_meets_them(lab: StudyLab, meets: str | None) -> None:
    def world(start: Start) -> tuple[float, float]:
        gap_ms, _ = fast(start)
        arm = "after" if start.config else "before"
        known = {start.phase, arm} if start.phase == "confirm" else {start.phase}
        return gap_ms, 12.5 if meets in known else 22.5

    document = lab.run(world, lab.study(slo="ttft:p99<20ms", trial_duration="6s"))

    outcome = document["slo_outcome"]
    assert outcome["met_by_some"] is (meets is not None)
    assert (outcome["nearest"] is None) is (meets is not None)
    assert ("No config that was tried meets" in document["outcome"]["said"]) is (meets is None)


def test_without_pairs_the_baseline_meets_what_its_run_in_full_meets(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        return 20.0, 42.0 if start.phase == "baseline" else 12.5

    document = lab.run(world, lab.study(slo="ttft:p99<20ms", trial_duration="6s"))

    assert document["confirmation"]["runs"] == []
    assert document["slo_outcome"]["baseline_meets"] == [False]


@pytest.mark.parametrize("in_full", [True, False])
def test_a_faster_trial_that_misses_the_slos_is_told_by_whether_the_baseline_meets_them(
    lab: StudyLab, *, in_full: bool
) -> None:
    """By its runs in full, as the sentence has it; its reference run says the other here."""

    def world(start: Start) -> tuple[float, float]:
        if start.config:
            return 10.0, 60.0
        return 20.0, 12.5 if (start.phase in {"baseline", "confirm"}) is in_full else 42.0

    document = lab.run(world, lab.study(slo="ttft:p99<20ms", trial_duration="6s"))

    outcome = document["slo_outcome"]
    assert document["best"]["config"] == {}
    assert set(outcome["baseline_meets"]) == {in_full}
    assert (outcome["faster"] is not None) is in_full
    verb = "meets" if in_full else "misses"
    assert f"The baseline {verb} ttft:p99<20ms" in document["outcome"]["said"]
    told = "fast=true had the better token rate in its trial"
    assert (told in document["outcome"]["said"]) is in_full


@pytest.mark.parametrize(("names", "is_said"), [("bcd", True), ("bde", False)])
def test_that_most_trials_failed_is_said_beside_that_none_is_better(
    lab: StudyLab, names: str, *, is_said: bool
) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        return "died" if start.config.get("itl_ms") in {11, 12} else (20.0, 20.0)

    given = [{"itl_ms": 10 + "abcde".index(name)} for name in names]
    document = lab.run(world, lab.study(search="itl_ms", trials=3, candidates=given))

    assert document["outcome"]["said"].startswith(NOTHING_BETTER)
    said = "2 of 3 trials failed: the search could not judge those settings."
    assert (said in verdict_lines(document)) is is_said
