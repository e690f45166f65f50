"""A crew: the workers of one level, started together, followed by what they write, and ended.

A level in a crew is a level like any other to bench/run.py: it runs, can be interrupted, and leaves
records. Each worker (worker.py) appends to a file of its own; we read those files as they grow, for
the display, the limits on errors and the end. So nothing measured passes from process to process,
and a worker, or we, may die at any moment: what was finished lies on the disk.

A worker that dies, or is silent for long, ends the level: the load is no longer what was asked for.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Protocol

import msgspec

from llmdyno.load.level import ErrorLimits, Plan, Progress
from llmdyno.load.plan import Point
from llmdyno.load.worker import READY, Assignment, environment
from llmdyno.records.entries import (
    Entry,
    LevelEnded,
    LevelStarted,
    Record,
    ShareEnded,
    Tick,
    WorkerHost,
)
from llmdyno.records.journal import Follower
from llmdyno.wire.http1 import Meter
from llmdyno.workload.share import Share

LOOK_S = 0.2  # how often their files are read
SILENT_S = 30.0  # a worker writes a tick a second
START_S = 60.0  # for a worker to be ready
STOP_S = 15.0  # for a worker to stop
LEAD_S = 0.1  # between our word and the moment at which all begin


class Worker(Protocol):
    """A worker, on this machine or on another one."""

    ended: str | None  # None: not yet; else in what way, empty: well
    host: str  # empty: this machine
    clock_uncertainty_ns: int  # of its times in ours

    async def ready(self) -> None:
        """Wait until it could begin, or has ended."""

    def begin(self, start_ns: int) -> None:
        """Let it begin at that moment, by our perf_counter_ns."""

    async def fetch(self) -> None:
        """Bring what it has written since into its file here."""

    def stop(self) -> None:
        """Let it cut what is in flight, and end."""

    async def clock_drift_ns(self) -> int | None:
        """Return by how much its clock has gone away from ours; None: it cannot be asked."""

    async def dismiss(self) -> None:
        """Leave nothing of it."""


class Site(Protocol):
    """Where workers run."""

    cores: int  # that they may have

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a worker for a share; it writes to the journal, times since zero_ns (ours)."""


class LocalWorker:
    """A worker in a process of this machine."""

    host = ""
    clock_uncertainty_ns = 0  # all processes of a machine have one clock

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.ended: str | None = None
        self._process = process
        self._waiting = asyncio.create_task(self._wait())

    async def ready(self) -> None:
        """Wait for its word."""
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != READY:
            await self._waiting

    def begin(self, start_ns: int) -> None:
        """Write the moment, but to none that has been stopped or is dead: `ended` says so."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(b"%d\n" % start_ns)

    async def fetch(self) -> None:
        """Do nothing: its file is here."""

    def stop(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def clock_drift_ns(self) -> int:
        """Return 0: it is the same clock."""
        return 0

    async def dismiss(self) -> None:
        """Kill it if it has not ended."""
        if self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._waiting

    async def _wait(self) -> None:
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip()
        status = await self._process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        last = said.splitlines()[-1] if said else ""
        self.ended = "" if not status else f"{how}: {last}" if last else how


class Here:
    """Workers on this machine."""

    def __init__(self, api_key: str | None, cores: int) -> None:
        self.cores = cores
        self._api_key = api_key

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a process, out of reach of the terminal's Ctrl-C: that is for us to pass on."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llmdyno.load.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=environment(self._api_key),
        )
        assert process.stdin is not None
        assignment = Assignment(point=point, share=share, zero_ns=zero_ns, journal=str(journal))
        process.stdin.write(msgspec.json.encode(assignment) + b"\n")
        return LocalWorker(process)


class Crew:
    """The workers of one level."""

    def __init__(
        self,
        plan: Plan,
        point: Point,
        site: Site,
        files: Sequence[Path],
        *,
        zero_ns: int,
        sink: Callable[[Entry], None],
        meter: Meter,
        progress: Progress,
    ) -> None:
        self._site = site
        # The limits on errors are for all workers together, so we watch them, not each worker.
        load = msgspec.structs.replace(point.spec.load, max_errors=None, max_error_rate=None)
        spec = msgspec.structs.replace(point.spec, load=load)
        self._point = msgspec.structs.replace(point, spec=spec)
        self._plan = plan
        self._zero_ns = zero_ns
        self._sink = sink
        self._meter = meter
        self._progress = progress
        self._files = files  # one a worker
        self._followers = [Follower(file) for file in files]
        self._limits = ErrorLimits(plan.load)
        self._workers: Sequence[Worker] = ()
        self._ticks: dict[int, Tick] = {}
        self._heard_s: dict[int, float] = {}
        self._done: dict[int, ShareEnded] = {}
        self._stopping = asyncio.Event()
        progress.duration_s = None if plan.load.ends_by_count else plan.load.duration_s
        progress.requests = plan.requests
        self.interrupted = False
        self.stopped = ""  # why it ended early, if the user did not end it
        self.uncounted = 0  # completed requests whose tokens the server did not count

    def interrupt(self) -> None:
        """End the level now; requests in flight are cut and recorded."""
        self.interrupted = True
        self._stopping.set()
        for worker in self._workers:
            worker.stop()

    async def run(self) -> None:
        """Run the level to its end."""
        try:
            self._workers = await asyncio.gather(
                *(
                    self._site.hire(
                        self._point,
                        Share(index=number, of=len(self._files)),
                        self._zero_ns,
                        file,
                    )
                    for number, file in enumerate(self._files)
                )
            )
            await self._assemble()
            start_ns = perf_counter_ns() + round(LEAD_S * 1e9)
            self._open(start_ns)
            self._name_hosts([None for _ in self._workers])
            for worker in self._workers:
                worker.begin(start_ns)
            await self._follow(start_ns)
            self._name_hosts(await self._drifts_ns())
            self._close()
        finally:
            await asyncio.gather(*(worker.dismiss() for worker in self._workers))

    async def _assemble(self) -> None:
        """Wait until all are ready, or the level is over before it began."""
        if self._stopping.is_set():
            self.interrupt()
        ready = [asyncio.create_task(worker.ready()) for worker in self._workers]
        all_ready = asyncio.create_task(asyncio.wait(ready))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait(
            {all_ready, stopping}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not all_ready.done():
            self._end_early(f"not every worker was ready within {START_S:g} s")
        for task in (*ready, all_ready, stopping):
            task.cancel()

    def _open(self, start_ns: int) -> None:
        plan = self._plan
        self._sink(
            LevelStarted(
                level=plan.level,
                users=None if plan.load.is_open else plan.users,
                start_ns=start_ns - self._zero_ns,
                ramp_ns=round(plan.load.ramp * 1e9),
                repeat=plan.repeat,
                arrival=plan.load.arrival,
                rate=plan.rate,
                max_concurrency=plan.load.max_concurrency,
                workers=len(self._files),
            )
        )

    def _name_hosts(self, drifts_ns: Sequence[int | None]) -> None:
        """Keep where the workers are, if not here, and how true their times are in ours."""
        for number, (worker, drift_ns) in enumerate(zip(self._workers, drifts_ns, strict=True)):
            if worker.host:
                self._sink(
                    WorkerHost(
                        level=self._plan.level,
                        worker=number,
                        host=worker.host,
                        clock_uncertainty_ns=worker.clock_uncertainty_ns,
                        clock_drift_ns=drift_ns,
                    )
                )

    async def _drifts_ns(self) -> list[int | None]:
        return await asyncio.gather(*(worker.clock_drift_ns() for worker in self._workers))

    async def _follow(self, start_ns: int) -> None:
        """Read what they write until all have ended."""
        self._heard_s = dict.fromkeys(range(len(self._workers)), monotonic())
        deadline_s: float | None = None
        while any(worker.ended is None for worker in self._workers):
            await asyncio.sleep(LOOK_S)
            await self._look()
            self._progress.elapsed_s = max(0.0, (perf_counter_ns() - start_ns) / 1e9)
            duration_s = self._progress.duration_s
            if duration_s is not None and self._progress.elapsed_s > duration_s:
                self._progress.phase = "finishing"
            if why := self._missing():
                self._end_early(why)
            if self.interrupted and deadline_s is None:
                deadline_s = monotonic() + STOP_S
            if deadline_s is not None and monotonic() > deadline_s:
                break
        await self._look()  # what the last of them wrote
        if why := self._missing():
            self._end_early(why)

    async def _look(self) -> None:
        await asyncio.gather(*(worker.fetch() for worker in self._workers))
        for number, follower in enumerate(self._followers):
            entries = follower.new_entries()
            if entries:
                self._heard_s[number] = monotonic()
            for entry in entries:
                self._take(entry)
        ticks = self._ticks.values()
        self._meter.reads = sum(tick.reads for tick in ticks)
        self._progress.users = sum(tick.users for tick in ticks)
        self._progress.in_flight = sum(tick.in_flight for tick in ticks)
        if self._plan.load.is_open:
            self._progress.waiting = sum(tick.waiting for tick in ticks)

    def _take(self, entry: Entry) -> None:
        match entry:
            case Record():
                self._progress.add(entry)
                self.uncounted += bool(entry.texts) and entry.outcome == "completed"
                if why := self._limits.reached_by(entry):
                    self._end_early(why)
            case Tick():
                self._ticks[entry.worker] = entry
            case ShareEnded():
                self._done[entry.worker] = entry

    def _missing(self) -> str:
        """Say which worker does not do its share, if one does not."""
        for number, worker in enumerate(self._workers):
            if number in self._done:
                continue
            if worker.ended is not None:
                return f"worker {number} {worker.ended or 'ended before its share was done'}"
            silent_s = monotonic() - self._heard_s[number]
            if silent_s > SILENT_S:
                return f"worker {number} has been silent for {silent_s:.0f} s"
        return ""

    def _end_early(self, why: str) -> None:
        if not self.interrupted:
            self.stopped = why
            self.interrupt()

    def _close(self) -> None:
        now_ns = perf_counter_ns() - self._zero_ns
        shares = self._done.values()
        complete = len(shares) == len(self._files)
        self._sink(
            LevelEnded(
                level=self._plan.level,
                end_ns=max(share.end_ns for share in shares) if complete else now_ns,
                # The load is full as long as no worker has begun to have less of it.
                full_until_ns=min((share.full_until_ns for share in shares), default=now_ns),
                interrupted=self.interrupted,
                stopped=self.stopped,
                unsent=sum(share.unsent for share in shares),
            )
        )


# What `--workers auto` takes for granted: more is seldom asked of a server, and half of what a core
# could do leaves room for bursts.
_TOKENS_PER_S_OF_USER = 100.0
_TOKENS_OF_REQUEST = 512.0
_SHARE_OF_CEILING = 0.5
_EVENTS_PER_S = 30_000.0  # of a core, where the client was not measured


def workers_for(plan: Plan, wanted: int | str, events_per_s_max: float | None, cores: int) -> int:
    """Return how many workers a level gets: as many as wanted, if each of them has something to do.

    Args:
        plan: the whole level.
        wanted: a number, or "auto": as many as the load may need and the cores allow.
        events_per_s_max: what a core was found to do.
        cores: that workers may have.
    """
    number = wanted
    if not isinstance(number, int):
        ceiling = _SHARE_OF_CEILING * (events_per_s_max or _EVENTS_PER_S)
        number = min(cores, math.ceil(_tokens_per_s(plan) / ceiling))
    parts = [plan.users if plan.due_s is None else len(plan.due_s)]
    parts += [part for part in (plan.requests, plan.load.max_concurrency) if part is not None]
    return max(1, min(number, *parts))


def _tokens_per_s(plan: Plan) -> float:
    """Return the most that a level is likely to bring."""
    if plan.due_s is None:
        return plan.users * _TOKENS_PER_S_OF_USER
    span_s = plan.due_s[-1] - plan.due_s[0] if plan.due_s else 0.0
    return len(plan.due_s) / max(span_s, 1.0) * _TOKENS_OF_REQUEST
