"""A crew: the workers of one level, which start together and write to a file each.

bench/run.py runs a crew as it runs a level: it can be interrupted, and it leaves records. Each
worker (worker.py) appends to its own file. The crew polls these files as they grow, for the
display, the limits on errors and the end. No measurement passes from process to process, so a
worker or the parent may die at any moment: finished requests are on the disk.

A worker that dies or is silent for long ends the level, because the load has become smaller.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Protocol

import msgspec

from llmdyno.load.clocks import Drift
from llmdyno.load.plan import Plan, Point
from llmdyno.load.progress import ErrorLimits
from llmdyno.load.recorder import Recorder
from llmdyno.load.worker import READY, Assignment, environment
from llmdyno.processes.starting import starting
from llmdyno.records.entries import Entry, LevelEnded, Record, ShareEnded, Tick, WorkerHost
from llmdyno.records.journal import Follower
from llmdyno.wire.headers import Header
from llmdyno.workload.share import Share

POLL_S = 0.2  # how often the workers' files are read
SILENT_S = 30.0  # a worker that writes nothing for this long is lost; it ticks once a second
START_S = 60.0  # for a worker to be ready
STOP_S = 15.0  # for a worker to stop
LEAD_S = 0.1  # from the order to begin to the moment at which all workers begin


class Worker(Protocol):
    """The interface of a worker, on this machine or on another one."""

    ended: str | None  # None: it runs; empty: it ended well; else how it ended
    host: str  # empty: this machine
    clock_uncertainty_ns: int  # the largest error of its times, converted to our clock

    async def ready(self) -> None:
        """Wait until it reports ready or has ended; `ended` says which."""

    def begin(self, start_ns: int) -> None:
        """Tell it to begin at that moment, in our perf_counter_ns; returns at once."""

    async def fetch(self) -> None:
        """Append the new part of its journal to its file on this machine.

        Raises:
            StorageError: the file cannot be written.
        """

    def stop(self) -> None:
        """Ask it to cut what is in flight and exit; returns at once."""

    async def clock_drift(self) -> Drift | None:
        """Return the change of its clock's offset since the start; None: it cannot be asked."""

    async def dismiss(self) -> None:
        """Kill it if it still runs, and wait for its end."""


class Site(Protocol):
    """A place where workers run: this machine, or a cluster."""

    cores: int  # the number of workers that can run at full speed

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a worker for a share of a load point; it returns before the worker is ready.

        Args:
            point: the load point.
            share: the worker's part of it.
            zero_ns: the zero of the journal's times, by our clock.
            journal: the worker's file on this machine.

        Raises:
            TargetError: the worker does not start.
            ServerError: the system starts no further process.
        """


class LocalWorker:
    """A worker in a process of this machine."""

    host = ""
    clock_uncertainty_ns = 0  # all processes of a machine have one clock

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.ended: str | None = None
        self._process = process
        self._waiting = asyncio.create_task(self._wait())

    async def ready(self) -> None:
        """Wait until it reports ready, or has ended."""
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != READY:
            await self._waiting

    def begin(self, start_ns: int) -> None:
        """Send the moment, unless the worker was stopped or is dead; `ended` reports that."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(b"%d\n" % start_ns)

    async def fetch(self) -> None:
        """Do nothing: the worker writes to its file on this machine."""

    def stop(self) -> None:
        """Close its standard input, which asks it to cut and exit; returns at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def clock_drift(self) -> Drift:
        """Return none: all processes of a machine have one clock."""
        return Drift(0, 0)

    async def dismiss(self) -> None:
        """Kill it if it still runs, and wait for its end."""
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


class LocalSite:
    """Starts workers as processes of this machine."""

    def __init__(self, secrets: Sequence[Header], cores: int) -> None:
        self.cores = cores
        self._secrets = secrets

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a process in its own session, so that Ctrl-C reaches it only through us."""
        with starting("A worker"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llmdyno.load.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=environment(self._secrets),
            )
        assert process.stdin is not None
        assignment = Assignment(point=point, share=share, zero_ns=zero_ns, journal=str(journal))
        process.stdin.write(msgspec.json.encode(assignment) + b"\n")
        return LocalWorker(process)


class _Member:
    """A worker of a crew, and its file as far as it was read."""

    def __init__(self, worker: Worker, file: Path) -> None:
        self.worker = worker
        self._follower = Follower(file)
        self._heard_s = monotonic()
        self.tick: Tick | None = None  # the last one
        self.end: ShareEnded | None = None

    def begin(self, start_ns: int) -> None:
        """Tell it to begin; its silence counts from now on."""
        self._heard_s = monotonic()
        self.worker.begin(start_ns)

    def new_entries(self) -> list[Entry]:
        """Return the entries that it has written since the last call."""
        entries = [*self._follower.new_entries()]
        if entries:
            self._heard_s = monotonic()
        for entry in entries:
            if isinstance(entry, Tick):
                self.tick = entry
            elif isinstance(entry, ShareEnded):
                self.end = entry
        return entries

    def missing(self) -> str:
        """Return why its share is not being run; empty if it is, or is done."""
        if self.end is not None:
            return ""
        if self.worker.ended is not None:
            return self.worker.ended or "ended before its share was done"
        silent_s = monotonic() - self._heard_s
        return f"has been silent for {silent_s:.0f} s" if silent_s > SILENT_S else ""


class Crew:
    """The workers of one level.

    Args:
        plan: of the whole level.
        point: from which each worker makes the plan of its share.
        site: where the workers run.
        files: the journals of the workers; their number is the number of workers.
        recorder: of the level.
    """

    def __init__(
        self, plan: Plan, point: Point, site: Site, files: Sequence[Path], recorder: Recorder
    ) -> None:
        self._site = site
        # The limits on errors count all workers together, so no worker judges its own errors.
        load = msgspec.structs.replace(point.spec.load, max_errors=None, max_error_rate=None)
        spec = msgspec.structs.replace(point.spec, load=load)
        self._point = msgspec.structs.replace(point, spec=spec)
        self._plan = plan
        self._recorder = recorder
        self._files = files
        self._limits = ErrorLimits(plan.load, plan.requests)
        self._members: Sequence[_Member] = ()
        self._stopping = asyncio.Event()
        recorder.progress.expect(plan)
        self.interrupted = False
        self.stopped = ""  # why it ended early if the user did not end it, else empty

    def interrupt(self) -> None:
        """End the level early; requests in flight are cut and recorded. Returns at once."""
        self.interrupted = True
        self._stopping.set()
        for member in self._members:
            member.worker.stop()

    async def run(self) -> None:
        """Run the level and wait for its end.

        Raises:
            TargetError: a worker does not start.
            StorageError: a worker's entries could not be written on this machine.
        """
        recorder = self._recorder
        try:
            self._members = await asyncio.gather(*map(self._hire, range(len(self._files))))
            await self._assemble()
            start_ns = recorder.now_ns() + round(LEAD_S * 1e9)
            recorder.note_start(self._plan, start_ns, len(self._files))
            self._name_hosts([None for _ in self._members])
            for member in self._members:
                member.begin(start_ns)
            await self._follow(start_ns)
            self._name_hosts(await self._drifts())
            self._close()
        finally:
            await asyncio.gather(*(member.worker.dismiss() for member in self._members))

    async def _hire(self, number: int) -> _Member:
        file, share = self._files[number], Share(index=number, of=len(self._files))
        worker = await self._site.hire(self._point, share, self._recorder.zero_ns, file)
        return _Member(worker, file)

    async def _assemble(self) -> None:
        """Wait until all workers are ready, or until the level was interrupted."""
        if self._stopping.is_set():
            self.interrupt()
        ready = [asyncio.create_task(member.worker.ready()) for member in self._members]
        all_ready = asyncio.create_task(asyncio.wait(ready))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait(
            {all_ready, stopping}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not all_ready.done():
            self._end_early(f"not every worker was ready within {START_S:g} s")
        for task in (*ready, all_ready, stopping):
            task.cancel()

    def _name_hosts(self, drifts: Sequence[Drift | None]) -> None:
        """Write to the journal where remote workers run and how exact their times are."""
        for number, (member, drift) in enumerate(zip(self._members, drifts, strict=True)):
            if member.worker.host:
                self._recorder.sink(
                    WorkerHost(
                        level=self._plan.level,
                        worker=number,
                        host=member.worker.host,
                        clock_uncertainty_ns=member.worker.clock_uncertainty_ns,
                        clock_drift_ns=drift and drift.ns,
                        clock_drift_uncertainty_ns=drift and drift.uncertainty_ns,
                    )
                )

    async def _drifts(self) -> list[Drift | None]:
        return await asyncio.gather(*(member.worker.clock_drift() for member in self._members))

    async def _follow(self, start_ns: int) -> None:
        """Poll the workers' files until all workers have ended."""
        recorder, progress = self._recorder, self._recorder.progress
        deadline_s: float | None = None
        while any(member.worker.ended is None for member in self._members):
            await asyncio.sleep(POLL_S)
            await self._poll()
            progress.elapsed_s = max(0.0, (recorder.now_ns() - start_ns) / 1e9)
            if progress.duration_s is not None and progress.elapsed_s > progress.duration_s:
                progress.phase = "finishing"
            self._end_if_one_is_missing()
            if self.interrupted and deadline_s is None:
                deadline_s = monotonic() + STOP_S
            if deadline_s is not None and monotonic() > deadline_s:
                break
        await self._poll()  # the last entries
        self._end_if_one_is_missing()
        if not self.interrupted:
            self.stopped = self._limits.reached(at_end=True)

    async def _poll(self) -> None:
        """Read the new entries of all workers, and update the display."""
        await asyncio.gather(*(member.worker.fetch() for member in self._members))
        for member in self._members:
            for entry in member.new_entries():
                if isinstance(entry, Record):
                    self._take(entry)
        ticks = [member.tick for member in self._members if member.tick is not None]
        progress = self._recorder.progress
        self._recorder.meter.reads = sum(tick.reads for tick in ticks)
        progress.users = sum(tick.users for tick in ticks)
        progress.in_flight = sum(tick.in_flight for tick in ticks)
        if self._plan.load.is_open:
            progress.waiting = sum(tick.waiting for tick in ticks)

    def _take(self, record: Record) -> None:
        self._recorder.progress.add(record)
        self._limits.count(record)
        if why := self._limits.reached():
            self._end_early(why)

    def _end_if_one_is_missing(self) -> None:
        for number, member in enumerate(self._members):
            if why := member.missing():
                self._end_early(f"worker {number} {why}")
                return

    def _end_early(self, why: str) -> None:
        if not self.interrupted:
            self.stopped = why
            self.interrupt()

    def _close(self) -> None:
        now_ns = self._recorder.since_zero(self._recorder.now_ns())
        ends = [member.end for member in self._members if member.end is not None]
        complete = len(ends) == len(self._files)
        self._recorder.sink(
            LevelEnded(
                level=self._plan.level,
                end_ns=max(end.end_ns for end in ends) if complete else now_ns,
                # The load is full until the first worker has less than its share.
                full_until_ns=min((end.full_until_ns for end in ends), default=now_ns),
                interrupted=self.interrupted,
                stopped=self.stopped,
                unsent=sum(end.unsent for end in ends),
                unsent_due_ns=tuple(sorted(chain.from_iterable(end.unsent_due_ns for end in ends))),
            )
        )


# Assumptions of `--workers auto`: few servers give a user more tokens a second, and half the
# capacity of a core leaves room for bursts.
_TOKENS_PER_S_OF_USER = 100.0
_TOKENS_OF_REQUEST = 512.0
_SHARE_OF_CEILING = 0.5
_EVENTS_PER_S = 30_000.0  # the capacity of a core if the client was not calibrated


def workers_for(plan: Plan, wanted: int | str, events_per_s_max: float | None, cores: int) -> int:
    """Return how many workers a level gets: the wanted number, but none without work.

    Args:
        plan: the whole level.
        wanted: a number, or "auto": as many as the load may need and the cores allow.
        events_per_s_max: the capacity of a core if the client was calibrated, else None.
        cores: the number of workers that can run at full speed.
    """
    number = wanted
    if not isinstance(number, int):
        ceiling = _SHARE_OF_CEILING * (events_per_s_max or _EVENTS_PER_S)
        number = min(cores, math.ceil(_tokens_per_s(plan) / ceiling))
    parts = [plan.users if plan.due_s is None else len(plan.due_s)]
    parts += [part for part in (plan.requests, plan.load.max_concurrency) if part is not None]
    return max(1, min(number, *parts))


def _tokens_per_s(plan: Plan) -> float:
    """Return the highest token rate that a level is likely to reach, in tokens per second."""
    if plan.due_s is None:
        return plan.users * _TOKENS_PER_S_OF_USER
    span_s = plan.due_s[-1] - plan.due_s[0] if plan.due_s else 0.0
    return len(plan.due_s) / max(span_s, 1.0) * _TOKENS_OF_REQUEST
