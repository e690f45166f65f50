"""Run tests while processes below them stand still at random: `python dev/stops.py 0.8 tests/load`.

Every moment one of pytest's descendants is stopped, for up to so many seconds, and goes on: a test
that takes the machine to be idle fails far sooner than it would by chance. Those that judge a speed
are left out. `--seed N` among the first words repeats a run as far as a machine can.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_STARTS_S = 3.0  # until pytest has imported what it needs
_APART_S = (0.02, 0.3)  # between two stops
_SHARES = (0.02, 0.1, 0.4, 1.0)  # of the longest stop


def descendants(ancestor: int) -> list[int]:
    """Return what stems from a process and runs, which is not to be stopped twice."""
    below: dict[int, list[int]] = defaultdict(list)
    running = set()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            below[int(parent)].append(int(place.name))
            if state in "RSD":  # a test may have stopped it itself
                running.add(int(place.name))
    found, left = [], [*below[ancestor]]
    while left:
        found.append(left.pop())
        left += below[found[-1]]
    return [pid for pid in found if pid in running]


def stop(pid: int, for_s: float) -> None:
    """Let a process stand still; it goes on even if this is interrupted."""
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(for_s)
    finally:
        os.kill(pid, signal.SIGCONT)


def stop_some(ancestor: subprocess.Popen[bytes], longest_s: float, seed: int) -> None:
    """Stop one process after the other until the ancestor has ended."""
    chance = random.Random(seed)
    time.sleep(_STARTS_S)
    while ancestor.poll() is None:
        pids = descendants(ancestor.pid)
        if pids:
            pid = chance.choice(pids)
            with suppress(ProcessLookupError):
                stop(pid, longest_s * chance.choice(_SHARES))
        time.sleep(chance.uniform(*_APART_S))


def main(words: list[str]) -> int:
    """Run pytest with all but our own words; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="repeats a run as far as it can be")
    parser.add_argument("seconds", type=float, help="the longest stop")
    parser.add_argument("asked", nargs=argparse.REMAINDER, help="pytest's own words")
    own = parser.parse_args(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what stands goes on
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
    with subprocess.Popen([*pytest, "-m", "not alone", *own.asked]) as running:
        stop_some(running, own.seconds, own.seed)
    return running.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
