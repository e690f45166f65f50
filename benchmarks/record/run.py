"""What `dyno record` adds: 200 requests a second with and without it, in turn, and what it costs.

    python benchmarks/record/run.py [--rate 200] [--duration 20] [--pairs 2]

The server is the streamer, whose timing is known. The order is A B B A: without, with, with,
without. Printed as one line of JSON: the latencies of both, their difference, the CPU that a
request costs the proxy and its scribe, and how many of the requests are in the trace.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DYNO = (sys.executable, "-m", "llmdyno")
_METRICS = (("ttft_ms", "p50"), ("ttft_ms", "p99"), ("itl_ms", "p99"), ("e2e_ms", "p99"))
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def streamer() -> Iterator[str]:
    """Yield the URL of a server of known timing."""
    command = [sys.executable, "-m", "llmdyno.streamer", "--ttft", "30ms", "--itl", "5ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.terminate()


@contextlib.contextmanager
def recorder(url: str, out: Path) -> Iterator[tuple[str, int]]:
    """Yield the URL and the process id of `dyno record` before a server."""
    command = [*DYNO, "record", "--listen", "127.0.0.1:0", "--url", url, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield line.split(" from ")[1].split()[0], process.pid
        process.send_signal(signal.SIGINT)
        process.wait()


def level(url: str, rate: float, duration_s: float, folder: Path) -> dict[str, Any]:
    """Run one open-loop level and return it."""
    done = subprocess.run(
        [
            *(*DYNO, "bench", "--url", url, "--request-rate", str(rate), "--arrival", "constant"),
            *("--duration", f"{duration_s}s", "--isl", "200", "--osl", "32", "--no-calibration"),
            *("--no-scrape", "--out", str(folder), "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["levels"][0]
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children that live."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == pid or int(fields[1]) == pid:
                total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=2)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    spent_s = 0.0
    with tempfile.TemporaryDirectory() as name, streamer() as url:
        trace = Path(name) / "traffic.jsonl"
        with recorder(url, trace) as (through, pid):
            for number in range(2 * given.pairs):
                which = "with" if number % 4 in {1, 2} else "without"
                before_s = cpu_s(pid)
                folder = Path(name) / str(number)
                at = through if which == "with" else url
                found[which].append(level(at, given.rate, given.duration, folder))
                spent_s += cpu_s(pid) - before_s
        rows = [json.loads(line) for line in trace.read_text().splitlines()]
    sent = sum(one["requests"]["completed"] for one in found["with"])
    recorded = sum(row["sampling"].get("max_tokens") == 32 for row in rows)
    print(
        json.dumps(
            report(found)
            | {
                "requests_sent": sent,
                "requests_recorded": recorded,
                "cpu_us_per_request": round(spent_s / max(1, sent) * 1e6),
                "load_1min": os.getloadavg()[0],
                "cores": os.cpu_count(),
            }
        )
    )


def report(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the median over the runs of each metric, with, without, and the difference."""
    document: dict[str, Any] = {}
    for metric, stat in _METRICS:
        both = {
            which: statistics.median(level[metric][stat] for level in levels)
            for which, levels in found.items()
        }
        added = round(both["with"] - both["without"], 3)
        document[f"{metric}_{stat}"] = {**both, "added": added}
    failed = {
        which: sum(one["requests"]["failed"] for one in all_) for which, all_ in found.items()
    }
    return {**document, "failed": failed}


if __name__ == "__main__":
    main()
