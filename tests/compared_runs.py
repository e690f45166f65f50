"""Runs to compare, made without a server: speed, load, work and place are what a test says."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from llmdyno import store
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.sides import Side, Start

_MS = 1_000_000
LENGTH = {"shape": "fixed", "a": 30.0, "b": 0.0}
SPEC: dict[str, Any] = {
    "url": "http://127.0.0.1:8000",
    "endpoint": "openai-chat",
    "model": "m",
    "load": {"users": [2], "arrival": "closed", "interval_s": 5.0, "duration_s": 20.0},
    "workload": {
        "name": "synthetic",
        "isl": LENGTH,
        "osl": {**LENGTH, "a": 10.0},
        "seed": 0,
        "dataset": None,
    },
    "slos": [],
}
PLACE: dict[str, Any] = {
    "llmdyno": "0.2.0",
    "python": "CPython 3.11.7",
    "os": "Debian GNU/Linux 12",
    "kernel": "6.1.0",
    "cpu": {"model": "EPYC", "cores_usable": 16, "quota_cores": None, "governor": "performance"},
    "memory_bytes": 64 << 30,
    "load_average": [0.1, 0.1, 0.1],
    "gpus": [],
    "packages": {"vllm": "0.11.0"},
    "packages_listed_by": "name",
}


def changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a copy of a document; `load__users=[4]` changes a value within."""
    made = copy.deepcopy(document)
    for path, value in changes.items():
        *holders, key = path.split("__")
        holder = made
        for name in holders:
            holder = holder[name]
        holder[key] = value
    return made


def write(
    folder: Path,
    *,
    slower: float = 0.0,
    users: tuple[int, ...] = (2,),
    rounds: int = 1,
    seconds: int = 20,
    seed: int = 0,
    input_tokens: int = 30,
    output_tokens: int = 10,
    source: str = "usage",
    failing: int = 0,
    started: str = "2026-11-29T03:00:00+00:00",
    spec: dict[str, Any] = SPEC,
    place: dict[str, Any] = PLACE,
    noise: float = 0.005,
    ramp_s: float = 0.0,
    swing: float = 0.0,
) -> Path:
    """Write the journal of a run whose requests take 50 ms and 20 ms a token, and vary a little.

    Args:
        folder: of the run.
        slower: by which share; one value for each round, if there are several.
        users: of its levels.
        rounds: of all levels.
        seconds: of a level.
        seed: of what varies.
        input_tokens: of each prompt.
        output_tokens: of each answer.
        source: by which they are counted.
        failing: of each so many requests one fails; 0: none.
        started: when.
        spec: of the run.
        place: its environment.
        noise: of the speed, from request to request, as a share.
        ramp_s: of each level.
        swing: of the speed, as a share, over two thirds of a level.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    journal = Journal(folder / store.JOURNAL)
    journal.append(Opened(run=folder.name, started=started, spec=spec, environment=place))
    start_ns = 0
    for number in range(rounds * len(users)):
        count, repeat = users[number % len(users)], number // len(users)
        journal.append(
            LevelStarted(
                level=number,
                users=count,
                start_ns=start_ns,
                ramp_ns=int(ramp_s * 1000 * _MS),
                repeat=repeat,
            )
        )
        end_ns = start_ns + seconds * 1000 * _MS
        due = []
        for user in range(count):
            at_ns = start_ns + int(rng.uniform(0, 20) * _MS)
            while at_ns < end_ns:
                turn = np.sin(3 * np.pi * (at_ns - start_ns) / (end_ns - start_ns))
                speed = (1 + slower) * (1 + noise * rng.normal()) * (1 + swing * turn)
                gaps = speed * np.array([50.0, *[20.0] * (output_tokens - 1)])
                due.append((at_ns, user, gaps))
                at_ns += int(gaps.sum() * _MS)
        for request, (sent_ns, user, gaps) in enumerate(sorted(due, key=lambda one: one[0])):
            took_ns = int(gaps.sum() * _MS)
            fails = failing and request % failing == failing - 1
            journal.append(
                Record(
                    level=number,
                    request=request,
                    user=user,
                    prompt=request,
                    due_ns=sent_ns,
                    sent_ns=sent_ns,
                    end_ns=took_ns,
                    outcome="failed" if fails else "completed",
                    error="http-500" if fails else "",
                    status=500 if fails else 200,
                    finish="stop",
                    answered_by=spec.get("model") or "",
                    source=source,
                    input_tokens=input_tokens,
                    output_tokens=0 if fails else output_tokens,
                    reads=output_tokens,
                    gaps_ns=() if fails else tuple(int(gap * _MS) for gap in gaps),
                )
            )
        start_ns = end_ns + 1000 * _MS  # what was asked near the end is answered after it
        journal.append(LevelEnded(level=number, end_ns=start_ns, full_until_ns=end_ns))
    journal.close()
    return folder


def side(folder: Path, name: str, *, runs: int = 1, **how: Any) -> Side:
    """Return a side of equal runs; `started_s` says when each of several began."""
    moments = how.pop("started_s", [0] * runs)
    seed = how.pop("seed", 0)
    starts = [
        Start(
            write(
                folder / f"{name}{number}",
                seed=seed + number,
                started=f"2026-11-29T03:{moments[number]:02}:00+00:00",
                **how,
            )
        )
        for number in range(runs)
    ]
    return Side(name, "run" if runs == 1 else "rounds of runs", starts)
