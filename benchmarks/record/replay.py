"""Whether a replay hits the prefix cache as the original did, on the embedded engine.

    python benchmarks/record/replay.py [--requests 120] [--users 6] [--isl 600] [--turns 4]

An agent's conversations go through `dyno record` to `dyno serve` with prefix caching; the trace is
replayed against a server that has just started. Printed as one line of JSON: of both the hit rate
of an ideal cache, by the hashes of the prompts, and the one that the server's counters tell.
"""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DYNO = (sys.executable, "-m", "llmdyno")
_ADDRESS = re.compile(r"https?://127\.0\.0\.1:\d+")


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[str]:
    """Start a command of dyno that serves; yield the first address that it says."""
    with subprocess.Popen([*DYNO, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(found[0] for line in process.stderr if (found := _ADDRESS.search(line)))
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()


@contextlib.contextmanager
def served(model: str, port: int) -> Iterator[str]:
    """Serve a model of the embedded engine, with an empty prefix cache; yield its URL."""
    arguments = ("--engine", "openvino", "--model", model, "--set", "enable_prefix_caching=true")
    with started("serve", *arguments, "--port", str(port)) as url:
        while not is_ready(url):
            time.sleep(0.2)
        yield url


def is_ready(url: str) -> bool:
    """Whether the server has loaded its model."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def bench(url: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a benchmark; return its only level's `prefix` with what it rests on."""
    done = subprocess.run(
        [
            *DYNO,
            "bench",
            "--url",
            url,
            "--no-calibration",
            "--out",
            str(folder),
            "--json",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    level = json.loads(done.stdout.splitlines()[-1])["levels"][0]
    return {
        **level["prefix"],
        "input_tokens": level["tokens"]["input"],
        "requests": level["requests"]["completed"],
        "failed": level["requests"]["failed"],
    }


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--isl", type=int, default=600)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--osl", type=int, default=32)
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    load = [
        *("--workload", "agent", "-c", str(given.users), "--requests", str(given.requests)),
        *("--ramp", "1s", "--isl", str(given.isl), "--turns", str(given.turns)),
        *("--osl", str(given.osl)),
    ]
    with tempfile.TemporaryDirectory() as name:
        trace = Path(name) / "traffic.jsonl"
        with served(given.model, given.port) as url:
            recording = ("--listen", "127.0.0.1:0", "--url", url, "--out", str(trace))
            with started("record", *recording) as through:
                # The page of metrics is the server's: it passes through the proxy like the rest.
                original = bench(through, Path(name) / "original", *load)
        # What `dyno bench` asked before its run is in the trace, too; the replay leaves it out.
        rows = [json.loads(line) for line in trace.read_text().splitlines()]
        counted = [row for row in rows if row["sampling"].get("max_tokens") == given.osl]
        counted = counted[-original["requests"] :]
        trace.write_text("".join(f"{json.dumps(row)}\n" for row in counted))
        with served(given.model, given.port) as url:
            again = ("--arrival", "trace", "--dataset", str(trace))
            replayed = bench(url, Path(name) / "replayed", *again)
    print(json.dumps({"original": original, "replayed": replayed}))


if __name__ == "__main__":
    main()
