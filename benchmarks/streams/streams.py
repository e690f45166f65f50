"""Thousands of open streams: is a token lost, or counted late?

    python benchmarks/streams/streams.py --users 10000 --workers 2

A streamer that sends each token at a moment known beforehand and a `dyno bench` of so many users
run on this machine, side by side. Then every token that the streamer says it sent must be in the
journal, and each must have its own moment: token k of a request at sent + TTFT + k x ITL. How late
the streamer itself was with its writes, by its own account, stands beside how late our stamps are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from llmdyno.records.entries import Record
from llmdyno.records.journal import read_journal
from llmdyno.units import seconds

BEYOND_MS = 10.0  # a stamp later than the streamer's worst by more than this was counted late


def main() -> None:
    """Run, compare, print a table and end with 1 if a token was lost or counted late."""
    given = _arguments()
    timing = ("--ttft", given.ttft, "--itl", given.itl)
    with tempfile.TemporaryDirectory() as folder:
        streamer = subprocess.Popen(
            [sys.executable, "-m", "llmdyno.streamer", "--until-eof", *timing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert streamer.stdout is not None
        url = f"http://127.0.0.1:{json.loads(streamer.stdout.readline())['port']}"
        summary = _bench(url, given, Path(folder) / "run")
        with urllib.request.urlopen(f"{url}/truth") as response:
            truth = json.load(response)
        streamer.terminate()
        streamer.wait()
        late_ms = _late_ms(Path(folder) / "run", seconds(given.ttft, ""), seconds(given.itl, ""))
    found = _compare(summary["levels"][0], truth, late_ms)
    for name, value in found.items():
        sys.stdout.write(f"{name:32} {value}\n")
    sys.exit(bool(found["tokens lost"] or found["tokens counted late"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Thousands of open streams, token by token.")
    parser.add_argument("--users", default="10000")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--ttft", default="1s")
    parser.add_argument("--itl", default="2s")
    parser.add_argument("--osl", default="16", help="tokens of each answer")
    parser.add_argument("--ramp", default="20s")
    parser.add_argument("--duration", default="60s")
    return parser.parse_args()


def _bench(url: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "llmdyno", "bench", "--url", url, "--out", str(folder)),
            *("--endpoint", "openai-chat", "--model", "m", "--osl", given.osl, "--json"),
            *("-c", given.users, "--workers", given.workers, "--ramp", given.ramp),
            *("--duration", given.duration, "--grace", "10m", "--no-scrape"),
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def _late_ms(folder: Path, ttft_s: float, itl_s: float) -> Any:
    """Return of each token how much later than due its stamp is."""
    late: list[Any] = []
    for record in read_journal(folder / "journal.jsonl"):
        if isinstance(record, Record):
            stamps_s = np.cumsum(record.gaps_ns) / 1e9
            tokens = np.array(record.tokens or [1] * len(stamps_s))
            due_s = ttft_s + (np.cumsum(tokens) - 1) * itl_s
            late.append(np.repeat((stamps_s - due_s) * 1e3, tokens))
    return np.concatenate(late)


def _compare(level: dict[str, Any], truth: dict[str, Any], late_ms: Any) -> dict[str, Any]:
    streamer, client = truth["late_ms"], level["client"]
    return {
        "streams open at once": max(sample["in_flight"] or 0 for sample in level["samples"]),
        "requests": level["requests"],
        "tokens sent": truth["tokens"],
        "tokens lost": truth["tokens"] - level["tokens"]["output"],
        "tokens counted late": int((late_ms > streamer["max"] + BEYOND_MS).sum()),
        "stamps late, ms: p50 p99 max": " ".join(
            f"{value:.2f}" for value in (*np.quantile(late_ms, (0.5, 0.99)), late_ms.max())
        ),
        "streamer late, ms: p50 p99 max": " ".join(
            f"{streamer[stat]:.2f}" for stat in ("p50", "p99", "max")
        ),
        "tok/s": level["token_rate"]["mean"],
        "client CPU, us a token": client["cpu_us_per_token"],
        "client late to look, ms p99": client["late_ms_p99"],
        "headroom of the busiest worker": client["headroom"],
        "verdict": client["verdict"] + "".join(f"; {why}" for why in client["reasons"]),
    }


if __name__ == "__main__":
    main()
