"""Measures the client: our own load generator against a server whose timing is known exactly.

A short calibration before a benchmark says how much of its figures is the client's own delay, and
how many more events the client could handle; `dyno selftest` (selftest.py) measures it in detail.
Both go the same way as a benchmark, level → journal → columns, in this process and on its event
loop. The server is a streamer (streamer/server.py) in its own process, which ends before the
benchmark begins.

Accuracy is the measured time minus the streamer's configured time minus its own reported lateness.
It subtracts quantile from quantile, which is right if the two are not correlated.
Capacity is events (token-carrying reads) per second of CPU time. Events per second of wall clock
would depend on the streamer's speed and on other processes; CPU time is the client's own.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np

from llmdyno import endpoints, spec, streamer, workload
from llmdyno.errors import TargetError
from llmdyno.load.level import Level, rare_collections
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.processes.starting import starting
from llmdyno.records.entries import COMPLETED, Calibration, Opened
from llmdyno.records.journal import Journal
from llmdyno.results.facts import LevelFacts, read_run
from llmdyno.results.stats import STATISTICS
from llmdyno.units import Lengths
from llmdyno.wire.connect import ConnectError, connect
from llmdyno.wire.exchange import Meter
from llmdyno.wire.request import get
from llmdyno.wire.target import Target, parse_url
from llmdyno.workload.prompts import Prompts

_START_S = 15.0
_STOP_S = 5.0
_TRIES = 2


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The timing that the streamer is configured with."""

    ttft_s: float
    itl_s: float


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One load against the streamer: a closed loop without think time."""

    users: int
    tokens: int  # of each answer
    duration_s: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The client's figures for one load, compared with the streamer's truth."""

    users: int
    requests: int
    tokens: int
    tokens_lost: int  # tokens sent by the streamer minus tokens counted by the client
    ttft_error_ms_p50: float
    ttft_error_ms_p99: float
    itl_error_ms_p50: float
    itl_error_ms_p99: float
    streamer_late_ms_p50: float
    streamer_late_ms_p99: float
    events_per_s: float
    events_per_s_max: float
    cpu_us_per_token: float


# Before a benchmark: few users show the client's smallest delay, many the cost of an event.
_TIMING = Timing(ttft_s=0.02, itl_s=0.008)
_FLOOR = Shape(users=8, tokens=8, duration_s=0.8)
_COST = Shape(users=96, tokens=48, duration_s=0.8)


async def calibrate() -> Calibration | None:
    """Measure the client, which takes some two seconds, and return the journal's entry.

    None: the streamer did not start or answer, and did not when it was tried again, as on a machine
    that is far too busy. That is no fault of the server that is to be measured.

    Raises:
        ServerError: the system starts no further process.
        StorageError: the temporary folder cannot be written.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(TargetError):
            return await _calibrated()
    return None


async def _calibrated() -> Calibration:
    async with streaming(_TIMING) as target:
        floor = await reading(target, _TIMING, _FLOOR)
        cost = await reading(target, _TIMING, _COST)
    return Calibration(
        ttft_floor_ms_p50=floor.ttft_error_ms_p50,
        ttft_floor_ms_p99=floor.ttft_error_ms_p99,
        itl_floor_ms_p99=floor.itl_error_ms_p99,
        events_per_s_max=cost.events_per_s_max,
    )


@contextlib.asynccontextmanager
async def streaming(timing: Timing) -> AsyncIterator[Target]:
    """Run a streamer in a child process during the `with`; no streamer outlives this process.

    Raises:
        TargetError: the streamer does not start.
        ServerError: the system starts no further process.
    """
    arguments = ("--ttft", f"{timing.ttft_s * 1e3:g}ms", "--itl", f"{timing.itl_s * 1e3:g}ms")
    with starting("The streamer that measures the client"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llmdyno.streamer",
            "--until-eof",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    assert process.stdout is not None
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
            port = json.loads(line)["port"]
        except (TimeoutError, ValueError) as error:
            raise TargetError(
                "the streamer that measures the client did not start"
                f" (python -m llmdyno.streamer {' '.join(arguments)})."
            ) from error
        yield parse_url(f"http://127.0.0.1:{port}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def reading(target: Target, timing: Timing, shape: Shape) -> Reading:
    """Put one load on a streamer, wait for its end, and compare the figures with the truth.

    Args:
        target: the streamer.
        timing: its configured timing.
        shape: the load.

    Raises:
        TargetError: the streamer does not answer.
        StorageError: the temporary folder cannot be written.
    """
    before = await _truth(target)
    facts, cpu_s = await _level(target, shape)
    after = await _truth(target)
    columns = facts.columns
    done = columns.outcome == COMPLETED
    ttft_ms = columns.ttft_ns[done] / 1e6
    timed = columns.read_later & columns.read_timed
    gap_ms = columns.read_gap_ns[timed] / 1e6
    expected_ms = columns.read_tokens[timed] * timing.itl_s * 1e3
    late = {stat: after["late_ms"][stat] or 0.0 for stat in ("p50", "p99")}
    tokens = int(columns.output_tokens.sum())
    events = len(columns.read_ns)
    if not len(ttft_ms) or not len(gap_ms):
        raise TargetError("the streamer that measures the client answered no request.")

    def beyond(errors_ms: Any, stat: str) -> float:
        quantile = STATISTICS[stat].of(errors_ms)
        return round(max(0.0, quantile - late[stat]), 4)

    ttft_error_ms = ttft_ms - timing.ttft_s * 1e3
    itl_error_ms = np.abs(gap_ms - expected_ms)
    span_s = float(columns.read_ns.max() - columns.read_ns.min()) / 1e9
    return Reading(
        users=shape.users,
        requests=int(done.sum()),
        tokens=tokens,
        tokens_lost=after["tokens"] - before["tokens"] - tokens,
        ttft_error_ms_p50=beyond(ttft_error_ms, "p50"),
        ttft_error_ms_p99=beyond(ttft_error_ms, "p99"),
        itl_error_ms_p50=beyond(itl_error_ms, "p50"),
        itl_error_ms_p99=beyond(itl_error_ms, "p99"),
        streamer_late_ms_p50=late["p50"],
        streamer_late_ms_p99=late["p99"],
        events_per_s=round(events / max(span_s, 1e-9), 1),
        events_per_s_max=round(events / max(cpu_s, 1e-9), 1),
        cpu_us_per_token=round(cpu_s / tokens * 1e6, 2),
    )


async def _level(target: Target, shape: Shape) -> tuple[LevelFacts, float]:
    """Run a level as a benchmark does; return the facts of its journal, and its CPU time in s."""
    load = spec.Load(
        users=(shape.users,),
        duration_s=shape.duration_s,
        ramp_s=shape.duration_s / 4,
        think_s=0.0,
        grace_s=_STOP_S,
        interval_s=1.0,
    )
    plan = Plan(
        level=0,
        users=shape.users,
        load=load,
        target=target,
        endpoint=endpoints.load(streamer.ENDPOINT),
        model="streamer",
    )
    prompts = Prompts(
        spec.Workload(
            name=workload.implied({"isl"}),
            isl=Lengths("fixed", 16),
            osl=Lengths("fixed", shape.tokens),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        try:
            journal.append(Opened(run="calibration", started="", spec={}, environment={}))
            recorder = Recorder(
                sink=journal.append,
                zero_ns=perf_counter_ns(),
                meter=Meter(),
                progress=Progress(),
            )
            level = Level(plan, prompts, recorder)
            with rare_collections():
                await level.run()
        finally:
            journal.close()
        facts = read_run(journal.path).levels[0]
    return facts, max(tick.cpu_s for tick in facts.ticks)


async def _truth(target: Target) -> Any:
    """Ask the streamer what it sent and how late its writes were."""
    try:
        connection = await connect(target, Meter())
    except ConnectError as error:
        raise TargetError(f"the streamer that measures the client has gone: {error}.") from error
    response = await get(connection, target, "/truth")
    connection.close()
    if response.status != 200:
        raise TargetError(
            f"the streamer that measures the client does not answer ({response.error})."
        )
    return json.loads(response.body())
