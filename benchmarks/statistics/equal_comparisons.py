"""How often does `dyno compare` call equal runs different, and how often does it see 3 %?

    python benchmarks/statistics/equal_comparisons.py [--pairs 200] [--seconds 40] [--only quiet]

Each comparison is of journals that are made for it alone, and takes the road of the command: from
the journal to the sentence on top. The server of these runs is as slow as a factor says that is
correlated in time (AR(1), a second a step), may walk from run to run, and has an offset that a
start leaves behind. Beside the sentence stands how often any row at all was called different, and
the mean half of the token rate's interval.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmdyno import store
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results import comparison
from llmdyno.results.sides import Side, Start

_MS = 1_000_000
_USERS, _TOKENS, _TTFT_MS, _ITL_MS = 4, 16, 50.0, 20.0


class World(NamedTuple):
    """How runs of one server differ, as shares of its speed."""

    noise: float  # inside a run, from second to second
    rho: float  # its autocorrelation
    start: float  # what a start leaves behind
    walk: float  # a second, and on into the next run


WORLDS = {
    "quiet": World(0.002, 0.0, 0.0, 0.0),
    "noise 3 %": World(0.03, 0.0, 0.0, 0.0),
    "noise 3 %, rho 0.6": World(0.03, 0.6, 0.0, 0.0),
    "noise 5 %, rho 0.9": World(0.05, 0.9, 0.0, 0.0),
    "noise 5 %, rho 0.983": World(0.05, 0.983, 0.0, 0.0),  # a memory of a minute
    "start 0.5 %": World(0.01, 0.6, 0.005, 0.0),
    "start 1 %": World(0.01, 0.6, 0.01, 0.0),
    "walk 0.2 % a second": World(0.01, 0.6, 0.0, 0.002),
}


class Server:
    """A server that is never equally fast."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = np.random.default_rng(seed)
        self._level = 0.0

    def run(self, folder: Path, *, seconds: int, slower: float = 0.0, number: int = 0) -> Path:
        """Write the journal of a run; return its folder."""
        world, rng = self._world, self._rng
        steps = rng.normal(0, world.noise * (1 - world.rho**2) ** 0.5, seconds + 5)
        noise = np.zeros(seconds + 5)
        noise[0] = rng.normal(0, world.noise)
        for second in range(1, len(noise)):
            noise[second] = world.rho * noise[second - 1] + steps[second]
        drift = self._level + np.cumsum(rng.normal(0, world.walk, seconds + 5))
        self._level = float(drift[-1])
        speed = np.exp(noise + drift + rng.normal(0, world.start) + np.log1p(slower))
        folder.mkdir(parents=True)
        journal = Journal(folder / store.JOURNAL)
        journal.append(
            Opened(
                run=folder.name,
                started=f"2026-11-29T03:{number // 60:02}:{number % 60:02}+00:00",
                spec={"load": {"interval_s": 5.0, "duration_s": seconds}},
                environment={},
            )
        )
        journal.append(LevelStarted(level=0, users=_USERS, start_ns=0, ramp_ns=0))
        for record in self._records(speed, seconds):
            journal.append(record)
        end_ns = seconds * 1000 * _MS
        journal.append(LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns))
        journal.close()
        return folder

    def _records(self, speed: np.ndarray, seconds: int) -> list[Record]:
        made = []
        for user in range(_USERS):
            at_ms = self._rng.uniform(0, _ITL_MS)
            while at_ms < seconds * 1000:
                slow = speed[int(at_ms / 1000)]
                own = self._rng.gamma(20.0, 0.05, _TOKENS)
                gaps = slow * own * np.array([_TTFT_MS, *[_ITL_MS] * (_TOKENS - 1)])
                sent_ns, took_ms = int(at_ms * _MS), float(gaps.sum())
                at_ms += took_ms
                if at_ms < seconds * 1000:
                    made.append((sent_ns, user, took_ms, gaps))
        made.sort(key=lambda one: one[0])
        return [
            Record(
                level=0,
                request=number,
                user=user,
                prompt=number,
                due_ns=sent_ns,
                sent_ns=sent_ns,
                end_ns=int(took_ms * _MS),
                outcome="completed",
                status=200,
                finish="stop",
                source="usage",
                input_tokens=30,
                output_tokens=_TOKENS,
                reads=_TOKENS,
                gaps_ns=tuple(int(gap * _MS) for gap in gaps),
            )
            for number, (sent_ns, user, took_ms, gaps) in enumerate(made)
        ]


def compared(
    server: Server, folder: Path, runs: int, seconds: int, slower: float
) -> tuple[str, list[dict[str, object]]]:
    """Compare so many runs a side, in the order A B B A; return the verdict and the rows."""
    sides: tuple[list[Start], list[Start]] = ([], [])
    for number in range(2 * runs):
        after = number % 4 in {1, 2}
        place = server.run(
            folder / str(number), seconds=seconds, slower=slower * after, number=number
        )
        sides[after].append(Start(place))
    before, after_side = (
        Side(name, "run", starts) for name, starts in zip("AB", sides, strict=True)
    )
    (found,) = comparison.document(before, [after_side])["comparisons"]
    return found["verdict"], found["rows"]


def rates(world: World, *, pairs: int, runs: int, seconds: int, slower: float) -> Sequence[float]:
    """Return how often the sentence, and any row, calls two sides different, and a half width."""
    server = Server(world, seed=runs)
    sentences = any_row = 0
    widths = []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            verdict, rows = compared(server, Path(folder), runs, seconds, slower)
        different = {"better", "worse"}
        sentences += verdict in {*different, "mixed"}
        any_row += any(row["verdict"] in different for row in rows)
        low, high = next(row["ci95_pct"] for row in rows if row["metric"] == "token_rate")
        widths.append((high - low) / 2)
    return sentences / pairs, any_row / pairs, float(np.mean(widths))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Equal runs, and runs 3 % apart, compared.")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 3])
    parser.add_argument("--only", choices=WORLDS, nargs="*", default=list(WORLDS))
    given = parser.parse_args()
    print(
        f"{'called different':<22}{'runs':>5}{'equal':>8}{'any row':>9}{'3 % apart':>11}{'half':>8}"
    )
    for name in given.only:
        for runs in given.runs:
            sizes = {"pairs": given.pairs, "runs": runs, "seconds": given.seconds}
            equal = rates(WORLDS[name], **sizes, slower=0.0)
            apart = rates(WORLDS[name], **sizes, slower=0.03)
            print(
                f"{name:<22}{runs:>5}{equal[0]:>8.1%}{equal[1]:>9.1%}{apart[0]:>11.1%}"
                f"{equal[2]:>6.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
