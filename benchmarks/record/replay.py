"""Whether a replay hits the prefix cache as the original did, on the embedded engine.

    python benchmarks/record/replay.py [--requests 120] [--users 6] [--isl 600] [--turns 4]
                                       [--kv-blocks 6000]

An agent's conversations go through `dyno record` to `dyno serve` with prefix caching; the trace is
replayed against a server that has just started. Printed as one line of JSON: of both the hit rate
of an ideal cache, by the hashes of the prompts, and the one that the engine had.

The engine tells nobody what its cache held. So what was asked, the second time recorded, too, is
asked of it once more, in this process and one request after the other, a few tokens a step: the
steps to the first token count what it computed (benchmarks/predictor/embedded.py).
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

sys.path.append(str(Path(__file__).parents[1] / "predictor"))

import embedded

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


@contextlib.contextmanager
def recorded(model: str, port: int, trace: Path) -> Iterator[str]:
    """Serve a model with a recorder before it that keeps texts; yield the recorder's URL."""
    with served(model, port) as url:
        recording = ("--listen", "127.0.0.1:0", "--url", url, "--out", str(trace), "--keep-text")
        # The page of metrics is the server's: it passes through the proxy like the rest.
        with started("record", *recording) as through:
            yield through


def of_run(trace: Path, run: dict[str, Any], osl: int) -> list[dict[str, Any]]:
    """Return the lines of a trace that a run counted, without what was asked before it."""
    rows = [json.loads(line) for line in trace.read_text().splitlines()]
    rows = [row for row in rows if row["sampling"].get("max_tokens") == osl]
    return sorted(rows[-run["requests"] :], key=lambda row: float(row["arrival_s"]))


def engine_hits(rows: list[dict[str, Any]], osl: int, blocks: int) -> dict[str, float]:
    """Return how many tokens of the requests' prompts the engine's cache held, counted by steps."""
    engine = embedded.started(
        {
            "enable_prefix_caching": True,
            "max_num_batched_tokens": embedded.STEP_TOKENS,
            "num_kv_blocks": blocks,
        }
    )
    counted = embedded.held(engine, [row["body"]["messages"] for row in rows], osl)
    tokens, held = (sum(column) for column in zip(*counted, strict=True))
    return {"engine_hit_rate": round(held / tokens, 4), "engine_tokens": tokens}


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--isl", type=int, default=600)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--osl", type=int, default=32)
    parser.add_argument("--kv-blocks", type=int, default=6000, help="of the engine that counts")
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    load = [
        *("--workload", "agent", "-c", str(given.users), "--requests", str(given.requests)),
        *("--ramp", "1s", "--isl", str(given.isl), "--turns", str(given.turns)),
        *("--osl", str(given.osl)),
    ]
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first.jsonl", Path(name) / "second.jsonl"
        with recorded(embedded.MODEL, given.port, first) as url:
            original = bench(url, Path(name) / "original", *load)
        asked = of_run(first, original, given.osl)
        trace = Path(name) / "traffic.jsonl"
        # A replay goes by hashes: it does not get the texts, which are for `engine_hits`.
        known = [{name: row[name] for name in row.keys() - {"body", "answer"}} for row in asked]
        trace.write_text("".join(f"{json.dumps(row)}\n" for row in known))
        with recorded(embedded.MODEL, given.port, second) as url:
            again = ("--arrival", "trace", "--dataset", str(trace))
            replayed = bench(url, Path(name) / "replayed", *again)
        asked_again = of_run(second, replayed, given.osl)
    print(
        json.dumps(
            {
                "original": original | engine_hits(asked, given.osl, given.kv_blocks),
                "replayed": replayed | engine_hits(asked_again, given.osl, given.kv_blocks),
            }
        )
    )


if __name__ == "__main__":
    main()
