"""Studies over an engine of known speed, so that there is a right answer."""

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from conftest import DYNO, last_json
from llmdyno import plugins
from llmdyno.knobs import Value
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load, Workload
from llmdyno.tune import tuner as tune
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import measure
from llmdyno.tune.search import Search
from llmdyno.units import Lengths

MARK = "STUDY_OF_A_TEST"
TESTS = str(Path(__file__).parent.parent)
STUDY = (
    *("tune", "--engine", "timed.engine", "--model", "m", "-c", "2,6", "--ramp", "200ms"),
    *("--duration", "3s", "--trial-duration", "2500ms", "--interval", "1s", "--osl", "16"),
    *("--pairs", "2", "--warmup", "300ms"),
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DYNO, *arguments],
        cwd=folder,
        env={**environment(), MARK: str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": TESTS}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole study with failing trials, run once."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text('hang = "1500ms"\ntrials = 8\nseed = 3\n')
    done = run(folder, *STUDY, "study.toml", "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "s", last_json(done.stdout)


def test_the_right_answer_is_found_and_confirmed(study: tuple[Path, dict[str, Any]]) -> None:
    _, document = study
    confirmation = document["confirmation"]
    best_itl_ms = document["best"]["config"]["itl_ms"]
    # 16 tokens take 30 + 15 x ITL ms and a pause of 10 ms: the truth of the ratio.
    truth = (40 + 15 * 40) / (40 + 15 * best_itl_ms)

    assert best_itl_ms < 25
    assert confirmation["verdict"] == "better"
    assert confirmation["pairs"] == 2
    assert confirmation["ratio"]["token_rate"]["mean"] == pytest.approx(truth, rel=0.12)
    low, high = confirmation["ratio"]["token_rate"]["ci95"]
    assert 1 < low <= confirmation["ratio"]["token_rate"]["mean"] <= high
    assert 0.8 < confirmation["ratio"]["ttft_ms_p50"]["mean"] < 1.25
    arms = [run["arm"] for run in confirmation["runs"]]
    assert arms == ["before", "after", "after", "before"]
    assert [level["users"] for level in document["best"]["summary"]["levels"]] == [2, 6]


def test_trials_are_compared_with_a_baseline_measured_as_they_are(
    study: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = study
    steps = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()][1:]
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
    assert f"{ratio:g} times the token rate" in page
    assert (folder.parent / "deployed" / "serve.sh").read_text() == (
        folder / "bundle" / "serve.sh"
    ).read_text()


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [*DYNO, *STUDY, "--trials", "3", "--out", "s"]
    (tmp_path / "quick.toml").write_text('hang = "1500ms"\n')
    stops = [(signal.SIGINT, 130), (signal.SIGKILL, -9)]
    for number, (stop, status) in enumerate(stops):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment(), MARK: str(tmp_path)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        wait_for_lines(tmp_path / "s" / "ledger.jsonl", 3 + 2 * number)
        time.sleep(0.7)
        second = run(tmp_path, "tune", "--resume", "s")
        assert second.returncode == 2, second.stderr
        assert second.stderr.strip() == (
            "dyno: s: another dyno is at work there; wait for it, or stop it."
        )
        process.send_signal(stop)
        _, errors = process.communicate(timeout=90)
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        command = [*DYNO, "tune", "--resume", "s", "--json"]
    before = (tmp_path / "s" / "ledger.jsonl").read_text()

    done = run(tmp_path, "tune", "--resume", "s", "--json")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "ledger.jsonl").read_text().startswith(before)
    document = last_json(done.stdout)
    assert [trial["id"] for trial in document["trials"]] == list(
        range(1, len(document["trials"]) + 1)
    )
    assert document["confirmation"]["verdict"] in {"better", "no difference"}
    assert not servers_left(tmp_path)


class Listened(Search):
    """A search that keeps what it asks for and what it is given."""

    heard: ClassVar[list[tuple[str, dict[str, Value] | None]]] = []

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        config = super().ask(known)
        self.heard.append(("ask", config))
        return config

    def give(self, config: Mapping[str, Value]) -> None:
        self.heard.append(("give", dict(config)))
        super().give(config)


def test_a_search_that_goes_on_is_where_it_was(
    study: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    shutil.copytree(study[0], folder)
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setattr(tune, "Search", Listened)
    monkeypatch.setattr(Listened, "heard", [])

    def go_on() -> list[dict[str, Value]]:
        Listened.heard.clear()
        silent = tune.Narrator(
            says=lambda _: None, waits=lambda _: None, shows=lambda *_: lambda *_: None
        )
        tuner = tune.Tuner(tune.open_study(folder), folder, silent)
        tuner.run()
        return [step.config for step in Ledger(folder).of("trial")]

    asked = go_on()
    assert Listened.heard == [("ask", config) for config in asked]

    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    third = [line for line in lines if line.get("phase") == "trial"][2]
    third["config"]["itl_ms"] = 55  # as if another version of the search had asked for it
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"type":"st')
    tried = go_on()
    assert Listened.heard[:2] == [("ask", config) for config in tried[:2]]
    assert Listened.heard[2][0] == "ask"
    assert Listened.heard[3] == ("give", third["config"])
    assert len(tried) == 8


CANDIDATES = """
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


def test_candidates_are_the_first_trials_and_survive_a_stop(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CANDIDATES)
    process = subprocess.Popen(
        [*DYNO, *STUDY, "study.toml", "--out", "s"],
        cwd=tmp_path,
        env={**environment(), MARK: str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    wait_for_lines(tmp_path / "s" / "ledger.jsonl", 3)  # the study, baseline, first candidate
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)

    done = run(tmp_path, "tune", "--resume", "s", "--json")

    assert done.returncode == 0, done.stderr
    document = last_json(done.stdout)
    first, second, third = (trial["config"] for trial in document["trials"])
    assert first == {"mode": "good", "itl_ms": 20}
    assert second == {"mode": "good", "itl_ms": 14, "idle": True}
    assert third.keys() <= {"mode", "itl_ms"}  # what is not searched holds: idle is off again
    assert third not in (first, second)
    assert document["spec"]["candidates"] == [{"itl_ms": 20}, {"itl_ms": 14, "idle": True}]
    assert document["best"]["config"]["itl_ms"] <= 14
    assert "3 trials at 6 users, the first 2 of them given." in done.stderr


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

    done = run(tmp_path, *STUDY, "study.toml", "--out", "s")

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s").exists()


def wait_for_lines(path: Path, count: int) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def servers_left(folder: Path) -> list[str]:
    """Return the commands of what a study in that folder has started and left running."""
    time.sleep(1.5)
    mark = f"{MARK}={folder}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


WRONG = {
    "engine": (["--engine", "openvinoo"], "Did you mean 'openvino'?"),
    "front": (["--front", "nativ"], "Did you mean 'native'?"),
    "model": (["--model", "huge"], "huge"),
    "objective": (["--objective", "speed"], "--objective speed: no metric"),
    "trials": (["--trials", "0"], "--trials 0: must be at least 1"),
    "pairs": (["--pairs", "1"], "--pairs 1: must be at least 2"),
    "seed": (["--seed", "-1"], "--seed -1: must be at least 0"),
    "large seed": (["--seed", "4294967296"], "--seed 4294967296: must be below 4294967296"),
    "dataset": (["--workload", "file", "--dataset", "nowhere.jsonl"], "cannot be read: No such"),
    "search": (["--search", "cache_size,cache_size"], "--search cache_size: named twice"),
    "knob": (["--set", "max_num_sqs=4"], "Did you mean 'max_num_seqs'?"),
    "value": (["--set", "max_num_batched_tokens=none"], "must be a whole number"),
    "no effect": (["--set", "max_num_seqs=4"], "has no effect while dynamic_split_fuse=true"),
    "resume": (["--resume", "nowhere"], "nowhere: no such run or study"),
    "file": (["nowhere.toml"], "nowhere.toml: cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_sentence_and_nothing_starts(name: str, tmp_path: Path) -> None:
    arguments, words = WRONG[name]

    done = run(tmp_path, "tune", *arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("trails = 5\n")

    done = run(tmp_path, "tune", "study.toml")

    assert (done.returncode, done.stderr) == (
        2,
        "dyno: study.toml: unknown key 'trails'. Did you mean 'trials'?\n",
    )


def test_a_port_that_somebody_took_is_no_fault_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first start finds the port taken; the second, on another one, does not."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    measured = measure(
        Stack(
            engine=plugins.load("engines", "timed.engine"),
            front=plugins.load("fronts", "native"),
            model="m",
        ),
        {"mode": "taken", "itl_ms": 5},
        workload=Workload(osl=Lengths("fixed", 4, 4)),
        load=Load(users=(1,), duration_s=1.0, ramp_s=0.0),
        slos=(),
        hang_s=5.0,
        warmup_s=0.0,
        folder=tmp_path / "run",
        calibration=False,
        shows=lambda _progress, _meter: None,
        says=said.append,
    )

    assert (tmp_path / "taken").is_dir()
    assert measured.failure_class is None
    assert measured.summary is not None
    assert measured.summary["levels"][0]["requests"]["completed"] > 3
    assert "a port was taken before the server had it; once more on another one" in said


def test_a_baseline_that_cannot_be_served_ends_the_study(tmp_path: Path) -> None:
    done = run(tmp_path, *STUDY, "--set", "mode=refuses", "--out", "s")

    assert done.returncode == 3
    assert "the baseline cannot be measured (bad-config)" in done.stderr
    assert json.loads((tmp_path / "s" / "study.json").read_text())["baseline"] is None
