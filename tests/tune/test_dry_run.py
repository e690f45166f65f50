"""What a study would do and cost, without starting anything."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno import store
from llmdyno.cli.flags import study_spec
from llmdyno.errors import UsageError
from llmdyno.search.space import Space
from llmdyno.terminal.dry_run import show_dry_run
from llmdyno.tune.budget import UNKNOWN_START_S
from llmdyno.tune.combined import Combined
from llmdyno.tune.database import Database
from llmdyno.tune.dry_run import dry_run
from llmdyno.tune.folder import stack_of
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.search import space
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner
from studies import unheard
from study_lab import Start, StudyLab, fast


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of one's own, in which nothing was measured."""
    monkeypatch.chdir(tmp_path)


def asked(**given: Any) -> Study:
    return study_spec(
        {
            "engine": "timed.engine",
            "model": "m",
            "users": "2,6",
            "duration": "60s",
            "trial_duration": "30s",
            "warmup": "5s",
            "trials": 10,
            "pairs": 3,
            **given,
        }
    )


def planned(study: Study, folder: Path = Path("s")) -> dict[str, Any]:
    conductor = Combined if study.combines else Tuner
    return dry_run(study, conductor(study, folder, unheard()))


def shown(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    show_dry_run(document, stream)
    return stream.getvalue()


def test_a_start_lasts_as_the_engine_says_until_one_was_measured() -> None:
    embedded = {"engine": "openvino", "model": "tiny"}

    def guessed_s(**given: Any) -> float:
        cost = planned(asked(**{**embedded, **given}))["stacks"][0]["start_cost_s"]
        assert cost["known_from"] is None
        return float(cost["start"])

    assert guessed_s() == 4.0
    Path("another.gguf").write_bytes(b"GGUF" + bytes(64))
    assert guessed_s(model="another.gguf") == UNKNOWN_START_S
    assert guessed_s(front="bentoml") == UNKNOWN_START_S


def test_every_step_of_a_study_has_its_runs_and_minutes(tmp_path: Path) -> None:
    document = planned(asked(price="6/h"))
    phases = {one["phase"]: one for one in document["phases"]}
    start_s = 60.0  # a guess

    runs = {"baseline": 1, "reference": 1, "trials": 10, "best": 1, "confirmation": 6}
    # Three knobs are searched: a pair for each, and three to look closer.
    runs |= {"ablation": 2 * (3 + 3), "quality": 2}
    assert {name: one["runs"] for name, one in phases.items()} == runs
    assert phases["baseline"]["minutes"] == round((start_s + 5 + 120) / 60, 1)
    assert phases["trials"]["minutes"] == round(10 * (start_s + 5 + 30) / 60, 1)
    assert phases["confirmation"]["minutes"] == round(6 * (start_s + 5 + 60) / 60, 1)
    assert document["minutes"] == pytest.approx(
        sum(one["minutes"] for one in phases.values()), abs=0.1
    )
    assert document["money"] == pytest.approx(document["minutes"] / 60 * 6, abs=0.02)
    assert document["stacks"][0]["start_cost_s"]["known_from"] is None
    assert list(tmp_path.iterdir()) == []  # nothing is written


def test_a_small_space_ends_the_trials_before_their_number_does() -> None:
    """Of 4 x 2 configs one is the baseline; with a number's range there is no such end."""
    small = planned(asked(search="mode,idle", trials=100))
    large = planned(asked(search="mode,itl_ms", trials=1000))

    assert small["stacks"][0]["search"]["points"] == 8
    trials = [
        {one["phase"]: one["runs"] for one in of["phases"]}["trials"] for of in (small, large)
    ]
    assert trials == [7, 1000]


def test_what_is_searched_is_told_with_its_size_and_what_is_tried_first() -> None:
    study = asked()
    (stack,) = planned(study)["stacks"]
    knobs = {knob["name"]: knob for knob in stack["search"]["knobs"]}

    assert knobs["mode"]["values"] == ["good", "refuses", "dies", "hangs"]
    assert knobs["itl_ms"]["default"] == 40
    searched = space(stack_of(study).knobs, only=(), allow_altered_output=False, baseline={})
    assert stack["search"]["points"] == len(list(Space(searched, {}).points()))
    assert stack["search"]["infeasible"]["refused"] == 0


def test_a_budget_says_how_many_trials_it_has_time_for() -> None:
    little = planned(asked(budget="15m"))
    much = planned(asked(budget="$20", price="10/h"))

    # 15 minutes less 3.1 for the baseline and 1.6 for the reference, at 95 s a trial.
    # The best in full and three pairs take 935 s, of which a third of the budget is kept, 300 s.
    # Two of the three come whatever is left.
    least = {"minutes": 15.0, "trials": 3, "enough": False, "pairs": 2, "over_minutes": 5.8}
    assert little["budget"] == least | {"money": None}
    all_of_it = {"minutes": 120.0, "trials": 10, "enough": True, "pairs": 3, "over_minutes": 0.0}
    assert much["budget"] == all_of_it | {"money": much["money"]}
    said = (
        "The budget of 15 minutes has time for 3 trials. Then come the 2 pairs of the proof, which"
        " end 5.8 minutes after the budget does."
    )
    assert said in shown(little)
    assert "The budget of 120 minutes is enough for all of it: 10 trials." in shown(much)


def test_a_budget_that_ends_the_study_says_what_it_costs_then() -> None:
    document = planned(asked(budget="$15", price="60/h"))  # 15 minutes, as above

    assert document["money"] == pytest.approx(document["minutes"], abs=0.1)
    assert document["budget"]["money"] == pytest.approx(15.0 + 5.8, abs=0.1)
    said = shown(document)
    assert f"At the machine's price that is {document['money']:g} without the budget." in said
    assert f"after the budget does. That costs about {document['budget']['money']:g}." in said


def test_a_budget_that_leaves_fewer_pairs_says_what_those_find() -> None:
    whole, little = planned(asked(pairs=None)), planned(asked(pairs=None, budget="15m"))

    assert little["budget"]["pairs"] == little["confirmation"]["pairs"] == 2
    assert whole["confirmation"]["pairs"] > 2
    assert little["confirmation"]["detects"] > whole["confirmation"]["detects"]


@pytest.mark.parametrize(("budget", "enough"), [("3905s", True), ("3904s", False)])
def test_a_budget_is_compared_with_what_is_planned_not_with_rounded_minutes(
    budget: str, *, enough: bool
) -> None:
    # Its phases last 185, 95, 950, 185, 750, 1500 and 240 s: 3905 s, 3906 in minutes of one digit.
    assert planned(asked(budget=budget))["budget"]["enough"] is enough


def test_the_pairs_say_what_they_can_find() -> None:
    few, many = planned(asked(pairs=2)), planned(asked(pairs=12))

    assert few["confirmation"]["detects"] > 0.10 > many["confirmation"]["detects"]
    assert few["confirmation"]["noise"] == 0.05
    needed = few["confirmation"]["pairs_for_10_percent"]
    assert f"one of 10 % needs {needed} pairs." in shown(few)
    assert "one of 10 % needs" not in shown(many)


def test_several_engines_are_one_plan_and_who_cannot_work_is_named() -> None:
    study = asked(engine="timed.engine,faulty.engine,vllm", model="m", search="itl_ms")
    document = planned(study)
    phases = {one["phase"]: one for one in document["phases"]}

    assert [stack["engine"] for stack in document["stacks"]] == ["timed.engine", "faulty.engine"]
    assert phases["baseline"]["runs"] == 2
    assert phases["trials"]["runs"] == 10  # shared by all
    assert phases["quality"]["runs"] == 2
    without = {
        one["phase"] for one in planned(msgspec.structs.replace(study, quality=False))["phases"]
    }
    assert set(phases) - without == {"quality"}
    assert [one["engine"] for one in document["left_out"]] == ["vllm"]
    assert "Left out: vllm behind native" in shown(document)


def test_a_little_budget_has_a_first_trial_of_each_engine_that_is_searched() -> None:
    """Of 660 s the baselines leave 220, of which all is kept but for first trials of 95 s."""
    given = {"engine": "timed.engine,faulty.engine", "users": "2", "budget": "660s"}
    both, alone = planned(asked(**given)), planned(asked(**given, search="mode"))

    assert both["budget"]["trials"] == 2
    assert alone["budget"]["trials"] == 1  # a knob of the first engine alone


def test_memory_that_is_not_there_is_told_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    # It need not be installed here for a plan.
    monkeypatch.setattr("llmdyno.engines.vllm.VllmEngine.version", lambda _: "0.11.0")
    study = asked(
        engine="vllm",
        model="meta-llama/Llama-3.1-70B",
        predict_on="h200",
        search="gpu_memory_utilization,max_num_batched_tokens",
    )
    document = planned(study)
    (stack,) = document["stacks"]
    infeasible = stack["search"]["infeasible"]

    assert infeasible["refused"] > 0
    assert "GiB" in infeasible["whys"][0]["why"]
    assert stack["expected"][0]["config"] == {}
    assert "cannot work:" in shown(document)
    assert "predicted: " in shown(document)
    assert "is not simulated" not in shown(document)
    set_so = planned(msgspec.structs.replace(study, baseline={"stream_interval": 8}))
    assert "What stream_interval=8 changes is not simulated" in shown(set_so)


def test_a_study_that_goes_on_has_only_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    study.run(fast, study.study(search="fast,itl_ms"))
    more = study.study(search="fast,itl_ms", trials=5)
    phases = {one["phase"]: one for one in planned(more, tmp_path / "s")["phases"]}

    assert phases["baseline"]["runs"] == 0
    assert phases["trials"]["runs"] == 4
    # One of them may be better than the winner that was confirmed.
    assert phases["best"]["runs"] == 1
    assert phases["confirmation"]["runs"] == 2 * study.study().pairs_least


def test_pairs_that_have_ended_are_not_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    quiet = study.study(pairs=None)
    study.run(fast, quiet)
    path = study.folder / store.LEDGER
    lines = path.read_text().splitlines(keepends=True)
    last = [f'"phase":"confirm","number":{number},' for number in (8, 9)]
    path.write_text("".join(line for line in lines if not any(one in line for one in last)))

    def to_come(asked: Study) -> int:
        phases = {one["phase"]: one for one in planned(asked, study.folder)["phases"]}
        return int(phases["confirmation"]["runs"])

    assert to_come(quiet) == 0  # four were enough for the version that made them
    assert to_come(study.study(pairs=None, max_pairs=13)) > 0


def test_a_proof_without_trials_to_come_has_only_the_pairs_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    study.run(fast, study.study())
    phases = {one["phase"]: one for one in planned(study.study(pairs=3), tmp_path / "s")["phases"]}

    assert phases["trials"]["runs"] == 0
    assert phases["best"]["runs"] == 0
    assert phases["confirmation"]["runs"] == 2


def test_the_pairs_of_a_would_be_winner_that_is_none_are_not_the_next_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyLab(tmp_path / "s", monkeypatch)
    given = [{"fast": True}, {"itl_ms": 15}]
    asked_for = study.study(search="fast,itl_ms", candidates=given, trials=2, pairs=2)

    def world(start: Start) -> Any:
        if start.phase == "best" and start.config == {"itl_ms": 15}:
            raise KeyboardInterrupt
        gap_ms, first_ms = fast(start)
        lucky = start.config.get("fast") and start.phase == "confirm"
        return (60.0 if lucky else gap_ms), first_ms  # worse in the pairs

    with pytest.raises(KeyboardInterrupt):
        study.run(world, asked_for)
    phases = {one["phase"]: one for one in planned(asked_for, tmp_path / "s")["phases"]}

    assert (phases["trials"]["runs"], phases["best"]["runs"]) == (0, 1)
    assert phases["confirmation"]["runs"] == 4


@pytest.mark.parametrize(
    ("pairs", "budget", "whole"), [(6, "1h", 6), (6, None, 6), (None, "10s", 4)]
)
def test_pairs_that_were_measured_count_beside_those_that_the_budget_has_time_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairs: int | None,
    budget: str | None,
    whole: int,
) -> None:
    lab_of_study = StudyLab(tmp_path / "s", monkeypatch)
    lab_of_study.run(fast, lab_of_study.study(pairs=4))
    monkeypatch.setattr("llmdyno.tune.dry_run.pairs_asked", lambda *_: 6)  # by their noise
    more = lab_of_study.study(pairs=pairs, budget=budget)
    document = planned(more, tmp_path / "s")

    assert document["confirmation"]["pairs"] == whole
    if budget is not None:
        assert document["budget"]["pairs"] == whole - 4  # to come


def test_lanes_are_shown_and_divide_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmdyno.machine.devices._cores", lambda: list(range(8)))
    one, four = planned(asked(budget="15m")), planned(asked(budget="15m", parallel=4))
    minutes = {one["phase"]: one["minutes"] for one in four["phases"]}
    runs = {one["phase"]: one["runs"] for one in four["phases"]}

    assert (one["lanes"], len(four["lanes"])) == ([], 4)
    assert (runs["reference"], runs["trials"]) == (4, 10)
    start_s = 60.0  # a guess
    assert minutes["reference"] == round((start_s + 5 + 30) / 60, 1)
    assert minutes["trials"] == round(3 * (start_s + 5 + 30) / 60, 1)  # four, four and two
    assert minutes["confirmation"] == round(6 * (start_s + 5 + 60) / 60, 1)  # one at a time
    assert one["budget"]["trials"] < four["budget"]["trials"] == 10
    said = " ".join(shown(four).split())
    assert "Trials run 4 at once, on cores 0-1, cores 2-3, cores 4-5, cores 6-7;" in said


def test_a_study_over_engines_on_hosts_has_the_baseline_of_each_on_every_host() -> None:
    pytest.importorskip("psycopg")

    def over(count: int, **given: Any) -> dict[str, Any]:
        wanted = asked(engine="timed.engine,faulty.engine", parallel=count, **given)
        # Nobody is there, and nobody is asked.
        hosts = Hosts(Database("postgresql+psycopg://me@nowhere.invalid/team"), count)
        return dry_run(wanted, Combined(wanted, Path("s"), unheard(), here=False, hosts=hosts))

    document = over(4)
    phases = {one["phase"]: one for one in document["phases"]}
    one = {
        one["phase"]: one for one in planned(asked(engine="timed.engine,faulty.engine"))["phases"]
    }

    assert document["lanes"] == ["host 1", "host 2", "host 3", "host 4"]
    assert phases["reference"]["runs"] == 2 * 4
    assert phases["reference"]["minutes"] == one["reference"]["minutes"]  # all hosts at once
    # Ten trials: three and two, which are a wave each; then five of the better one, in two waves.
    assert phases["trials"]["runs"] == 10
    assert phases["trials"]["minutes"] == pytest.approx(one["trials"]["minutes"] * 4 / 10, abs=0.1)
    assert "4 at once, of one combination at a time" in phases["trials"]["what"]
    assert over(4, trials=2)["phases"][2]["minutes"] == pytest.approx(
        2 * one["trials"]["minutes"] / 10, abs=0.1
    )
    assert "Trials run 4 at once, on host 1, host 2, host 3, host 4;" in shown(document)


def test_more_lanes_than_the_machine_has_are_refused_before_a_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmdyno.machine.devices._cores", lambda: [0, 1])

    with pytest.raises(UsageError, match="--parallel 3: takes 3 CPU cores, 1 for each trial"):
        planned(asked(parallel=3))


def test_a_side_that_searches_nothing_is_asked_for_no_trial() -> None:
    """Its knobs are none of what is tried: mode and idle of the other have eight points."""
    both = planned(asked(engine="timed.engine,faulty.engine", search="mode,timed.engine:idle"))

    assert {one["phase"]: one["runs"] for one in both["phases"]}["trials"] == 7


def test_a_study_of_which_nothing_is_left_to_search_is_refused() -> None:
    """It was a ZeroDivisionError."""
    study = asked(
        engine="timed.engine,mlc-llm", search="mlc-llm:tensor_parallel_shards", budget="30m"
    )

    with pytest.raises(UsageError, match="mlc-llm behind native is left out: --model m: there is"):
        dry_run(study, Combined(study, Path("s"), unheard(), here=False))


def test_over_hosts_all_machines_cost_money_until_the_trials_end() -> None:
    pytest.importorskip("psycopg")

    def over(**given: Any) -> dict[str, Any]:
        wanted = asked(parallel=3, price="6/h", **given)
        hosts = Hosts(Database("postgresql+psycopg://me@nowhere.invalid/team"), 3)
        return dry_run(wanted, Tuner(wanted, Path("s"), unheard(), here=False, hosts=hosts))

    document = over()
    minutes = {one["phase"]: one["minutes"] for one in document["phases"]}
    held = sum(minutes[name] for name in ("baseline", "reference", "trials"))
    assert document["machines"] == 4
    of_all = (document["minutes"] + 3 * held) / 60 * 6
    assert document["money"] == pytest.approx(of_all, abs=0.1)
    said = " ".join(shown(document).split())
    assert f"At the price of each machine that is {document['money']:g}, the hosts' until" in said

    budget = over(budget="2mh", trials=500)
    said = " ".join(shown(budget).split())
    assert "The budget of 120 minutes of each machine has time for" in said
    # The lead's two hours and no more; of the hosts' the proof has none.
    assert 2 * 6 + 3 * 1 * 6 < budget["budget"]["money"] < (2 + 3 * 2) * 6
    assert f"That costs about {budget['budget']['money']:g} for all." in said
    alone = planned(asked(price="6/h"))
    assert alone["machines"] == 1
    assert "At the machine's price that is" in shown(alone)
