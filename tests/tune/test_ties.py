"""A config that is shown to be equal to the baseline: the baseline stays, wherever that is told."""

import io
from pathlib import Path
from typing import Any

import pytest

from llmdyno import store
from llmdyno.cli import sides
from llmdyno.cli.rebuild import rebuild
from llmdyno.results import conclusions, findings
from llmdyno.terminal.study import show_study, verdict_lines
from llmdyno.tune.folder import open_study
from llmdyno.tune.going_on import extended
from study_lab import Start, StudyLab, World, fast, flat

WINNER = {"fast": True}
STAYS = "the baseline stays, as nothing speaks for a change"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyLab:
    return StudyLab(tmp_path / "s", monkeypatch)


def lucky(step_ms: float = 0.0) -> World:
    """Return a world where fast=true is fast until the pairs.

    Args:
        step_ms: by which equal runs differ in them.
    """

    def world(start: Start) -> tuple[float, float]:
        if start.phase != "confirm":
            return fast(start)
        return 20.0 + step_ms * (start.number % 3), 20.0

    return world


def test_what_is_equal_leaves_the_baseline_everywhere(lab: StudyLab) -> None:
    document = lab.run(lucky())

    assert document["confirmation"]["verdict"] == "no difference"
    assert document["confirmation"]["shown_equal"] is True
    assert document["confirmation"]["config"] == WINNER
    assert document["best"] == document["baseline"]
    assert document["rejected"] == document["ablation"] == []
    assert document["outcome"]["state"] == "confirmed"
    said = document["outcome"]["said"]
    assert said.startswith("Shown equal within 1 % at 2 users, token rate 1.00x [")
    assert said.endswith(f": {STAYS}; compared was fast=true.")
    assert conclusions.unproven(document) == ""
    first = verdict_lines(document)[0]
    assert first.startswith("fast=true against the baseline at 2 users: no difference, shown equal")
    assert first.endswith(f": {STAYS}.")
    assert f"; {STAYS}; compared was fast=true." in findings.verdict(document).sentence
    assert findings.how_sure(document).endswith("its interval lies within 1 % of “no difference”.")
    assert STAYS in lab.bundled()
    assert "Mind:" not in lab.bundled()
    assert "FAST" not in (lab.folder / store.BUNDLE / "serve.sh").read_text().upper()
    again, page = rebuild(lab.folder)
    assert again["best"]["config"] == {}
    assert STAYS in page.read_text()


def test_where_the_baseline_stays_it_is_shown_once_and_what_was_compared_is_named(
    lab: StudyLab,
) -> None:
    document = lab.run(lucky(), lab.study(users="1,2", confirm_levels="all"))

    readme = lab.bundled()
    assert (
        "\nOne run of the baseline, which is served, at each level; compared with it, in 2"
        " interleaved pairs at 2 users, was fast=true:\n\n| users | tokens/s | TTFT p50, ms |\n"
    ) in readme
    assert " before" not in readme
    second = findings.which_setting(document, ())
    assert second == "No setting differs from the baseline's; compared was fast=true."
    _, page = rebuild(lab.folder)
    assert "Then baseline and fast=true ran again in 2 pairs" in page.read_text()
    assert "One run of the baseline; the pairs of the confirmation decide" in page.read_text()
    shown = io.StringIO()
    show_study(document, [second], shown)
    assert "One run of the baseline at every load" in shown.getvalue()
    assert "compared was fast=true" in " ".join(shown.getvalue().split())


def test_a_bundle_of_a_study_that_found_nothing_says_how_many_were_tried(lab: StudyLab) -> None:
    lab.run(flat)

    assert (
        "\nOne run of the baseline, which is served, at each level; 1 trial was compared with it,"
        " in one run each:\n"
    ) in lab.bundled()


def test_a_tie_ends_the_proof_and_resume_measures_nothing(lab: StudyLab) -> None:
    asked = lab.study(search="fast,idle", trials=3)
    document = lab.run(lucky(), asked)

    assert document["confirmation"]["shown_equal"] is True
    # Others promised less; no second one is measured in full.
    assert [start.phase for start in lab.starts].count("best") == 1
    assert lab.starts[-1].phase == "confirm"
    assert lab.run(lucky(), asked)["outcome"] == document["outcome"]
    assert lab.starts == []


def test_more_pairs_may_show_what_was_a_tie(lab: StudyLab) -> None:
    lab.run(lucky(), lab.study())
    given = {"pairs": 4}
    more = extended(open_study(lab.folder), lab.study(**given), given, "s")

    document = lab.run(fast, more)

    assert document["confirmation"]["shown_equal"] is False
    assert document["best"]["config"] == WINNER


def test_what_is_merely_not_shown_stays_the_best_with_its_warning(lab: StudyLab) -> None:
    document = lab.run(lucky(0.1))

    low, high = document["confirmation"]["ratio"]["token_rate"]["ci95"]
    assert low < 0.99 or high > 1.01
    assert document["confirmation"]["shown_equal"] is False
    assert document["best"]["config"] == WINNER
    assert conclusions.unproven(document)


def test_what_is_no_better_in_the_mean_of_the_pairs_leaves_the_baseline(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        if start.phase != "confirm":
            return fast(start)
        return 20.0 + start.number % 3 + (0.1 if start.config else 0.0), 20.0

    document = lab.run(world, lab.study(pairs=3))

    found = document["confirmation"]
    assert found["verdict"] == "no difference"
    assert found["ratio"]["token_rate"]["mean"] < 1
    assert (found["shown_equal"], found["no_better"]) == (False, True)
    assert document["best"] == document["baseline"]
    said = document["outcome"]["said"]
    assert said.startswith("No difference shown at 2 users, token rate ")
    assert said.endswith(f": {STAYS}; compared was fast=true.")
    first = verdict_lines(document)[0]
    assert first.startswith("fast=true against the baseline at 2 users: no difference (3 ")
    assert first.endswith(f": {STAYS}.")
    assert STAYS in lab.bundled()
    assert "Mind:" not in lab.bundled()
    assert lab.starts[-1].phase == "confirm"  # nothing that promised less is looked at
    _, (other,), decided = sides._arms(str(lab.folder), lab.folder)
    assert other.name.endswith(" compared")
    assert [(one.name, one.after) for one in decided.settings] == [("fast", "true")]


def test_who_meets_the_slos_in_more_runs_stays_the_best_though_it_is_no_faster(
    lab: StudyLab,
) -> None:
    baselines = iter(range(99))

    def world(start: Start) -> tuple[float, float]:
        if start.phase != "confirm":
            return fast(start)
        missed = not start.config and next(baselines) == 0
        return 20.0 + start.number % 3 + (0.5 if start.config else 0.0), 40.0 if missed else 10.0

    document = lab.run(world, lab.study(pairs=3, slo="ttft:p99<35ms"))

    found = document["confirmation"]
    assert document["slo_outcome"]["baseline_meets"] == [False, True, True]
    assert document["slo_outcome"]["tuned_meets"] == [True, True, True]
    assert found["verdict"] == "no difference"
    assert found["ratio"]["token_rate"]["mean"] < 1
    assert (found["shown_equal"], found["no_better"]) == (False, False)
    assert document["best"]["config"] == WINNER


@pytest.mark.parametrize("objective", ["tpot:mean", "ttft:p50"])
def test_where_less_is_better_a_tie_is_one_too(lab: StudyLab, objective: str) -> None:
    document = lab.run(lucky(), lab.study(objective=objective))

    assert document["confirmation"]["shown_equal"] is True
    assert document["best"]["config"] == {}


def test_who_meets_an_slo_that_the_baseline_misses_is_no_tie(lab: StudyLab) -> None:
    def world(start: Start) -> tuple[float, float]:
        return (20.0, 10.0 if start.config else 40.0)  # as fast, and the first token sooner

    document = lab.run(world, lab.study(slo="ttft:p99<30ms"))

    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["shown_equal"] is False
    assert document["best"]["config"] == WINNER


def test_who_meets_an_slo_now_and_then_is_no_tie(lab: StudyLab) -> None:
    runs = iter(range(99))

    def world(start: Start) -> tuple[float, float]:
        if start.phase == "confirm" and start.config and next(runs) == 0:
            return (20.0, 40.0)  # once it misses it
        return (10.0 if start.config and start.phase != "confirm" else 20.0, 10.0)

    document = lab.run(world, lab.study(slo="ttft:p99<30ms"))

    assert document["confirmation"]["verdict"] == "not confirmed"
    assert document["confirmation"]["shown_equal"] is False


def test_compare_tells_of_the_pairs_and_takes_the_baseline_for_the_study(lab: StudyLab) -> None:
    document = lab.run(lucky())
    name = str(lab.folder)

    baseline, (other,), decided = sides._arms(name, lab.folder)

    assert (baseline.name, other.name) == (f"{name} baseline", f"{name} equal")
    assert [(one.name, one.after) for one in decided.settings] == [("fast", "true")]
    assert decided.word == "no difference"
    runs = {run["run"]: run["arm"] for run in document["confirmation"]["runs"]}
    taken = sides._side(name).starts
    assert {runs[str(one.folder.relative_to(lab.folder))] for one in taken} == {"before"}


def test_a_tie_has_one_config_to_show(lab: StudyLab) -> None:
    document: dict[str, Any] = lab.run(lucky())

    assert findings.stands(document)
    assert "None of 1 trial is shown to beat the baseline" in findings.by_how_much(document)
    assert findings.verdict(document).tone == "same"
