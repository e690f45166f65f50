"""A soak: does the client's memory stay flat?

    python benchmarks/soak/soak.py --minutes 20 --users 50

runs `dyno bench` against the streamer and prints the client's resident memory over time, then the
slope of its second half: what it grows by once everything that is made once has been made.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_SAMPLE_S = 5.0
_PAGE_KIB = 4


def resident_mib(process: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_KIB / 1024


def watch(client: subprocess.Popen[bytes], until_s: float) -> list[tuple[float, float]]:
    """Print and return (seconds, MiB) until then, or until the client has ended."""
    began_s = time.monotonic()
    rows: list[tuple[float, float]] = []
    while (now_s := time.monotonic() - began_s) < until_s and client.poll() is None:
        rows.append((now_s, resident_mib(client.pid)))
        print(f"{now_s:7.0f} s  {rows[-1][1]:8.2f} MiB", flush=True)
        time.sleep(_SAMPLE_S)
    return rows


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Watch the client's memory under load.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--ttft", default="100ms")
    parser.add_argument("--itl", default="20ms")
    parser.add_argument("--osl", default="128")
    given = parser.parse_args()
    dyno = [sys.executable, "-m", "llmdyno"]
    streamer = subprocess.Popen(
        [*(dyno[0], "-m", "llmdyno.streamer", "--ttft", given.ttft, "--itl", given.itl)],
        stdout=subprocess.PIPE,
    )
    assert streamer.stdout is not None
    url = f"http://127.0.0.1:{json.loads(streamer.stdout.readline())['port']}"
    with tempfile.TemporaryDirectory() as folder:
        client = subprocess.Popen(
            [
                *(*dyno, "bench", "--url", url, "-c", str(given.users), "--osl", given.osl),
                *("--duration", f"{given.minutes * 60:.0f}s", "--ramp", "2s", "--out", folder),
            ],
            stderr=subprocess.DEVNULL,
        )
        # The last seconds are left out: the summary is made then, from the whole journal.
        rows = watch(client, given.minutes * 60 - 2 * _SAMPLE_S)
        status = client.wait()
        summary = json.loads((Path(folder) / "summary.json").read_text())
    streamer.terminate()
    streamer.wait()
    second = np.array(rows[len(rows) // 2 :])
    slope = np.polyfit(second[:, 0] / 60, second[:, 1], 1)[0]
    (level,) = summary["levels"]
    print(
        f"exit status {status}; {level['requests']}; {level['tokens']['output']} tokens\n"
        f"second half: {second[:, 1].min():.2f}-{second[:, 1].max():.2f} MiB,"
        f" slope {slope:+.3f} MiB a minute"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
