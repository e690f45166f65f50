"""What `dyno record` adds: the same client, direct and through the proxy in short turns.

    python benchmarks/record/run.py [--rate 200] [--turn 4] [--rounds 8] [--arrival constant]

The server is the streamer, whose timing is known; the client is ours, its reads stamped by the
kernel. A round is two turns, direct and through the proxy, in alternating order (A B, B A, …), so
that what else the machine does falls on both. Of every round the difference of each quantile is
taken; printed as one line of JSON are the median of these differences, its 95 % bootstrap interval
over the rounds, and all of them, then the CPU that a request costs the proxy and its scribe, and
how many of the requests are in the trace.
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
from time import perf_counter_ns
from typing import Any

import numpy as np
import uvloop

from llmdyno import endpoints, spec, workload
from llmdyno.load.level import Level, rare_collections
from llmdyno.load.plan import Point
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Entry, Record
from llmdyno.units import Lengths
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url
from llmdyno.workload.share import Share

DYNO = (sys.executable, "-m", "llmdyno")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_WORDS = 200
_TOKENS = 32
_WARM_S = 1.0
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_RESAMPLES = 10_000


@contextlib.contextmanager
def streamer() -> Iterator[str]:
    """Yield the URL of a server of known timing."""
    command = [sys.executable, "-m", "llmdyno.streamer", "--ttft", "30ms", "--itl", "5ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()


@contextlib.contextmanager
def recorder(url: str, out: Path) -> Iterator[tuple[str, int]]:
    """Yield the URL and the process id of `dyno record` before a server."""
    command = [*DYNO, "record", "--listen", "127.0.0.1:0", "--url", url, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield line.split(" from ")[1].split()[0], process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


async def turn(url: str, asked: spec.Bench, number: int) -> list[Record]:
    """Run one turn of the load; return the facts of its requests."""
    point = Point(spec=asked, level=number, repeat=0, load=asked.load.rates[0])
    prompts = point.prompts(Share())
    plan = point.plan(prompts, parse_url(url), endpoints.load(asked.endpoint), Share())
    entries: list[Entry] = []
    begin_ns = perf_counter_ns()
    taking = Recorder(sink=entries.append, zero_ns=begin_ns, meter=Meter(), progress=Progress())
    with rare_collections():
        await Level(plan, prompts, taking).run(begin_ns)
    return [one for one in entries if isinstance(one, Record)]


def times_ms(records: list[Record]) -> dict[str, list[float]]:
    """Return the latencies of the completed requests by metric."""
    done = [one for one in records if one.outcome == "completed"]
    return {
        "ttft_ms": [one.gaps_ns[0] / 1e6 for one in done],
        "itl_ms": [gap / 1e6 for one in done for gap in one.gaps_ns[1:]],
        "e2e_ms": [sum(one.gaps_ns) / 1e6 for one in done],
    }


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children that live."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == pid or int(fields[1]) == pid:
                total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total


def report(found: dict[str, list[dict[str, list[float]]]]) -> dict[str, Any]:
    """Return of each metric and quantile both sides' medians, and the differences by round."""
    document: dict[str, Any] = {}
    for metric in ("ttft_ms", "itl_ms", "e2e_ms"):
        for name, quantile in _QUANTILES.items():
            by_round = {
                side: [float(np.quantile(one[metric], quantile)) for one in turns]
                for side, turns in found.items()
            }
            added = [
                through - direct
                for direct, through in zip(by_round["direct"], by_round["through"], strict=True)
            ]
            document[f"{metric}_{name}"] = {
                "direct": round(statistics.median(by_round["direct"]), 3),
                "through": round(statistics.median(by_round["through"]), 3),
                "added": round(statistics.median(added), 3),
                "added_interval": interval(added),
                "added_by_round": [round(one, 3) for one in added],
            }
    return document


def interval(values: list[float]) -> list[float]:
    """Return the 95 % interval of the median, by the bootstrap over the rounds."""
    drawn = np.random.default_rng(1).choice(values, (_RESAMPLES, len(values)))
    ends = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return [round(float(one), 3) for one in ends]


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rounds, and return what is printed."""
    found: dict[str, list[dict[str, list[float]]]] = {"direct": [], "through": []}
    sent = failed = number = 0
    spent_s = 0.0
    trace = folder / "traffic.jsonl"
    with streamer() as url, recorder(url, trace) as (through, pid):
        for round_ in range(-1, given.rounds):  # the first warms both sides up
            sides = [("direct", url), ("through", through)]
            for side, at in sides if round_ % 2 == 0 else reversed(sides):
                before_s = cpu_s(pid)
                records = await turn(at, asked(at, given, short=round_ < 0), number)
                number += 1
                if side == "through":
                    sent += len(records)
                    spent_s += cpu_s(pid) - before_s
                failed += sum(one.outcome != "completed" for one in records)
                if round_ >= 0:
                    found[side].append(times_ms(records))
    return report(found) | {
        "requests_through": sent,
        "requests_recorded": len(trace.read_text().splitlines()),
        "failed": failed,
        "cpu_us_per_request": round(spent_s / max(1, sent) * 1e6),
        "load_1min": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }


def asked(url: str, given: argparse.Namespace, *, short: bool) -> spec.Bench:
    """Return what a turn asks."""
    return spec.Bench(
        url=url,
        model="streamer",
        endpoint="openai-chat",
        workload=spec.Workload(
            name=workload.implied({"isl"}),
            isl=Lengths("fixed", _WORDS),
            osl=Lengths("fixed", _TOKENS),
        ),
        load=spec.Load(
            rates=(given.rate,),
            arrival=given.arrival,
            duration_s=_WARM_S if short else given.turn,
        ),
    )


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--turn", type=float, default=4.0, help="seconds")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--arrival", default="constant", choices=("constant", "poisson"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(uvloop.run(measure(given, Path(name)))))


if __name__ == "__main__":
    main()
