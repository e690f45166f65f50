"""A study over engines and fronts, its measurements made without a server."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lab
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.cli.rebuild import rebuild
from llmdyno.errors import ServerError, UsageError
from llmdyno.serve.stack import Stack
from llmdyno.tune import runner
from llmdyno.tune.combined import Combined
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.runner import Narrator
from llmdyno.tune.spec import Study
from studies import unheard

ENGINES = "timed.engine,faulty.engine"
Measure = Callable[..., Measurement]


def spec(**given: Any) -> Study:
    asked = {"engine": ENGINES, "model": "m", "users": "2", "pairs": 2, "trials": 4}
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
    # A second each, after two for the baselines: until 4 s, until 6 s, and the rest for the best.
    assert tried == [3, 6]
    assert document["outcome"]["ended_by"] == "budget"
    hours = spec(budget=f"{10 / 3600:.12f}mh").limit_s
    assert (asked.limit_s, hours) == pytest.approx((10.0, 10.0))


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
