"""The client beside its peers: CPU a token, TTFT against the truth, tokens counted and served.

    python benchmarks/client/run.py                        # everything; about half an hour
    python benchmarks/client/run.py --clients dyno,rust --rounds 5 --cases 100

Peers are installed on first use, each into an environment of its own. The server is our streamer,
one token a write, on the first core; the client runs on the second one, the clients in turn within
a round, so that what else the machine does hits all of them. CPU is user and system time of the
whole process tree, start and report included, and beside it without the start. Results go to
benchmarks/client/results.json and results.md; a peer that cannot be installed or run stands there
with its last words.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from clients import CLIENTS, TOKENS, Case, Client, Reading, environment, write_tokenizer

from llmdyno.errors import DynoError
from llmdyno.machine import environment as machine
from llmdyno.processes import environments

HERE = Path(__file__).parent
CASES = (
    Case(name="100", users=100, ttft_ms=100, itl_ms=20, requests=800),
    Case(name="1000", users=1000, ttft_ms=200, itl_ms=50, requests=3000),
)
# What starting costs: one user asks once. Told apart, for it weighs in short runs only.
START = Case(name="start", users=1, ttft_ms=100, itl_ms=20, requests=1)
REFERENCE = "rust"
_BECOME_REAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): orphans of a client become our children


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One client's run of one case."""

    client: str
    case: str
    round: int
    cpu_s: float = 0.0
    wall_s: float = 0.0
    served_tokens: int = 0
    streamer_late_ms_p99: float = 0.0
    reading: Reading | None = None
    failure: str = ""


@contextlib.contextmanager
def streamer(case: Case, cores: Sequence[int]) -> Iterator[str]:
    """Serve the case's timing on the first core; yield the URL."""
    command = [
        *(*_on(cores[0]), sys.executable, "-m", "llmdyno.streamer", "--until-eof"),
        *("--ttft", f"{case.ttft_ms:g}ms", "--itl", f"{case.itl_ms:g}ms"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.terminate()
        process.wait()


def truth(url: str) -> Any:
    """Ask the streamer what it has sent and how late."""
    with urllib.request.urlopen(f"{url}/truth") as response:
        return json.load(response)


def measure(
    client: Client, case: Case, number: int, work: Path, cores: Sequence[int], timeout_s: float
) -> Run:
    """Run one client once; a failure is a result too."""
    folder = work / f"{client.name}-{case.name}-{number}"
    folder.mkdir()
    facts = {"client": client.name, "case": case.name, "round": number}
    programs = Path(sys.executable).parent
    if client.requirements:
        try:
            programs = environments.ensure(f"peer-{client.name}", client.requirements, _say)
        except DynoError as error:
            return Run(**facts, failure=_last_line(str(error)))
    log = folder / "log.txt"
    with streamer(case, cores) as url, log.open("wb") as output:
        command = [*_on(cores[-1]), *client.command(programs, url, case, folder)]
        began_s = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(work / "huggingface")
        )
        cpu_s, status = _wait(process, began_s + timeout_s)
        wall_s = time.monotonic() - began_s
        sent = truth(url)
    if status:
        words = _last_line(log.read_text(errors="replace"))
        reason = words if wall_s < timeout_s else f"not done after {timeout_s:g} s"
        return Run(**facts, failure=f"exit status {status}: {reason}")
    return Run(
        **facts,
        cpu_s=round(cpu_s, 3),
        wall_s=round(wall_s, 2),
        served_tokens=sent["tokens"],
        streamer_late_ms_p99=sent["late_ms"]["p99"],
        reading=client.read(folder),
    )


def _wait(process: subprocess.Popen[bytes], until_s: float) -> tuple[float, int]:
    """Wait for a client and what it leaves behind; return its CPU time and exit status."""
    cpu_s = 0.0
    status = 0
    while True:
        number, ended, usage = os.wait4(process.pid, os.WNOHANG)
        if number:
            cpu_s += usage.ru_utime + usage.ru_stime
            status = os.waitstatus_to_exitcode(ended)
            process.returncode = status
            break
        if time.monotonic() > until_s:
            process.kill()
        time.sleep(0.05)
    # Its orphans are ours now; the streamer is still running and is not waited for.
    with contextlib.suppress(ChildProcessError):
        while (orphan := os.wait4(-1, os.WNOHANG))[0]:
            cpu_s += orphan[2].ru_utime + orphan[2].ru_stime
    return cpu_s, status


def _on(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def table(runs: Sequence[Run], case: Case) -> str:
    """Return the Markdown table of one case."""
    title = (
        f"### {case.users:,} users, TTFT {case.ttft_ms:g} ms, ITL {case.itl_ms:g} ms,"
        f" {case.requests:,} requests of {TOKENS} tokens"
    )
    columns = ("client", "CPU us a token, median (range)", "x the Rust client", "without its start",
               "x", "TTFT mean", "p50", "p99 ms", "streamer late", "tokens counted / served",
               "runs")  # fmt: skip
    lines = [title, "", _cells(columns), _cells(["---"] * len(columns))]
    mine = [run for run in runs if run.case == case.name]
    starts = {run.client: run.cpu_s for run in runs if run.case == START.name and not run.failure}
    reference = [run for run in mine if run.client == REFERENCE and not run.failure]
    for client in CLIENTS:
        done = [run for run in mine if run.client == client.name]
        good = [run for run in done if run.reading is not None]
        if good:
            lines.append(_row(client.label, good, reference, starts))
        lines += [_cells([client.label, run.failure]) for run in done if run.failure][:1]
    return "\n".join(lines)


def _row(
    label: str, good: Sequence[Run], reference: Sequence[Run], starts: Mapping[str, float]
) -> str:
    cost, ratio = _costs(good, reference, {})
    cost_alone, ratio_alone = _costs(good, reference, starts)
    readings = [run.reading for run in good if run.reading is not None]
    ttft_ms = [
        f"{median(getattr(reading, f'ttft_ms_{stat}') for reading in readings):,.1f}"
        for stat in ("mean", "p50", "p99")
    ]
    counted = sum(reading.tokens for reading in readings)
    served = sum(run.served_tokens for run in good)
    tokens = f"{counted:,} / {served:,}"
    late_ms = f"{median(run.streamer_late_ms_p99 for run in good):,.1f}"
    figures = [cost, ratio, cost_alone, ratio_alone, *ttft_ms, late_ms, tokens, f"{len(good)}"]
    return _cells([label, *figures])


def _costs(
    good: Sequence[Run], reference: Sequence[Run], starts: Mapping[str, float]
) -> tuple[str, str]:
    """Return CPU a token, less what starting cost, and what it is of the reference's, by round."""

    def cost(run: Run) -> float:
        return (run.cpu_s - starts.get(run.client, 0.0)) / run.served_tokens * 1e6

    of_round = {run.round: cost(run) for run in reference}
    return (
        _spread([cost(run) for run in good], 1),
        _spread([cost(run) / of_round[run.round] for run in good if run.round in of_round], 2),
    )


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The client beside its peers.")
    parser.add_argument("--clients", default=",".join(client.name for client in CLIENTS))
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=3, help="slow clients run in the first one")
    parser.add_argument("--timeout", type=float, default=400.0, help="of one run, in s")
    parser.add_argument("--out", type=Path, default=HERE, help="where the results go")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)  # before anything is measured
    ctypes.CDLL(None).prctl(_BECOME_REAPER, 1, 0, 0, 0)
    clients = [client for client in CLIENTS if client.name in given.clients.split(",")]
    cases = [case for case in CASES if case.name in given.cases.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_tokenizer(work / "huggingface")
        for number in range(given.rounds):
            for case in cases if number else [START, *cases]:
                for client in clients:
                    if client.is_slow and number:
                        continue
                    runs.append(measure(client, case, number, work, cores, given.timeout))
                    _say(f"round {number + 1}: {msgspec.json.encode(runs[-1]).decode()}")
    facts = machine.describe()
    date = datetime.now(UTC).date().isoformat()
    tables = "\n\n".join(table(runs, case) for case in cases)
    where = (
        f"{date}; {facts['cpu']['model']}, {len(cores)} cores, {facts['os']}, kernel"
        f" {facts['kernel']}, {facts['python']}; load average at the end"
        f" {facts['load_average'][0]:.1f}."
    )
    document = {"date": date, "environment": facts, "runs": msgspec.to_builtins(runs)}
    (given.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (given.out / "results.md").write_text(f"{where}\n\n{tables}\n")
    print(f"{where}\n\n{tables}")


if __name__ == "__main__":
    main()
