"""A trial that cannot win any more is ended early, and the study goes on with what it has shown."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.bench import run
from llmdyno.cli.flags import study_spec
from llmdyno.load.progress import Progress
from llmdyno.records.entries import Record
from llmdyno.results.conclusions import NOTHING_BETTER
from llmdyno.serve.stack import load_stack
from llmdyno.spec import Load, Workload
from llmdyno.tune.entries import Began, Step
from llmdyno.tune.goals import Goal, goal
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import measure
from llmdyno.tune.race import Lost, Race, race
from llmdyno.tune.steps import error_of
from llmdyno.units import Lengths
from llmdyno.wire.exchange import Meter
from study_lab import StudyLab, fast

LOAD = Load(users=(4,), duration_s=30.0, ramp_s=0.0)
STEP_S = 0.5


def ledger(folder: Path, steps: Iterable[Step], **given: Any) -> Ledger:
    folder.mkdir(exist_ok=True)
    found = Ledger(folder)
    found.append(Began(study="s", spec=study_spec(given), environment={}))
    for step in steps:
        found.append(step)
    return found


def step(number: int, value: float | None, **more: Any) -> Step:
    phase = "reference" if number == 0 else "trial"
    fields = {"phase": phase, "number": max(0, number - 1), "config": {"a": number}}
    return msgspec.convert(
        {"type": "step", "state": "measured", "value": value, **fields, **more}, Step
    )


def answer(ttft_ms: float) -> Record:
    first_ns = round(ttft_ms * 1e6)
    times: dict[str, Any] = {"due_ns": 0, "sent_ns": 0, "end_ns": first_ns + 1_000_000}
    gaps_ns = (first_ns, 1_000_000)
    return Record(
        level=0, request=0, user=0, prompt=0, outcome="completed", gaps_ns=gaps_ns, **times
    )


def raced(folder: Path, steps: Iterable[Step], load: Load = LOAD, **given: Any) -> Race | None:
    return race(study_spec(given), ledger(folder, steps, **given), folder, load)


def watch(
    one: Race, *, tokens_s: float, requests_s: float = 40.0, reads: int = 1, ttft_ms: float = 30.0
) -> float | None:
    """Let a race watch a steady run; return when it is lost."""
    progress, meter = Progress(users=4, in_flight=4), Meter()
    for number in range(1, 61):
        at_s = number * STEP_S
        for _ in range(round(requests_s * STEP_S)):
            progress.add(answer(ttft_ms))
        progress.elapsed_s = at_s
        progress.tokens = round(tokens_s * at_s)
        progress.reads = round(tokens_s * at_s / reads)
        meter.reads = progress.reads
        one.take(at_s, progress, meter)
        if one.lost is not None:
            return at_s
    return None


def test_half_the_rate_of_the_best_is_lost_and_the_same_is_not(tmp_path: Path) -> None:
    def beside_the_best(name: str) -> Race:
        found = raced(tmp_path / name, [step(0, 900.0), step(1, 1000.0)])
        assert found is not None
        return found

    slow = beside_the_best("slow")
    lost_s = watch(slow, tokens_s=500.0)

    assert lost_s is not None
    assert lost_s < 15
    assert slow.lost is not None
    assert f"ended after {lost_s:.0f} s: token rate 5" in slow.lost.why
    assert slow.lost.why.endswith("tok/s at most, the best so far 1,000")
    assert slow.lost.interval is not None
    assert slow.lost.interval[0] < 500 < slow.lost.interval[1] < 1000
    assert watch(beside_the_best("same"), tokens_s=1000.0) is None
    assert watch(beside_the_best("near"), tokens_s=900.0) is None  # equal runs may lie so far apart


def test_tokens_of_requests_under_way_count_as_the_finished_ones_do(tmp_path: Path) -> None:
    """A server that sends several tokens a read looks slow to those who count reads."""
    one = raced(tmp_path, [step(0, 1000.0)])
    assert one is not None

    assert watch(one, tokens_s=1000.0, reads=4) is None


def test_a_missed_slo_ends_a_trial_if_another_config_meets_it(tmp_path: Path) -> None:
    slos: dict[str, Any] = {"slo": "ttft:p99<100ms"}
    folders = [tmp_path / name for name in "abc"]
    met = raced(folders[0], [step(0, 1000.0, slo_met=True)], **slos)
    nobody_meets = raced(folders[1], [step(0, 1000.0, slo_met=False)], **slos)
    near = raced(folders[2], [step(0, 1000.0, slo_met=True)], **slos)
    assert met is not None
    assert near is not None

    assert watch(met, tokens_s=2000.0, ttft_ms=200.0) is not None
    assert met.lost is not None
    assert "of requests at least, so ttft:p99<100ms is missed" in met.lost.why
    assert watch(near, tokens_s=2000.0, ttft_ms=105.0) is None  # another start might meet it
    assert nobody_meets is None  # it may be the nearest


@pytest.mark.parametrize(
    ("asked", "value", "loses"),
    [
        ("request_rate", 80.0, {"requests_s": 30.0}),
        ("goodput", 80.0, {"requests_s": 30.0}),
        ("cost_per_million_output", 1.0, {"tokens_s": 300.0}),  # 1000 tok/s cost 1 at 3.60/h
        ("ttft:p50", 30.0, {"ttft_ms": 90.0}),
        ("e2e:mean", 31.0, {"ttft_ms": 90.0}),
    ],
)
def test_other_objectives_race_by_what_bounds_them(
    asked: str, value: float, loses: dict[str, float], tmp_path: Path
) -> None:
    same: dict[str, Any] = {"tokens_s": 1000.0, "requests_s": 80.0, "ttft_ms": 30.0}
    for name, run_, is_lost in (("same", same, False), ("worse", {**same, **loses}, True)):
        more: dict[str, Any] = {"slo": "ttft:p99<10s"} if asked == "goodput" else {}
        one = raced(tmp_path / name, [step(0, value)], objective=asked, price="3.60/h", **more)
        assert one is not None

        assert (watch(one, **run_) is not None) == is_lost


@pytest.mark.parametrize(
    ("metric", "stat"),
    [("ttft_ms", "max"), ("itl_ms", "p50"), ("joules_per_token", "mean")],
)
def test_what_has_no_bound_is_no_goal(metric: str, stat: str) -> None:
    none: Goal | None = goal(metric, stat, 1.0, "", LOAD, None)

    assert none is None


def test_what_cannot_be_judged_early_is_not_raced(tmp_path: Path) -> None:
    steps = [step(0, 1000.0)]
    one = ledger(tmp_path, steps)
    study = study_spec({})

    assert race(study, one, tmp_path, LOAD) is not None
    assert race(study_spec({"race": False}), one, tmp_path, LOAD) is None
    assert race(study_spec({"objective": "ttft:p99"}), one, tmp_path, LOAD) is None
    by_count = msgspec.structs.replace(LOAD, requests=100)
    assert race(study, one, tmp_path, by_count) is None
    assert raced(tmp_path / "new", []) is None


def test_a_trial_in_a_lane_races_what_ran_in_lanes_alone(tmp_path: Path) -> None:
    alone, beside = step(1, 4000.0), step(2, 1000.0, device="GPU 1", beside=1)
    in_lanes = raced(tmp_path / "a", [step(0, 900.0, device="GPU 0"), alone, beside], parallel=2)
    nothing = raced(tmp_path / "b", [alone], parallel=2)

    assert in_lanes is not None
    assert watch(in_lanes, tokens_s=950) is None
    assert nothing is None


def test_a_pruned_trial_is_in_the_ledger_and_no_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Lost(why="ended after 3 s: token rate 9 tok/s at most", interval=(40.0, 60.0))
    study = StudyLab(tmp_path / "s", monkeypatch)
    whole = study._measure

    def measured(*given: Any, **named: Any) -> Any:
        done = whole(*given, **named)
        return msgspec.structs.replace(done, lost=lost if named["race"] is not None else None)

    monkeypatch.setattr("llmdyno.tune.runner.measure", measured)
    document = study.run(fast, study.study(search="fast"))
    (trial,) = document["trials"]
    (pruned,) = [one for one in study.steps if one.phase == "trial"]

    assert pruned.state == trial["state"] == "pruned"
    assert trial["pruned"] == {"why": lost.why, "interval": [40.0, 60.0]}
    assert trial["value"] > 0
    assert any(lost.why in line for line in study.told)
    assert not [one for one in study.steps if one.phase == "best"]  # it would have won
    assert document["outcome"]["said"].startswith(NOTHING_BETTER)
    better = msgspec.structs.replace(pruned, value=50.0)
    assert error_of(better, maximise=True) == pytest.approx(math.log(60 / 50) / 4)
    assert error_of(better, maximise=False) == pytest.approx(math.log(50 / 40) / 4)
    assert error_of(msgspec.structs.replace(better, interval=None), maximise=True) == 0.15
    study.run(fast, study.study(search="fast"))
    assert study.starts == []  # it is not measured again


def test_a_race_is_lost_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_WATCH_S", 0.05)
    monkeypatch.setattr("llmdyno.tune.race.looks_s", lambda *_: [1.0, 1.5, 2.0, 3.0, 4.0])
    load = Load(users=(1,), duration_s=30.0, ramp_s=0.0)
    one = raced(tmp_path, [step(0, 5000.0)], load)
    done = measure(
        load_stack("timed.engine", "native", "m"),
        {"itl_ms": 2},
        workload=Workload(osl=Lengths("fixed", 4, 4)),
        load=load,
        slos=(),
        hang_s=5.0,
        warmup_s=0.0,
        folder=tmp_path / "run",
        calibration=False,
        race=one,
        report_progress=lambda _progress, _meter: None,
        notify=lambda _line: None,
    )

    assert done.failure_class is None
    assert done.summary is not None
    assert done.lost is not None
    assert done.measure_s < 20.0
    assert done.summary["levels"][0]["token_rate"]["mean"] < 200
