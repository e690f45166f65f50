"""Studies with faults injected at random: does each end with a true word?

    python benchmarks/tuner/faults.py --studies 50 --seed 1 --json faults.json

Each study tunes tests/faulty, whose truth is known: fast=true is 1.9 times as fast, 0.6 times, or
the same, and idle=b does nothing. While `dyno tune` runs, one fault befalls it at a random moment:
once its ledger has so many lines, and a random time after that, so that every phase is hit. Then
the fault is mended, and `--resume` goes on until it ends with status 0; where the fault was a
signal, every second resume is struck by another one. `untruths` says what is checked.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).resolve().parents[2]
_MARK = "STUDY_WITH_FAULTS"
_ENDS_MAX = 8
_STEP_S = 2.5  # about what a step takes
_WINNER = {"fast": True, "idle": "b"}
_PAIRS = 2
_ASKED_SHARE = 0.2  # of the studies also ask for answers, which takes two starts more
_SIGNALS = {"SIGKILL", "SIGTERM", "SIGINT"}
# What the engine does by itself, from a start on.
_SCRIPTED = {
    "out of memory": "{at}:oom",
    "starts, then dies": "{at}:dies",
    "hangs after its start": "{at}:hangs",
    "port stolen": "{at}:port",
    "machine broken": "{at}-:lib",
    "machine slower": "{at}-:slow",
    "winner dies": "fast:dies",  # from the confirmation on
    "winner slow": "fast:slow",
    "winner serves 500": "fast1-:errors",
    "all serve 500": "{at}-:errors",
    "another model": "fast:renamed",  # from the confirmation on
}
_LASTING = {  # not mended
    *("machine slower", "winner dies", "winner slow", "winner serves 500", "another model"),
}
# In these no config fails by itself.
_NOT_THE_CONFIGS = _SIGNALS | {
    *("none", "SIGSTOP, 3 s", "ledger cut", "disk full", "clock set"),
    *("version changed while stopped", "version changed while it runs"),
    *("machine broken", "machine slower", "winner dies", "winner slow"),
    *("folder renamed", "no open file left", "machine asleep", "another model"),
}
FAULTS = (
    *("none", "SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP, 3 s", "ledger cut"),
    *("engine killed", "engine killed twice", "engine hung", "disk full", "clock set"),
    *("version changed while stopped", "version changed while it runs"),
    *_SCRIPTED,
    *("folder renamed", "no open file left", "machine asleep"),
)


class Case(NamedTuple):
    """What befalls a study, and the truth about its engine."""

    fault: str
    effect: float
    lines: int  # of the ledger, when it happens; so many starts there were
    after_s: float  # then
    seed: str


class Ended(NamedTuple):
    """How one process of dyno ended."""

    status: int
    errors: str
    ledger: list[dict[str, Any]]
    document: dict[str, Any] | None


def draw(number: int, seed: int) -> Case:
    """Return a study's case; each fault comes as often as the others."""
    dice = random.Random(f"{seed}/{number}")
    fault = FAULTS[number % len(FAULTS)]
    faster = fault.startswith("winner") or fault == "another model"
    effect = 1.9 if faster else dice.choice((1.9, 1.9, 1.9, 0.6, 1.0))
    last = 14 if effect > 1 else 8
    return Case(fault, effect, dice.randint(1, last), dice.uniform(0, _STEP_S), f"{seed}/{number}")


class Study:
    """One study in a folder of its own.

    Args:
        case: what befalls it.
        folder: an empty one.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.dice = random.Random(f"{case.seed}/later")
        self.ends: list[Ended] = []
        self.struck = ""  # the phase that was under way
        self.name = "s"  # of the study's folder
        (folder / "state").mkdir()
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_CLOCK)
        (folder / "study.toml").write_text(
            'hang = "3s"\n[[candidates]]\nfast = true\nidle = "b"\n[[candidates]]\nidle = "c"\n'
        )

    @property
    def ledger(self) -> Path:
        """The study's."""
        return self.folder / self.name / "ledger.jsonl"

    def to_its_end(self) -> None:
        """Run it, mend what broke, and go on until it ends well or never does."""
        quality = [] if self.dice.random() < _ASKED_SHARE else ["--no-quality"]
        self._run(["study.toml", *_asked(), *quality, "--out", "s"], strike=True)
        while self.ends[-1].status and len(self.ends) < _ENDS_MAX:
            refused = self.ends[-1].status == 2 and "--elsewhere" in self.ends[-1].errors
            again = self.case.fault in _SIGNALS and self.dice.random() < 0.5
            self._run(["--resume", self.name, *(["--elsewhere"] if refused else [])], again=again)

    def _run(self, arguments: list[str], *, strike: bool = False, again: bool = False) -> None:
        mended = not strike and self.case.fault not in _LASTING
        script = "" if mended else _SCRIPTED.get(self.case.fault, "").format(at=self.case.lines)
        paths = (self.folder / "site", _ROOT / "src", _ROOT / "tests")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XDG_RUNTIME_DIR": str(self.folder / "runtime"),
            "FAULTY_STATE": str(self.folder / "state"),
            "FAULTY_EFFECT": str(self.case.effect),
            "FAULTY": script,
            _MARK: str(self.folder),
        }
        command = [sys.executable, "-m", "llmdyno", "tune", *arguments]
        with (self.folder / "errors").open("w") as errors:
            dyno = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=errors, stderr=errors, text=True
            )
            if strike:
                self._strike(dyno)
            elif again:
                time.sleep(self.dice.uniform(0.5, 8.0))
                dyno.send_signal(self.dice.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)))
            status = dyno.wait(timeout=300)
        try:
            document = json.loads((self.folder / self.name / "study.json").read_text())
        except (OSError, ValueError):
            document = None
        errors_said = (self.folder / "errors").read_text()
        self.ends.append(Ended(status, errors_said, self._steps(), document))

    def _steps(self) -> list[dict[str, Any]]:
        lines = self.ledger.read_bytes().split(b"\n")[:-1] if self.ledger.exists() else []
        entries = [json.loads(line) for line in lines]
        return [one for one in entries if one["type"] == "step"]

    def _strike(self, dyno: subprocess.Popen[str]) -> None:
        """Wait for the moment, and do what the case says to dyno or to its server."""
        while dyno.poll() is None:
            if self.ledger.exists() and self.ledger.read_bytes().count(b"\n") >= self.case.lines:
                break
            time.sleep(0.02)
        time.sleep(self.case.after_s)
        if dyno.poll() is not None:
            return
        runs = sorted(
            (self.folder / self.name / "runs").glob("*"), key=lambda run: run.stat().st_ctime
        )
        self.struck = runs[-1].name.split("-")[2] if runs else "before"
        match self.case.fault:
            case "SIGKILL" | "SIGTERM" | "SIGINT" as name:
                dyno.send_signal(signal.Signals[name])
            case "SIGSTOP, 3 s":
                dyno.send_signal(signal.SIGSTOP)
                time.sleep(3.0)
                dyno.send_signal(signal.SIGCONT)
            case "machine asleep":
                asleep = [pid for pid, _ in _processes(self.folder)]
                for number in (signal.SIGSTOP, signal.SIGCONT):
                    for pid in asleep:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, number)
                    time.sleep(15.0 if number == signal.SIGSTOP else 0.0)
            case "folder renamed":
                (self.folder / self.name).rename(self.folder / "renamed")
                self.name = "renamed"
            case "no open file left":
                resource.prlimit(dyno.pid, resource.RLIMIT_NOFILE, (12, 12))
            case "ledger cut":
                dyno.kill()
                dyno.wait()
                self._cut()
            case "engine killed" | "engine killed twice" | "engine hung" as fault:
                number = signal.SIGSTOP if fault == "engine hung" else signal.SIGKILL
                for _ in range(2 if fault.endswith("twice") else 1):
                    self._signal_server(dyno, number)
            case "disk full":
                _, hard = resource.prlimit(dyno.pid, resource.RLIMIT_FSIZE)
                most = self.dice.choice((1500, 6000, 40_000))
                resource.prlimit(dyno.pid, resource.RLIMIT_FSIZE, (most, hard))
            case "clock set":
                (self.folder / "state" / "clock").write_text(self.dice.choice(("-90000", "90000")))
            case "version changed while stopped":
                dyno.send_signal(signal.SIGINT)
                dyno.wait()
                (self.folder / "state" / "version").write_text("2.0")
            case "version changed while it runs":
                (self.folder / "state" / "version").write_text("2.0")

    def _cut(self) -> None:
        """Cut the ledger's last line, as a kill in the middle of its write does."""
        content = self.ledger.read_bytes()
        begin = content[:-1].rfind(b"\n") + 1
        if begin:
            self.ledger.write_bytes(content[: self.dice.randrange(begin, len(content))])

    def _signal_server(self, dyno: subprocess.Popen[str], number: int) -> None:
        deadline_s = time.monotonic() + 10
        while not (found := servers(self.folder)) and time.monotonic() < deadline_s:
            if dyno.poll() is not None:
                return
            time.sleep(0.05)
        for pid in found:
            os.kill(pid, number)
        while set(found) & set(servers(self.folder)) and time.monotonic() < deadline_s:
            time.sleep(0.05)


# The wall clock of dyno, which the benchmark can set.
_CLOCK = """
import datetime, os, pathlib
class _Set(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        place = pathlib.Path(os.environ.get("FAULTY_STATE", "/nowhere"), "clock")
        ahead_s = float(place.read_text()) if place.exists() else 0.0
        return super().now(tz) + datetime.timedelta(seconds=ahead_s)
datetime.datetime = _Set
"""


def _asked() -> list[str]:
    return [
        *("--engine", "faulty.engine", "--model", "m", "-c", "6", "--ramp", "100ms"),
        *("--duration", "1s", "--trial-duration", "1s", "--interval", "250ms", "--osl", "16"),
        *("--pairs", str(_PAIRS), "--warmup", "0s", "--search", "fast,idle", "--trials", "2"),
    ]


def servers(folder: Path) -> list[int]:
    """Return the servers that a study in this folder has started and that still run."""
    modules = ("-m llmdyno.streamer", "-m faulty.failing", "-m faulty.renamed")
    return [
        pid
        for pid, command in _processes(folder)
        if any(module in command for module in modules) and not command.startswith("sh ")
    ]


def _processes(folder: Path) -> list[tuple[int, str]]:
    mark = f"{_MARK}={folder}\0".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes():
                command = (place / "cmdline").read_text().replace("\0", " ")
                if command:  # a zombie has none
                    found.append((int(place.name), command))
        except OSError:
            continue
    return found


def untruths(study: Study) -> list[str]:
    """Return what is not true of a study's ends; none: it kept its word.

    - Each end has a known status and a sentence, never a traceback. After a stop the verdict is
      "not confirmed", unless all pairs were whole; bundle and `dyno deploy` say so.
    - What was measured stays in the ledger, and nothing is measured twice.
    - The last end has status 0, and its verdict agrees with the engine's truth; see _word().
    - A pair with a stop or a repeated run in it, and a run that failed requests, have a doubt.
    - The bundle serves the best config, and no process is left.
    """
    case, ends, last = study.case, study.ends, study.ends[-1]
    found: list[str] = []
    for number, end in enumerate(ends):
        found += [f"end {number}: {said}" for said in _of_end(case, end)]
    found += _kept(ends)
    if last.status or last.document is None:
        return [*found, "it never ended well"]
    found += [*_word(case, last.document), *_doubted(last), *_suspected(case, last.document)]
    best = last.document["best"]["config"]
    gap_ms = 20 / (case.effect if best.get("fast") else 1.0)
    slower = gap_ms * 2.5
    serve = (study.folder / study.name / "bundle" / "serve.sh").read_text()
    if not any(f"--itl {gap:.3f}ms" in serve for gap in (gap_ms, slower)):
        found.append("the bundle does not serve the best config")
    found += _surfaces(study)
    time.sleep(1.0)
    return found + [f"left: {command}" for _, command in _processes(study.folder)]


def _of_end(case: Case, end: Ended) -> list[str]:
    found = []
    if "Traceback" in end.errors:
        found.append("a traceback")
    known = {0, 3}
    if case.fault in _SIGNALS | {"ledger cut", "version changed while stopped"}:
        known |= {-signal.SIGKILL, -signal.SIGTERM, 130}  # by its default before dyno has begun
    if case.fault.startswith("version"):
        known |= {2}
    if end.status not in known:
        found.append(f"exit status {end.status}")
    if end.status in {3, 130} and end.document is not None:
        confirmation = end.document["confirmation"]
        word, pairs = confirmation["verdict"], confirmation["pairs"]
        faster = any(t["value"] and t["config"].get("fast") for t in end.document["trials"])
        ended = end.document["outcome"]["state"] == "nothing better"  # no pairs were to come
        if (
            not (ended and not (faster and case.effect > 1))
            and word != "not confirmed"
            and pairs < _PAIRS
        ):
            found.append(f"{word} after a stop")
    return found


def _kept(ends: Sequence[Ended]) -> list[str]:
    """Return what was lost of the ledger, or measured twice in one place."""
    found = []
    for before, after in itertools.pairwise(ends):
        if after.ledger[: len(before.ledger)] != before.ledger:
            found.append("a line of the ledger is gone")
    keys = Counter(
        (step["phase"], step.get("contender", 0), step["number"], step.get("place", 0))
        for step in ends[-1].ledger
        if step["state"] == "measured"
    )
    return found + [f"measured {count} times: {key}" for key, count in keys.items() if count > 1]


def _word(case: Case, document: dict[str, Any]) -> list[str]:
    """Return what of the last verdict contradicts the engine's truth.

    What is slower, dies or fails requests is never "better" nor best; what is faster is "better",
    unless its only trial was the one that failed.
    """
    word, best = document["confirmation"]["verdict"], document["best"]["config"]
    is_fast = bool(best.get("fast"))
    found = []
    blamed = [trial["failure"]["class"] for trial in document["trials"] if trial["failure"]]
    if blamed and case.fault in _NOT_THE_CONFIGS:
        found.append(f"{case.fault}, and a config was blamed: {blamed}")
    if document["stopped"] is not None:
        found.append(f"it ended well and says that it stopped: {document['stopped']}")
    if word == "worse" and is_fast:
        found.append("what was confirmed as worse is best")
    bad = case.effect < 1 or case.fault in {"winner dies", "winner slow", "winner serves 500"}
    if bad and (word == "better" or is_fast) and best != {"idle": "c"}:
        found.append(f"{case.effect} times as fast, {case.fault}: {word}, {best}")
    if case.effect == 1 and word == "better":
        found.append("the same: better")
    if case.effect > 1 and not bad and (word != "better" or not is_fast):
        trial = next(t for t in document["trials"] if t["config"] == _WINNER)
        rejected = [one["why"] for one in document["rejected"] if one["config"] == _WINNER]
        twice = case.fault == "engine killed twice" and any("died" in why for why in rejected)
        # Two pairs on a busy machine cannot tell; then the interval must hold the truth.
        bounds = document["confirmation"]["ratio"].get("token_rate", {}).get("ci95")
        wide = word == "no difference" and is_fast and bounds and bounds[1] > case.effect
        slower = case.fault == "machine slower" and word != "worse"
        if not (trial["state"] == "failed" or twice or slower or wide):
            found.append(f"1.9 times as fast: {word}, {best}")
    return found


def _doubted(last: Ended) -> list[str]:
    """Return the faults in the pairs of a verdict that no doubt tells."""
    document = last.document
    assert document is not None
    confirmation = document["confirmation"]
    if confirmation["verdict"] == "not confirmed" or not confirmation["pairs"]:
        return []
    contender = next(
        (s.get("contender", 0) for s in last.ledger if s["phase"] == "best"
         and s["config"] == confirmation["config"]), None)  # fmt: skip
    steps = [
        step
        for step in last.ledger
        if step["phase"] == "confirm" and step.get("contender", 0) == contender
    ]
    codes = {doubt["code"] for doubt in document["doubts"]}
    found = []
    # Of a run that was made again in another place the first try does not count.
    measured = {step["number"]: step for step in steps if step["state"] == "measured"}
    by_pair: dict[int, set[str]] = {}
    for number, step in measured.items():
        by_pair.setdefault(number // 2, set()).add(step.get("sitting", ""))
    if any(len(sittings) > 1 for sittings in by_pair.values()) and "torn-pairs" not in codes:
        found.append("a pair was torn by a stop, and no doubt says so")
    if any(step["state"] == "failed" for step in steps) and "repeated-runs" not in codes:
        found.append("a run of the pairs failed, and no doubt says so")
    return found


def _suspected(case: Case, document: dict[str, Any]) -> list[str]:
    """Return what of a fault that stops nothing is not told, or told of what was none."""
    codes = {doubt["code"] for doubt in document["doubts"]}
    fast = bool((document["confirmation"]["config"] or {}).get("fast"))
    if case.fault == "another model" and document["confirmation"]["pairs"] and fast:
        return [] if "several-models" in codes else ["another model answered, and no doubt says so"]
    if case.fault == "machine asleep" and {"repeated-runs", "failing-starts"} & codes:
        return ["the machine slept, and a server is said to have failed"]
    return []


def _surfaces(study: Study) -> list[str]:
    """Return where a stop in the confirmation is not told; the bundle of a stop is made again."""
    last = study.ends[-1].document
    assert last is not None
    if last["confirmation"]["verdict"] != "not confirmed" or last["best"]["config"] == {}:
        return []
    readme = (study.folder / study.name / "bundle" / "README.md").read_text()
    return [] if "Not confirmed" in readme else ["the bundle's README does not say so"]


def judged(case: Case) -> dict[str, Any]:
    """Run a study to its end, mend what broke, and judge it."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        study = Study(case, Path(name))
        study.to_its_end()
        last = study.ends[-1]
        document = last.document or {"confirmation": {}, "best": {}, "doubts": []}
        return {
            **case._asdict(),
            "phase": study.struck,
            "ends": [end.status for end in study.ends],
            "verdict": document["confirmation"].get("verdict"),
            "best": (document["best"] or {}).get("config"),
            "doubts": sorted({doubt["code"] for doubt in document["doubts"]}),
            "seconds": round(time.monotonic() - began_s, 1),
            "untrue": untruths(study),
            "said": [end.errors[-400:] for end in study.ends if end.status],
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table: fault, truth, moment, ends, word."""
    lines = [
        "| fault | fast=true | in | ends | word | best | kept its word |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: FAULTS.index(row["fault"])):
        best = ", ".join(f"{k}={str(v).lower()}" for k, v in (row["best"] or {}).items())
        kept = "; ".join(row["untrue"]) or "yes"
        ends = " ".join(map(str, row["ends"]))
        lines.append(
            f"| {row['fault']} | {row['effect']}x | {row['phase'] or '-'} | {ends} |"
            f" {row['verdict']} | {best or 'defaults'} | {kept} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; the exit status is 1 if a study did not keep its word."""
    parser = argparse.ArgumentParser(description="Studies with faults injected at random.")
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default="", help="these only, with commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    cases = [draw(number, given.seed) for number in range(given.first, given.first + given.studies)]
    if given.faults:
        cases = [case for case in cases if case.fault in given.faults.split(",")]
    rows = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for row in pool.map(judged, cases):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1) + "\n")
    true = sum(not row["untrue"] for row in rows)
    print(f"{table(rows)}\n\n{true} of {len(rows)} studies ended with a true word.")
    return 0 if true == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
