"""A study over engines and fronts, its measurements made without a server."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lab
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.cli.rebuild import rebuild
from llmdyno.errors import DynoError, ServerError, UsageError
from llmdyno.machine import environment
from llmdyno.quality.answers import Answers
from llmdyno.results import findings
from llmdyno.serve.stack import Stack
from llmdyno.tune import runner
from llmdyno.tune.combined import Combined
from llmdyno.tune.gate import Gate
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.spec import Study
from studies import unheard
from study_lab import LENGTH, answers

ENGINES = "timed.engine,faulty.engine"
Measure = Callable[..., Measurement]


def spec(**given: Any) -> Study:
    asked = {"engine": ENGINES, "model": "m", "users": "2", "pairs": 2, "trials": 4}
    asked["quality"] = False  # it would start servers
    return flags.study_spec({**asked, "trial_duration": "60s", **given})


class Bench:
    """Measures a stack by a formula; every run is a journal like a real one's.

    Args:
        gap_ms: by engine, of all defaults; an engine that is not in it dies.
        stop_at: at this measurement, counted from 0, the process is killed.
    """

    def __init__(self, gap_ms: Mapping[str, int], stop_at: int | None = None) -> None:
        self.gap_ms = gap_ms
        self.stop_at = stop_at
        self.done: list[str] = []

    def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
        if len(self.done) == self.stop_at:
            raise KeyboardInterrupt
        engine = stack.engine.name
        self.done.append(engine)
        if engine not in self.gap_ms:
            return Measurement(failure_class="died", failure_why="it died", measure_s=1.0)
        folder = how["folder"]
        # What a search sets makes it a little better, so that there is something to find.
        gap_ms = self.gap_ms[engine] - 2 * bool(config)
        lab.write_run(folder, gap_ms=gap_ms)
        summary = store.read_json(folder / store.SUMMARY)
        return Measurement(summary=summary, measure_s=1.0, folder=str(folder))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench], None]:
    monkeypatch.setattr(lab, "_LEVEL_S", 4)
    monkeypatch.setattr("llmdyno.results.stats.RESAMPLES", 200)
    monkeypatch.setenv("FAULTY_VERSION", "1.0")
    return lambda bench: monkeypatch.setattr(runner, "measure", bench)


def test_the_best_of_all_is_confirmed_against_the_first_baseline(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(bench := Bench({"timed.engine": 40, "faulty.engine": 20}))

    document = Combined(spec(), tmp_path / "s", unheard()).run()

    assert document["engine"] == "faulty.engine"
    assert document["best"]["engine"] == "faulty.engine"
    assert document["baseline"]["engine"] == "timed.engine"
    assert document["baseline"]["config"] == {}
    confirmation = document["confirmation"]
    assert confirmation["verdict"] == "better"
    assert confirmation["pairs"] == 2
    assert confirmation["ratio"]["token_rate"]["mean"] == pytest.approx(40 / 18, rel=0.05)
    arms = {(run["arm"], run["engine"]) for run in confirmation["runs"]}
    assert arms == {("before", "timed.engine"), ("after", "faulty.engine")}
    states = {one["engine"]: (one["state"], one["trials"]) for one in document["combinations"]}
    assert states == {"timed.engine": ("measured", 1), "faulty.engine": ("best", 3)}
    assert {trial["engine"] for trial in document["trials"]} == set(bench.gap_ms)
    assert [trial["id"] for trial in document["trials"]] == [1, 2, 3, 4]
    assert (tmp_path / "s" / "bundle" / "serve.sh").exists()
    written = store.read_json(tmp_path / "s" / "study.json")
    assert written == json.loads(msgspec.json.encode(document))
    again, page = rebuild(tmp_path / "s")
    assert msgspec.json.encode(again) == msgspec.json.encode(document)
    assert "Best of 2 combinations" in page.read_text()


def test_trials_and_pairs_stand_in_the_order_in_which_they_ran(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = count()
    monkeypatch.setattr(store, "new_id", lambda name: f"20261130-{next(now):06d}-{name}")
    measured(Bench({"timed.engine": 20, "faulty.engine": 15}))
    document = Combined(spec(trials=5), tmp_path / "s", unheard()).run()

    def began(of: str, listed: list[dict[str, Any]]) -> list[int]:
        told = [Path(one["run"]).name.split("-")[1] for one in listed]
        assert len(told) > 1, of
        return list(map(int, told))

    trials, runs = document["trials"], document["confirmation"]["runs"]
    assert began("trials", trials) == sorted(began("trials", trials))
    assert began("runs", runs) == sorted(began("runs", runs))
    assert [run["arm"] for run in runs] == ["before", "after", "after", "before"]
    assert [trial["id"] for trial in trials] == [1, 2, 3, 4, 5]


def test_trials_of_several_rounds_are_not_put_together_by_combination(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = count()
    monkeypatch.setattr(store, "new_id", lambda name: f"20261130-{next(now):06d}-{name}")
    measured(Bench({"timed.engine": 20, "faulty.engine": 40}))

    document = Combined(spec(), tmp_path / "s", unheard()).run()

    assert [trial["engine"].removesuffix(".engine") for trial in document["trials"]] == [
        *("timed", "faulty", "timed", "timed"),
    ]


def test_what_the_first_engine_sets_is_no_doubt_of_the_winner(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"timed.engine": 20, "faulty.engine": 40}))
    set_for_one = {"faulty.engine:itl_ms": 19, "timed.engine:lossy": True}
    engines = "faulty.engine,timed.engine"
    asked = spec(engine=engines, baseline=set_for_one, allow_altered_output=True)

    document = Combined(asked, tmp_path / "s", unheard()).run()

    assert document["best"]["engine"] == "timed.engine"
    assert document["best"]["config"]["lossy"] is True
    doubts = [one["text"] for one in document["doubts"] if one["code"] == "altered-output"]
    assert not [said for said in doubts if "lossy" in said]


def test_each_engine_has_the_words_that_are_said_to_be_its_own(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"timed.engine": 40, "faulty.engine": 20}))
    words = ("timed.engine:--of-mine=1", "faulty.engine:--of-mine", "faulty.engine:2")

    document = Combined(spec(engine_arg=list(words)), tmp_path / "s", unheard()).run()

    assert document["engine_args"] == ["--of-mine", "2"]
    assert "--of-mine 2" in (tmp_path / "s" / "bundle" / "serve.sh").read_text()
    first = Ledger(tmp_path / "s" / "stacks" / "timed.engine+native").spec
    assert first.engine_args == ("--of-mine=1",)


def test_what_another_engine_gives_is_not_told_of_a_setting(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(bench := Bench({"timed.engine": 40, "faulty.engine": 20}))

    wanted = msgspec.structs.replace(spec(), candidates=({"itl_ms": 5},))
    document = Combined(wanted, tmp_path / "s", unheard()).run()

    # The engine made it twice as fast, its one setting 20/18; each has runs of its own.
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] == pytest.approx(2.2, rel=0.05)
    (row,) = document["ablation"]
    assert row["effect"]["token_rate"]["ratio"] == pytest.approx(20 / 18, rel=0.02)
    assert bench.done[-4:] == ["faulty.engine"] * 4
    said = findings.which_setting(document, [row["knob"]])
    change = "timed.engine behind native → faulty.engine behind native"
    assert said.startswith(f"No setting alone: what serves the model changed, too ({change}).")
    assert "itl_ms (20 → 5): with it the token rate is 11 % higher" in said
    assert "whatever differs is its doing" not in said
    _, page = rebuild(tmp_path / "s")
    assert f"Baseline and winner: {change}." in page.read_text()
    assert f"What serves the model: {change}." in page.read_text()


def test_what_answers_otherwise_than_the_first_baseline_may_not_win(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(gate: Gate, config: Mapping[str, Any], like: Answers | None) -> Answers:
        served = gate._baseline if like is None else gate._runner
        asked.append((served.stack.engine.name, dict(config)))
        worse = like is not None and served.stack.engine.name == "faulty.engine"
        return answers(LENGTH // 2 if worse else LENGTH)

    monkeypatch.setattr(Gate, "_ask", ask)
    measured(bench := Bench({"timed.engine": 40, "faulty.engine": 20}))
    wanted = spec(quality=True, allow_altered_output="0.5%")

    document = Combined(wanted, tmp_path / "s", unheard()).run()

    # All of faulty.engine are faster, and the first of them tells: the others are not asked.
    assert document["best"]["engine"] == "timed.engine"
    assert document["confirmation"]["verdict"] == "better"
    assert [engine for engine, _ in asked] == ["timed.engine", "faulty.engine", "timed.engine"]
    (refused,) = document["quality"]["refused"]
    assert (refused["engine"], refused["front"]) == ("faulty.engine", "native")
    assert document["quality"]["verdict"] == "the same"  # of the winner

    done = len(bench.done)
    again = Combined(wanted, tmp_path / "s", unheard()).run()
    assert (len(asked), len(bench.done)) == (3, done)
    assert again["quality"] == document["quality"]


def test_without_a_limit_another_engines_answers_are_told(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "_ask", lambda _, __, like: answers(LENGTH if like is None else 10))
    seconds = count(0, 100)  # each of the two is asked for 100 s
    monkeypatch.setattr("llmdyno.tune.ledger.monotonic", lambda: float(next(seconds)))
    measured(Bench({"timed.engine": 40, "faulty.engine": 20}))

    document = Combined(spec(quality=True), tmp_path / "s", unheard()).run()

    assert document["best"]["engine"] == "faulty.engine"
    assert document["quality"]["verdict"] == "differs"
    parts = [Ledger(path) for path in (tmp_path / "s" / "stacks").iterdir()]
    by_part = [sum(event.charged_s for event in part.events) for part in parts]
    assert by_part == [100, 100]  # what asks an engine, that engine's study pays
    steps_s = sum(step.charged_s for part in parts for step in part.steps)
    assert document["spent_s"] == pytest.approx(steps_s + 200, abs=0.01)
    assert "altered-output" in [doubt["code"] for doubt in document["doubts"]]


@pytest.mark.parametrize("upgraded", ["2.0", "1.0"])
def test_pairs_over_two_engines_are_of_one_place(
    upgraded: str,
    measured: Callable[[Bench], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The version of one engine alone changes in the middle of the confirmation."""
    speeds = {"timed.engine": 40, "faulty.engine": 20}
    measured(first := Bench(speeds, stop_at=10))
    with pytest.raises(KeyboardInterrupt):
        Combined(spec(), tmp_path / "s", unheard()).run()
    pairs = [
        step for place in (tmp_path / "s").glob("stacks/*") for step in Ledger(place).of("confirm")
    ]
    assert len(pairs) == 3  # one pair is whole, one is half
    monkeypatch.setenv("FAULTY_VERSION", upgraded)
    measured(rest := Bench(speeds))

    document = Combined(spec(), tmp_path / "s", unheard(), elsewhere=True).run()

    moved = upgraded != "1.0"
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["pairs"] == 2
    assert len(document["moves"]) == moved
    explained = 2 * 2  # the winner's one change taken back, two pairs of runs
    assert len(rest.done) == 1 + moved + explained  # the half pair, made anew if it moved
    codes = [doubt["code"] for doubt in document["doubts"]]
    assert ("torn-pairs" in codes) == (not moved)
    assert ("another-place" in codes) == moved
    assert len(first.done) == 10


def test_a_study_over_engines_that_may_not_go_on_is_as_it_was(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last combination alone has a knob that is gone; those before it have not moved."""
    measured(Bench({"timed.engine": 40, "faulty.engine": 20}))
    Combined(spec(), tmp_path / "s", unheard()).run()
    ledgers = sorted((tmp_path / "s").rglob(store.LEDGER))
    assert len(ledgers) == 3
    path = next(one for one in ledgers if "faulty" in str(one))
    first, *steps = path.read_text().splitlines(keepends=True)
    path.write_text(first + "".join(one.replace('"config":{"', '"config":{"x') for one in steps))
    before = [one.read_bytes() for one in ledgers]
    real = environment.describe
    monkeypatch.setattr(environment, "describe", lambda **told: {**real(**told), "kernel": "x"})

    with pytest.raises(UsageError, match="no such knob"):
        Combined(spec(), tmp_path / "s", unheard(), elsewhere=True).run()

    assert [one.read_bytes() for one in ledgers] == before


BEST = {"fast": True, "itl_ms": 10}


class Phased(Bench):
    """The same, where one phase of one config dies, or the engine is replaced at some moment."""

    def __init__(self, dies: str = "", replaced_at: int | None = None) -> None:
        super().__init__({"timed.engine": 40, "faulty.engine": 20})
        self.dies, self.replaced_at = dies, replaced_at
        self.phases: list[str] = []

    def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
        self.phases.append(how["folder"].name.split("-")[2])
        if len(self.phases) == self.replaced_at:
            os.environ["FAULTY_VERSION"] = "2.0"
        if self.phases[-1] == self.dies and config == BEST:
            return Measurement(failure_class="hung", failure_why="it hung", measure_s=1.0)
        return super().__call__(stack, config, **how)


def with_best() -> Study:
    asked = spec(search="fast,itl_ms")
    return msgspec.structs.replace(asked, candidates=(BEST, {"itl_ms": 10}))


@pytest.mark.parametrize("dies", ["best", "confirm", "ablation"])
def test_a_winner_of_all_that_dies_in_the_proof_is_none(
    dies: str, measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(bench := Phased(dies))
    document = Combined(with_best(), tmp_path / "s", unheard()).run()

    died = [one["why"] for one in document["rejected"] if one["config"] == BEST]
    assert len(died) == 1
    assert "(hung)" in died[0]
    assert document["best"]["config"] not in ({}, BEST)
    assert document["confirmation"]["verdict"] == "better"
    assert "check" in bench.phases  # the baseline has shown that the machine works
    done = len(bench.done)
    again = Combined(with_best(), tmp_path / "s", unheard()).run()
    assert again["best"]["config"] == document["best"]["config"]
    assert len(bench.done) == done


def test_a_winner_of_all_that_dies_when_it_is_asked_for_its_answers_is_none(
    measured: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = {"itl_ms": 10}

    class Dead(Bench):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            if how["folder"].name.split("-")[2] == "check" and config == winner:
                return Measurement(failure_class="hung", failure_why="it hung", measure_s=1.0)
            return super().__call__(stack, config, **how)

    def ask(_: Gate, config: Mapping[str, Any], like: Answers | None) -> Answers:
        if like is not None and config == winner:
            raise ServerError("died", "it died")
        return answers(LENGTH)

    monkeypatch.setattr(Gate, "_ask", ask)
    measured(Dead({"timed.engine": 20, "faulty.engine": 40}))
    asked = spec(search="fast,itl_ms", quality=True)
    wanted = msgspec.structs.replace(asked, candidates=(winner,))
    document = Combined(wanted, tmp_path / "s", unheard()).run()

    whys = [one["why"] for one in document["rejected"] if one["config"] == winner]
    assert whys == ["died after the confirmation (hung)"]
    assert document["best"]["config"] not in ({}, winner)
    assert document["confirmation"]["verdict"] == "better"


@pytest.mark.parametrize("dies", ["best", "confirm", "ablation"])
def test_a_winner_of_all_that_failed_once_before_a_stop_is_not_rejected(
    dies: str, measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    class Stopped(Phased):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            if dies in self.phases and self.phases[-1] == dies and config == BEST and self.failed:
                raise KeyboardInterrupt
            came = super().__call__(stack, config, **how)
            self.failed = came.failure_class is not None
            return came

        failed = False

    measured(Stopped(dies))
    with pytest.raises(KeyboardInterrupt):
        Combined(with_best(), tmp_path / "s", unheard()).run()

    stopped = store.read_json(tmp_path / "s" / "study.json")
    assert stopped["rejected"] == []
    assert stopped["outcome"]["state"] == ("confirmed" if dies == "ablation" else "unfinished")
    measured(Phased())
    document = Combined(with_best(), tmp_path / "s", unheard()).run()
    assert document["best"]["config"] == BEST
    assert document["rejected"] == []


@pytest.mark.parametrize(
    ("replaced_at", "phase", "places"),
    [(5, "trial", [1] * 4), (8, "confirm", [1] * 4), (9, "confirm", [0, 0, 1, 1])],
)
def test_an_engine_that_is_replaced_meanwhile_is_noticed(
    replaced_at: int,
    phase: str,
    places: list[int],
    measured: Callable[[Bench], None],
    tmp_path: Path,
) -> None:
    """Whoever may not go on elsewhere stops; whoever may has pairs of one place alone."""
    measured(Phased(replaced_at=replaced_at))
    with pytest.raises(DynoError, match=r"1\.0 before, 2\.0 after"):
        Combined(with_best(), tmp_path / "refused", unheard()).run()

    os.environ["FAULTY_VERSION"] = "1.0"
    measured(bench := Phased(replaced_at=replaced_at))
    document = Combined(with_best(), tmp_path / "s", unheard(), elsewhere=True).run()

    assert bench.phases[replaced_at - 1] == phase
    assert document["moves"] == ["the engine's version: 1.0 before, 2.0 after"]
    assert document["confirmation"]["verdict"] == "better"
    assert document["confirmation"]["pairs"] == 2
    runs = sorted((run["pair"], run["place"]) for run in document["confirmation"]["runs"])
    assert [place for _, place in runs] == places
    assert "another-place" in [doubt["code"] for doubt in document["doubts"]]


@pytest.mark.parametrize("stop_at", [5, 9])
def test_a_study_that_was_stopped_goes_on_as_it_would_have(
    stop_at: int, measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    speeds = {"timed.engine": 40, "faulty.engine": 20}
    measured(whole := Bench(speeds))
    expected = Combined(spec(), tmp_path / "whole", unheard()).run()

    measured(first := Bench(speeds, stop_at))
    with pytest.raises(KeyboardInterrupt):
        Combined(spec(), tmp_path / "s", unheard()).run()
    measured(rest := Bench(speeds))
    document = Combined(spec(), tmp_path / "s", unheard()).run()

    assert len(first.done) + len(rest.done) == len(whole.done)
    for key in ("trials", "combinations"):
        for one, other in zip(document[key], expected[key], strict=True):
            told = ("engine", "config", "state", "value")
            assert [one.get(name) for name in told] == [other.get(name) for name in told]
    assert document["best"]["config"] == expected["best"]["config"]
    assert document["confirmation"]["verdict"] == "better"


def test_a_stop_in_any_combinations_baseline_is_told(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    class Stopped(Bench):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            came = super().__call__(stack, config, **how)
            is_first = self.done.count(stack.engine.name) <= 3  # the third try counts
            return msgspec.structs.replace(came, stood_s=15.0) if is_first else came

    measured(Stopped({"timed.engine": 40, "faulty.engine": 20}))

    document = Combined(spec(), tmp_path / "s", unheard()).run()

    stood = [(one["phase"], one["engine"], one["run"]) for one in document["stood"]]
    places = [f"stacks/{engine}+native/runs/" for engine in ENGINES.split(",")]
    assert [(phase, engine) for phase, engine, _ in stood] == [
        ("baseline", "timed.engine"),
        ("baseline", "faulty.engine"),
    ]
    assert all(run.startswith(place) for (_, _, run), place in zip(stood, places, strict=True))
    (doubt,) = [one for one in document["doubts"] if one["code"] == "dyno-stopped"]
    assert "baseline of faulty.engine behind native (15 s)" in doubt["text"]


def test_a_baseline_that_dies_leaves_its_combination_out(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"faulty.engine": 20}))

    document = Combined(spec(), tmp_path / "s", unheard()).run()

    dead, alive = document["combinations"]
    assert dead["state"] == "failed"
    assert "it died" in dead["why"]
    assert alive["trials"] == 4
    assert document["baseline"]["engine"] == "faulty.engine"


def test_without_any_baseline_the_study_fails(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({}))

    with pytest.raises(ServerError, match="the baseline cannot be measured"):
        Combined(spec(), tmp_path / "s", unheard()).run()

    document = json.loads((tmp_path / "s" / "study.json").read_text())
    assert [one["state"] for one in document["combinations"]] == ["failed", "failed"]


def test_what_is_slower_than_the_first_baseline_does_not_win(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"timed.engine": 20, "faulty.engine": 40}))

    document = Combined(spec(search="mode"), tmp_path / "s", unheard()).run()

    assert document["best"]["engine"] == "timed.engine"
    slower = document["combinations"][1]
    assert slower["trials"] == 0  # it has no knob of that name: its baseline only


def test_another_engine_that_is_equal_leaves_the_first_one(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    class Lucky(Bench):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            proves = "-confirm-" in Path(how["folder"]).name
            self.gap_ms = dict.fromkeys(("timed.engine", "faulty.engine"), 40)
            if not proves and stack.engine.name == "faulty.engine":
                self.gap_ms["faulty.engine"] = 20
            return super().__call__(stack, {} if proves else config, **how)

    measured(bench := Lucky({}))

    document = Combined(spec(search="itl_ms"), tmp_path / "s", unheard()).run()

    assert document["confirmation"]["shown_equal"] is True
    assert document["confirmation"]["engine"] == "faulty.engine"
    assert document["best"] == document["baseline"]
    assert document["engine"] == "timed.engine"
    states = {one["engine"]: one["state"] for one in document["combinations"]}
    assert states == {"timed.engine": "best", "faulty.engine": "measured"}
    said = document["outcome"]["said"]
    assert "none is shown to beat the baseline of timed.engine behind native. Shown equal" in said
    assert "compared was itl_ms=" in said
    assert "of faulty.engine behind native" in said
    bench.done.clear()
    Combined(spec(), tmp_path / "s", unheard()).run()
    assert bench.done == []


@pytest.mark.parametrize("next_meets", [True, False])
def test_a_winner_of_all_that_misses_what_it_had_met_is_kept_until_none_meets_it(
    measured: Callable[[Bench], None], tmp_path: Path, *, next_meets: bool
) -> None:
    """The first baseline misses it, too; the lucky one is four times as fast, the next twice."""
    lucky = {"itl_ms": 5}

    class Lucky(Bench):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            folder, engine = Path(how["folder"]), stack.engine.name
            self.done.append(engine)
            proves = "-confirm-" in folder.name
            if engine == "timed.engine":
                gap_ms, first_ms = 40.0, 300.0
            elif config == lucky:
                gap_ms, first_ms = 10.0, 300.0 if proves else 30.0
            else:
                gap_ms, first_ms = 20.0, 300.0 if proves and not next_meets else 40.0
            lab.write_run(folder, gap_ms=gap_ms, first_ms=first_ms, slos=how["slos"])
            summary = store.read_json(folder / store.SUMMARY)
            return Measurement(summary=summary, measure_s=1.0, folder=str(folder))

    measured(bench := Lucky({}))
    asked = spec(search="itl_ms", slo="ttft:p99<100ms", trials=2)
    asked = msgspec.structs.replace(asked, candidates=(lucky,))

    document = Combined(asked, tmp_path / "s", unheard()).run()

    assert document["rejected"] == []
    assert document["best"]["engine"] == "faulty.engine"
    assert document["best"]["config"] == ({} if next_meets else lucky)
    assert document["confirmation"]["verdict"] == "better"
    bench.done.clear()
    assert Combined(asked, tmp_path / "s", unheard()).run()["best"] == document["best"]
    assert bench.done == []


@pytest.mark.parametrize(
    "budget", [{"budget": "10s"}, {"budget": "$10", "price": "3600/h"}], ids=["time", "money"]
)
def test_all_combinations_share_one_budget(
    budget: dict[str, str], measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"timed.engine": 40, "faulty.engine": 20}))
    asked = spec(**budget, trials=40)

    document = Combined(asked, tmp_path / "s", unheard()).run()

    tried = [one["trials"] for one in document["combinations"]]
    # A second each, after two for the baselines. A third is kept for the proof, which would take
    # more. Of 4.7 s the first has a quarter, its first trial anyhow, and so has the second, which
    # goes on with the rest: until 6.7 s.
    assert tried == [1, 3]
    assert document["outcome"]["ended_by"] == "budget"
    hours = spec(budget=f"{10 / 3600:.12f}mh").limit_s
    assert (asked.limit_s, hours) == pytest.approx((10.0, 10.0))


def test_a_larger_budget_goes_on_with_the_pairs_that_the_smaller_one_ended(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    bench = Bench({"timed.engine": 40, "faulty.engine": 20})
    measured(bench)

    def pairs_of(budget: str) -> tuple[Any, ...]:
        asked = spec(budget=budget, trials=2, pairs=5)
        found = Combined(asked, tmp_path / "s", unheard()).run()["confirmation"]
        return found["pairs"], found["pairs_ended_by"], found["verdict"]

    assert pairs_of("10s") == (2, "budget", "better")
    done = len(bench.done)
    assert pairs_of("10s") == (2, "budget", "better")
    assert len(bench.done) == done
    assert pairs_of("9h") == (5, None, "better")
    done = len(bench.done)
    assert pairs_of("9h") == (5, None, "better")
    assert len(bench.done) == done


def test_a_person_ends_the_trials_of_all_combinations(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    bench = Bench({"timed.engine": 40, "faulty.engine": 20})
    measured(bench)
    folder = tmp_path / "s"

    def narrator(trials: int) -> Narrator:
        return msgspec.structs.replace(unheard(), enough=lambda: _tried(folder) >= trials)

    document = Combined(spec(trials=8), folder, narrator(3)).run()

    assert sum(one["trials"] for one in document["combinations"]) == 3
    assert document["outcome"]["ended_by"] == "hand"
    assert document["confirmation"]["verdict"] == "better"
    done = len(bench.done)
    assert Combined(spec(trials=8), folder, unheard()).run()["outcome"] == document["outcome"]
    assert len(bench.done) == done  # --resume begins no trial

    more = Combined(spec(trials=9), folder, unheard()).run()
    assert sum(one["trials"] for one in more["combinations"]) == 9


def _tried(folder: Path) -> int:
    return sum(len(Ledger(place.parent).of("trial")) for place in folder.glob("stacks/*/ledger.*"))


def test_a_stopped_study_may_have_more_trials(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    measured(Bench({"timed.engine": 40, "faulty.engine": 20}))
    Combined(spec(), tmp_path / "s", unheard()).run()

    document = Combined(spec(trials=6), tmp_path / "s", unheard()).run()

    assert sum(one["trials"] for one in document["combinations"]) == 6
    assert Ledger(tmp_path / "s").spec.trials == 6


def test_a_study_that_no_combination_can_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no combination can work here: .*vllm.*not installed"):
        Combined(spec(engine="vllm,sglang"), tmp_path / "s", unheard())

    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("gone", ["timed.engine", ""])  # of one combination, of all
def test_combinations_whose_baselines_are_gone_measure_them_again(
    measured: Callable[[Bench], None], tmp_path: Path, gone: str
) -> None:
    speeds = {"timed.engine": 40, "faulty.engine": 20}
    measured(Bench(speeds))
    Combined(spec(), tmp_path / "s", unheard()).run()
    for part in (tmp_path / "s" / "stacks").iterdir():
        if part.name.startswith(gone):
            for step in Ledger(part).of("baseline"):
                shutil.rmtree(part / step.run)
    measured(again := Bench(speeds))

    document = Combined(spec(), tmp_path / "s", unheard()).run()

    assert document["baseline"]["engine"] == "timed.engine"
    assert document["confirmation"]["verdict"] == "better"
    assert len(again.done) == (1 if gone else 2)


def test_trials_that_failed_with_the_machine_are_measured_again(
    measured: Callable[[Bench], None], tmp_path: Path
) -> None:
    """The machine fails in two trials of the first engine and in the check after them."""

    class Mending(Bench):
        def __call__(self, stack: Stack, config: Mapping[str, Any], **how: Any) -> Measurement:
            if len(self.done) not in {2, 3, 4}:
                return super().__call__(stack, config, **how)
            self.done.append("failed")
            return Measurement(failure_class="missing-library", failure_why="away", measure_s=1.0)

    measured(bench := Mending({"timed.engine": 40, "faulty.engine": 20}))
    asked = spec(trials=8)

    document = Combined(asked, tmp_path / "s", unheard()).run()

    assert bench.done.count("failed") == 3
    assert [trial["state"] for trial in document["trials"]] == ["measured"] * 8
    (first, *_) = [Ledger(one) for one in sorted((tmp_path / "s/stacks").glob("*timed*"))]
    assert [step.number for step in first.voided] == [0, 1]
    assert document["confirmation"]["verdict"] == "better"
