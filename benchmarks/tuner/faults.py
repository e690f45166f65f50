"""Studies with faults injected at random: does each end with a true word?

    python benchmarks/tuner/faults.py --studies 10 --seed 1 --json faults.json

Each study tunes tests/faulty, whose truth is known: fast=true is 1.9 times as fast, 0.6 times, or
the same. While `dyno tune` runs, one fault befalls it at a random time or a random start. The fault
is mended when dyno has ended, and `--resume` goes on until it ends with status 0. What is checked
stands in untruths().
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).resolve().parents[2]
_MARK = "STUDY_WITH_FAULTS"
_RESUMES_MAX = 4
_LAST_START = 9  # of a study without faults
_LASTS_S = 25.0
FAULTS = (
    *("killed", "hung", "out-of-memory", "machine", "winner-dies", "port", "disk-full"),
    *("sigkill", "sigstop", "none"),
)


class Case(NamedTuple):
    """What befalls a study, and the truth about its engine."""

    fault: str
    effect: float
    start: int  # at which start of a server it happens
    after_s: float  # or how long after the beginning


class Ended(NamedTuple):
    """How one process of dyno ended."""

    status: int
    errors: str
    document: dict[str, Any] | None


def draw(number: int, seed: int) -> Case:
    """Return a study's case."""
    dice = random.Random(f"{seed}/{number}")
    return Case(
        fault=FAULTS[number % len(FAULTS)],
        effect=dice.choice((1.9, 1.9, 0.6, 1.0)),
        start=dice.randint(2, _LAST_START),
        after_s=dice.uniform(1.0, _LASTS_S),
    )


def script(case: Case) -> str:
    """Return what the engine does at which start."""
    at = {
        "out-of-memory": f"{case.start}:oom",
        "machine": f"{case.start}-:lib",
        "port": f"{case.start}:port",
        # From the confirmation on the faster config dies, and nothing else does.
        "winner-dies": "fast:dies",
    }
    return at.get(case.fault, "")


def servers(folder: Path) -> list[int]:
    """Return the streamers that a study in this folder has started and that still run."""
    return [pid for pid, command in _processes(folder) if "llmdyno.streamer" in command]


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


def befall(case: Case, dyno: subprocess.Popen[str], folder: Path) -> None:
    """Do to dyno or to its server what the case says, once it has run for a while."""
    if case.fault not in {"killed", "hung", "disk-full", "sigkill", "sigstop"}:
        return
    time.sleep(case.after_s)
    if dyno.poll() is not None:
        return
    if case.fault == "sigkill":
        dyno.kill()
    elif case.fault == "sigstop":
        dyno.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        dyno.send_signal(signal.SIGCONT)
    elif case.fault == "disk-full":
        _, hard = resource.prlimit(dyno.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(dyno.pid, resource.RLIMIT_FSIZE, (4096, hard))
    else:
        deadline_s = time.monotonic() + 10
        while not servers(folder) and dyno.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.1)
        for pid in servers(folder):
            os.kill(pid, signal.SIGKILL if case.fault == "killed" else signal.SIGSTOP)


def run(case: Case, folder: Path, *, resume: bool) -> Ended:
    """Run or go on with a study; the fault befalls it the first time only."""
    command = [sys.executable, "-m", "llmdyno", "tune"]
    if resume:
        command += ["--resume", "s"]
    else:
        (folder / "study.toml").write_text('hang = "3s"\n')
        command += ["study.toml", "--engine", "faulty.engine", "--model", "m", "-c", "6"]
        command += ["--ramp", "100ms", "--duration", "1s", "--trial-duration", "1s"]
        command += ["--interval", "250ms", "--osl", "16", "--pairs", "2", "--warmup", "0s"]
        command += ["--search", "fast", "--trials", "1", "--out", "s"]
    mended = resume and case.fault != "winner-dies"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT / "tests")]),
        "XDG_RUNTIME_DIR": str(folder / "runtime"),
        "FAULTY_STATE": str(folder / "state"),
        "FAULTY_EFFECT": str(case.effect),
        "FAULTY": "" if mended else script(case),
        _MARK: str(folder),
    }
    with (folder / "errors").open("w") as errors:
        dyno = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=errors, stderr=errors, text=True
        )
        if not resume:
            befall(case, dyno, folder)
        status = dyno.wait(timeout=300)
    try:
        document = json.loads((folder / "s" / "study.json").read_text())
    except (OSError, ValueError):
        document = None
    return Ended(status, (folder / "errors").read_text(), document)


def untruths(case: Case, ends: list[Ended], folder: Path) -> list[str]:
    """Return what is not true of a study's ends; none: it kept its word.

    - A stop has status 3 and a sentence, not a traceback; its verdict is "not confirmed", unless
      all pairs were whole.
    - The last end has status 0. Its verdict agrees with the engine's truth: what is slower is never
      "better" nor best, what is faster is "better", a winner that dies is not best.
    - The bundle serves the best config, every pair was measured, and no process is left.
    """
    found: list[str] = []
    for number, end in enumerate(ends):
        if "Traceback" in end.errors:
            found.append(f"end {number}: a traceback")
        killed = case.fault == "sigkill" and number == 0 and end.status == -signal.SIGKILL
        if end.status not in {0, 3} and not killed:
            found.append(f"end {number}: exit status {end.status}")
        if end.status == 3 and end.document is not None:
            confirmation = end.document["confirmation"]
            if confirmation["verdict"] != "not confirmed" and confirmation["pairs"] < 2:
                found.append(f"end {number}: {confirmation['verdict']} after a stop")
    last = ends[-1]
    if last.status or last.document is None:
        return [*found, "it never ended well"]
    word, best = last.document["confirmation"]["verdict"], last.document["best"]["config"]
    is_fast = best == {"fast": True}
    dies = case.fault == "winner-dies"
    if word == "worse" and is_fast:
        found.append("what was confirmed as worse is best")
    if dies and (is_fast or word == "better"):
        found.append(f"a winner that dies: {word}, {best}")
    if case.effect > 1 and not dies and (word != "better" or not is_fast):
        # A trial that was killed from outside is a result; the search had one trial.
        failed = [trial["state"] for trial in last.document["trials"]] == ["failed"]
        if not (failed and not is_fast and word == "not confirmed"):
            found.append(f"1.9 times as fast: {word}, {best}")
    if case.effect < 1 and (word == "better" or is_fast):
        found.append(f"0.6 times as fast: {word}, {best}")
    if case.effect == 1 and word == "better":
        found.append("the same: better")
    serve = folder / "s" / "bundle" / "serve.sh"
    gap_ms = 20 / (case.effect if is_fast else 1.0)
    if f"--itl {gap_ms:.3f}ms" not in serve.read_text():
        found.append("the bundle does not serve the best config")
    time.sleep(1.0)
    return found + [f"left: {command}" for _, command in _processes(folder)]


def study(case: Case) -> dict[str, Any]:
    """Run a study to its end, mend what broke, and judge it."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        ends = [run(case, folder, resume=False)]
        while ends[-1].status and len(ends) <= _RESUMES_MAX:
            ends.append(run(case, folder, resume=True))
        last = ends[-1].document
        return {
            **case._asdict(),
            "ends": [end.status for end in ends],
            "verdict": last and last["confirmation"]["verdict"],
            "best": last and last["best"] and last["best"]["config"],
            "seconds": round(time.monotonic() - began_s, 1),
            "untrue": untruths(case, ends, folder),
            "said": ends[-1].errors[-600:] if ends[-1].status else "",
        }


def main() -> int:
    """Run from the command line; the exit status is 1 if a study did not keep its word."""
    parser = argparse.ArgumentParser(description="Studies with faults injected at random.")
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for number in range(given.studies):
        rows.append(study(draw(number, given.seed)))
        print(json.dumps(rows[-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1) + "\n")
    true = sum(not row["untrue"] for row in rows)
    print(f"{true} of {len(rows)} studies ended with a true word.")
    return 0 if true == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
