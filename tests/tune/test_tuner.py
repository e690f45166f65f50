"""Studies over an engine of known speed, so that there is a right answer."""

import json
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lab
from conftest import DYNO, last_json
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.errors import InterruptError, UsageError
from llmdyno.knobs import Value
from llmdyno.results.verdicts import confirmed
from llmdyno.spec import Load
from llmdyno.tune.folder import open_study
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.search import Search
from llmdyno.tune.tuner import Tuner
from studies import (
    MARK,
    STUDY,
    environment,
    run,
    servers_left,
    unheard,
    wait_for_lines,
    wait_for_measurement,
)
from study_lab import StudyLab


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole study with failing trials, run once."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text('hang = "1500ms"\ntrials = 8\nseed = 33\n')
    done = run(folder, *STUDY, "study.toml", "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "s", last_json(done.stdout)


def test_the_right_answer_is_found_and_confirmed(study: tuple[Path, dict[str, Any]]) -> None:
    _, document = study
    confirmation = document["confirmation"]
    best_itl_ms = document["best"]["config"]["itl_ms"]
    # 10 tokens take 30 + 9 x ITL ms and a pause of 10 ms: the truth of the ratio.
    truth = (40 + 9 * 40) / (40 + 9 * best_itl_ms)
    ratio = confirmation["ratio"]["token_rate"]
    low, high = ratio["ci95"]

    # Runs of 2 s share the machine with other tests: one in which it stood still for half a second
    # hides the difference of two pairs, and that is the right verdict then.
    assert best_itl_ms < 25
    assert confirmation["verdict"] == ("better" if low > 1 else "no difference")
    assert confirmation["pairs"] == 2
    assert 1 + (truth - 1) / 4 < ratio["mean"] < 1 + (truth - 1) * 4
    assert low <= ratio["mean"] <= high
    assert confirmation["ratio"]["ttft_ms_p50"].keys() >= {"mean", "ci95"}
    arms = [run["arm"] for run in confirmation["runs"]]
    assert arms == ["before", "after", "after", "before"]
    assert [level["users"] for level in document["best"]["summary"]["levels"]] == [2, 6]


def test_trials_are_compared_with_a_baseline_measured_as_they_are(
    study: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = study
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["type"] == "step"]
    baseline, reference, trial = steps[:3]

    assert [step["phase"] for step in (baseline, reference, trial)] == [
        *("baseline", "reference", "trial"),
    ]
    assert reference["config"] == baseline["config"]
    loads = {
        step["phase"]: json.loads((folder / step["run"] / "summary.json").read_text())["spec"][
            "load"
        ]
        for step in steps
        if step["state"] == "measured" and step["phase"] in {"baseline", "reference", "trial"}
    }
    assert loads["reference"] == loads["trial"] != loads["baseline"]


def test_failures_are_recorded_with_their_class(study: tuple[Path, dict[str, Any]]) -> None:
    _, document = study
    failures = {
        trial["config"].get("mode", "good"): trial["failure"]["class"]
        for trial in document["trials"]
        if trial["failure"] and trial["state"] == "failed"
    }

    assert failures.items() <= {"refuses": "bad-config", "dies": "died", "hangs": "hung"}.items()
    assert len(failures) >= 2
    assert all(trial["value"] for trial in document["trials"] if trial["state"] == "measured")
    assert sum(trial["state"] != "predicted-infeasible" for trial in document["trials"]) == 8


def test_the_document_and_the_page_are_on_disk(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study
    stored = json.loads((folder / "study.json").read_text())

    assert stored == document
    assert stored["schema"] == "llmdyno.study/1"
    assert (folder / "report.html").stat().st_size > 10_000
    best = document["best"]["config"]
    assert f"--itl {best['itl_ms']}ms" in (folder / "bundle" / "serve.sh").read_text()
    assert document["confirmation"]["verdict"] in (folder / "bundle" / "README.md").read_text()
    assert {row["knob"] for row in stored["ablation"]} <= {"itl_ms", "mode", "idle"}


def test_the_document_can_be_made_again(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study

    done = run(folder.parent, "report", "s", "--json")

    assert done.returncode == 0, done.stderr
    again = last_json(done.stdout)
    assert again["confirmation"] == document["confirmation"]
    assert again["trials"] == document["trials"]


def test_the_winner_is_deployed_with_its_figures(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study

    done = run(folder.parent, "deploy", "--study", "s", "--out", "deployed")

    assert done.returncode == 0, done.stderr
    page = (folder.parent / "deployed" / "README.md").read_text()
    ratio = document["confirmation"]["ratio"]["token_rate"]["mean"]
    assert f"{ratio:.3g} times the token rate" in page
    assert (folder.parent / "deployed" / "serve.sh").read_text() == (
        folder / "bundle" / "serve.sh"
    ).read_text()


class Listened(Search):
    """A search that writes down what it proposes and what it is given."""

    def __init__(
        self, heard: list[tuple[str, dict[str, Value] | None]], *arguments: Any, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._heard = heard

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        config = super().ask(known)
        self._heard.append(("ask", config))
        return config

    def give(self, config: Mapping[str, Value]) -> None:
        self._heard.append(("give", dict(config)))
        super().give(config)


def test_a_search_that_goes_on_is_where_it_was(
    study: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    shutil.copytree(study[0], folder)
    monkeypatch.setenv(MARK, str(tmp_path))

    def go_on() -> tuple[list[tuple[str, dict[str, Value] | None]], list[dict[str, Value]]]:
        """Return what the search heard, and the configs of all trials."""
        heard: list[tuple[str, dict[str, Value] | None]] = []
        Tuner(open_study(folder), folder, unheard(), make_search=partial(Listened, heard)).run()
        return heard, [step.config for step in Ledger(folder).of("trial")]

    heard, tried = go_on()
    assert heard == [("ask", config) for config in tried]

    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    third = [line for line in lines if line.get("phase") == "trial"][2]
    third["config"]["itl_ms"] = 55  # as if another version of the search had asked for it
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"type":"st')
    heard, tried = go_on()
    assert heard[:2] == [("ask", config) for config in tried[:2]]
    assert heard[2][0] == "ask"
    assert heard[3] == ("give", third["config"])
    assert len(tried) == 8


CANDIDATES = """
engine_args = ["--of-mine='1'"]
search = "itl_ms"
trials = 3

[baseline]
mode = "good"

[[candidates]]
itl_ms = 20

[[candidates]]
itl_ms = 14
idle = true
"""


def test_a_stopped_study_goes_on_where_it_was_and_tries_its_candidates_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "study.toml").write_text(CANDIDATES)
    command = [*DYNO, *STUDY, "study.toml", "--out", "s"]
    stops = [(signal.SIGINT, 130), (signal.SIGKILL, -9)]
    for number, (stop, status) in enumerate(stops):
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment(), MARK: str(tmp_path)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                wait_for_lines(tmp_path / "s" / "ledger.jsonl", 3 + 2 * number)
                wait_for_measurement(tmp_path / "s")
                second = run(tmp_path, "tune", "--resume", "s")
                assert second.returncode == 2, second.stderr
                assert second.stderr.strip() == (
                    "dyno: s: another dyno is at work there; wait for it, or stop it."
                )
                process.send_signal(stop)
                _, errors = process.communicate(timeout=90)
            finally:
                process.kill()  # or it would fail whatever test comes next
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        command = [*DYNO, "tune", "--resume", "s", "--json"]
    before = (tmp_path / "s" / "ledger.jsonl").read_text()

    other = run(tmp_path, "tune", "--resume", "s", "--engine-arg=--another")
    done = run(tmp_path, "tune", "--resume", "s", "--json", "--engine-arg=--of-mine='1'")

    assert other.returncode == 2
    assert "--engine-arg --another: the study s began with --of-mine='1', and" in other.stderr
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "ledger.jsonl").read_text().startswith(before)
    assert not servers_left(tmp_path)
    document = last_json(done.stdout)
    assert [trial["id"] for trial in document["trials"]] == [1, 2, 3]
    assert document["confirmation"]["ratio"]["token_rate"]["mean"] > 1.2  # the truth is 1.8 or more
    assert document["engine_args"] == document["spec"]["engine_args"] == ["--of-mine='1'"]
    assert shlex.quote("--of-mine='1'") in (tmp_path / "s" / "bundle" / "serve.sh").read_text()
    assert "engine arguments" in (tmp_path / "s" / "report.html").read_text()
    first, then, third = (trial["config"] for trial in document["trials"])
    assert first == {"mode": "good", "itl_ms": 20}
    assert then == {"mode": "good", "itl_ms": 14, "idle": True}
    assert third.keys() <= {"mode", "itl_ms"}  # what is not searched holds: idle is off again
    assert third not in (first, then)
    assert document["spec"]["candidates"] == [{"itl_ms": 20}, {"itl_ms": 14, "idle": True}]
    assert document["best"]["config"]["itl_ms"] <= 20
    assert "3 trials at 6 users, the first 2 of them given." in done.stderr


def test_a_baseline_that_cannot_be_served_ends_the_study(tmp_path: Path) -> None:
    done = run(tmp_path, *STUDY, "--set", "mode=refuses", "--out", "s")

    assert done.returncode == 3
    assert "the baseline cannot be measured (bad-config)" in done.stderr
    assert json.loads((tmp_path / "s" / "study.json").read_text())["baseline"] is None


def test_a_tuner_is_made_without_writing(results: Path) -> None:
    with (results / lab.STUDY / store.LEDGER).open("ab") as file:
        file.write(b'{"type":"st')
    before = lab.snapshot(results.parent)

    Tuner(lab.spec(), results / lab.STUDY, unheard())
    Tuner(lab.spec(), results.parent / "new" / "s", unheard())

    assert lab.snapshot(results.parent) == before


def test_a_trace_is_replayed_for_as_long_as_a_trial_takes(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"due_s": float(n), "input_tokens": 9, "output_tokens": 4} for n in range(100)]
    (results / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"engine": lab.ENGINE, "model": "m", "duration": "40s", "trial_duration": "9.5s"}
    asked = flags.study_spec({**given, "dataset": str(results / "t.jsonl"), "workload": "trace"})
    measured: list[Load] = []
    level: dict[str, Any] = {"users": None, "arrival": "trace"}
    level |= {"token_rate": {"mean": 5.0}, "ttft_ms": {"p50": 1.0}}

    def measure(*_: Any, load: Load, folder: Path, **__: Any) -> Measurement:
        measured.append(load)
        store.make_folder(folder)
        store.write_json(folder / store.SUMMARY, {"levels": [level], "slo": []})
        if len(measured) == 3:
            raise InterruptError("enough seen")
        return Measurement(summary={"levels": [level], "slo": [{"level": None, "met": False}]})

    monkeypatch.setattr("llmdyno.tune.runner.measure", measure)
    with pytest.raises(InterruptError):
        Tuner(asked, results / "new", unheard()).run()

    assert [load.arrival for load in measured] == ["trace"] * 3
    assert [load.requests for load in measured] == [41, 10, 10]  # baseline, reference, trial
    assert [step.slo_met for step in Ledger(results / "new").steps] == [False, False]
    document = store.read_json(results / "new" / store.STUDY)
    assert document["confirmation"]["level"] is None
    assert confirmed(document).level == asked.compared_at == "trace arrivals"


def test_a_trace_has_its_own_load() -> None:
    with pytest.raises(UsageError, match=r"-c 5: a trace has its own load"):
        flags.study_spec({"dataset": "t.jsonl", "workload": "trace", "users": "5"})


def test_a_tuner_takes_its_folder_when_it_runs(results: Path) -> None:
    folder = results / lab.STUDY
    tuner = Tuner(lab.spec(), folder, unheard())

    with store.hold(folder), pytest.raises(UsageError, match="another dyno is at work there"):
        Tuner(lab.spec(), folder, unheard()).run()
    assert not (folder / store.STUDY).exists()

    document = tuner.run()  # all of it is in the ledger
    assert document["confirmation"]["verdict"] == "better"


def test_a_tuner_goes_on_from_what_was_found_since_it_was_made(
    results: Path,
) -> None:
    folder = results / lab.STUDY
    lines = (folder / store.LEDGER).read_bytes()
    (folder / store.LEDGER).unlink()
    tuner = Tuner(lab.spec(), folder, unheard())
    (folder / store.LEDGER).write_bytes(lines)  # another dyno has run the study, and ended

    tuner.run()

    assert (folder / store.LEDGER).read_bytes() == lines


def test_a_load_that_needs_more_open_files_than_there_may_be_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    study = StudyLab(tmp_path / "s", monkeypatch).study(users="2,60")

    with pytest.raises(UsageError, match=r"60 connections .* need 124 open files"):
        Tuner(study, tmp_path / "s", unheard())
