"""Records: the raw facts of a run, as they go to disk; every metric is derived from them, later.

A run's journal is a file of JSON lines, appended to as things happen. Each line is one `Entry`. A
process killed at any moment leaves at worst one torn last line, which readers leave out. All times
are nanoseconds of one monotonic clock, counted from the start of the run.

Format versions:
    1 (November 2026): the first. Since then, further kinds of lines: "scrape",
        "gpu" and "calibration"; "share-end", "worker-host", and files beside the journal,
        journal-0.jsonl and on, in which the workers of a level write its requests and ticks.
"""

import contextlib
import heapq
import os
from array import array
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmdyno.errors import StorageError

JOURNAL_VERSION = 1

COMPLETED, FAILED, CUT = 0, 1, 2
OUTCOMES = ("completed", "failed", "cut")
LAG_PERIOD_S = 0.02  # how often the client asks its event loop whether it is late


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The first line: what is being run, where and when."""

    version: int = JOURNAL_VERSION
    run: str
    started: str  # wall clock, ISO 8601 with zone; the only wall-clock time in the journal
    spec: dict[str, Any]
    environment: dict[str, Any]


class LevelStarted(msgspec.Struct, frozen=True, kw_only=True, tag="level"):
    """A load point begins."""

    level: int
    users: int | None  # None: an open loop, whose requests come when they are due
    start_ns: int
    ramp_ns: int
    repeat: int = 0  # which time this load point is run, from 0
    arrival: str = "closed"
    rate: float | None = None  # of an open loop, requests per second
    max_concurrency: int | None = None
    workers: int = 1  # processes that share it: request n is by worker n mod so many


class Record(msgspec.Struct, frozen=True, kw_only=True, tag="request", omit_defaults=True):
    """The raw facts of one request. `sent_ns` counts from the run's start, the rest from sent."""

    level: int
    request: int  # in order of sending within the level, from 0
    user: int
    prompt: int  # which item of the workload
    due_ns: int
    sent_ns: int
    end_ns: int  # the body's end, or the failure, since sent
    outcome: str
    error: str = ""  # the error's class when it failed: see faults.FAULTS
    detail: str = ""  # the server's words or ours, cut short
    status: int = 0  # HTTP status, 0 when none came
    finish: str = ""  # the server's finish reason
    first_byte_ns: int = -1  # since sent; -1: none came
    gaps_ns: tuple[int, ...] = ()  # token-carrying reads: sent → first, then read → next read
    tokens: tuple[int, ...] = ()  # tokens in each of those reads; empty: one in each
    input_tokens: int = -1  # as the server counts them; -1: it did not say
    output_tokens: int = 0
    source: str = "chunks"  # where output_tokens comes from
    session: int = -1  # which one of the level; -1: the request stands alone
    turn: int = 0
    reads: int = 0  # all reads of this response, also those without tokens
    # Only where the server counted nothing, for bench/recount.py: what each of those reads
    # brought, and what was asked. A later record of the same request takes this one's place.
    texts: tuple[str, ...] = ()
    input_text: str = ""


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """How the client itself was doing at one moment of a level."""

    level: int
    t_ns: int  # since the run's start
    users: int
    in_flight: int
    cpu_s: float  # of this process since the level's start
    waiting: int = 0  # due, yet without a place under --max-concurrency
    worker: int = 0  # whose tick it is
    reads: int = 0  # that have arrived since the level's start
    loop_lags_us: tuple[int, ...] = ()  # how late the event loop woke up, each since the last tick


class LevelEnded(msgspec.Struct, frozen=True, kw_only=True, tag="level-end"):
    """A load point is over; `full_until_ns` is when the load began to fall."""

    level: int
    end_ns: int
    full_until_ns: int
    interrupted: bool = False
    stopped: str = ""  # why it ended early, if too many requests failed
    unsent: int = 0  # due, but still waiting for a place when no new request could start


class ShareEnded(msgspec.Struct, frozen=True, kw_only=True, tag="share-end"):
    """A worker has done its share of a level; the parent makes the LevelEnded of all of them."""

    level: int
    worker: int
    end_ns: int
    full_until_ns: int
    unsent: int


class WorkerHost(msgspec.Struct, frozen=True, kw_only=True, tag="worker-host"):
    """On which other machine a worker is; again at the level's end, with the clock's drift."""

    level: int
    worker: int
    host: str
    clock_uncertainty_ns: int  # of its times, which are in the run's: plus or minus
    clock_drift_ns: int | None = None  # since the level's start, also plus or minus that


class Calibration(msgspec.Struct, frozen=True, kw_only=True, tag="calibration"):
    """What the client itself was worth on this machine just before the run."""

    ttft_floor_ms_p50: float  # of its own in a TTFT, against a server of known timing
    ttft_floor_ms_p99: float
    itl_floor_ms_p99: float
    events_per_s_max: float  # what a core would do, by the CPU time that an event cost


class Scrape(msgspec.Struct, frozen=True, kw_only=True, tag="scrape"):
    """What the server said of itself at one moment: before, during or after a level."""

    level: int
    t_ns: int
    moment: Literal["before", "during", "after"]
    kind: str  # of the server, told by the names of its metrics
    values: dict[str, float]  # under our names (server_page.py); counters since its start


class GpuSample(msgspec.Struct, frozen=True, kw_only=True, tag="gpu"):
    """How one GPU of this machine was doing at one moment of a level."""

    level: int
    t_ns: int
    gpu: int
    use: float | None  # share of the time in which a kernel ran
    memory_mib: float | None
    power_w: float | None
    clock_mhz: float | None
    temperature_c: float | None
    throttle: int  # the driver's bits for why the clock is not higher


Entry = (
    Opened
    | LevelStarted
    | Record
    | Tick
    | LevelEnded
    | ShareEnded
    | WorkerHost
    | Calibration
    | Scrape
    | GpuSample
)

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class Journal:
    """The append-only file of a run. A line is with the operating system when append() returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}.") from error

    def append(self, entry: Entry) -> None:
        """Append one line.

        Raises:
            StorageError: the disk is full or gone; what was written before is safe.
        """
        line = self._encoder.encode(entry) + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            # Should there be room again, what is written next must not be the end of this line.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}. What was measured before is kept."
            ) from error

    def close(self) -> None:
        """Bring the file to the disk and close it.

        Raises:
            StorageError: the disk did not take what it had seemed to take.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}.") from error
        finally:
            os.close(self._file)


def worker_journal(path: Path, worker: int) -> Path:
    """Return where a worker writes, beside the journal of the run."""
    return path.with_name(f"{path.stem}-{worker}{path.suffix}")


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal and of its workers' files, leaving out torn last lines.

    In order of time, but for the records whose tokens were not counted again: they come last.

    Raises:
        StorageError: there is no such file, or a line other than the last one cannot be read.
    """
    uncounted: dict[tuple[int, int], Record] = {}
    for entry in _read_all(path):
        if isinstance(entry, Record):
            if entry.texts:
                uncounted[entry.level, entry.request] = entry
                continue
            if uncounted:
                uncounted.pop((entry.level, entry.request), None)
        yield entry
    yield from uncounted.values()


def _read_all(path: Path) -> Iterator[Entry]:
    """Yield what the run's own process and its workers wrote as one process would have written it.

    At equal times a worker's entry comes first: the journal has what was made of it later.
    """
    workers = [
        file
        for file in path.parent.glob(f"{path.stem}-*{path.suffix}")
        if file.stem.removeprefix(f"{path.stem}-").isdecimal()
    ]
    own = _read_lines(path)
    if not workers:
        return own
    opened = list(islice(own, 1))  # before anything of a worker, so that there is a run at all
    timed = [_timed(_read_lines(file)) for file in sorted(workers)]
    merged = heapq.merge(*timed, _timed(own), key=lambda pair: pair[0])
    return chain(opened, (entry for _, entry in merged))


def _timed(entries: Iterator[Entry]) -> Iterator[tuple[int, Entry]]:
    """Yield each entry with when it was written: not before those that stand before it."""
    latest_ns = 0
    for entry in entries:
        latest_ns = max(latest_ns, _moment_ns(entry))
        yield latest_ns, entry


def _moment_ns(entry: Entry) -> int:
    match entry:
        case LevelStarted():
            return entry.start_ns
        case Record():
            return entry.sent_ns + entry.end_ns
        case Tick() | Scrape() | GpuSample():
            return entry.t_ns
        case LevelEnded() | ShareEnded():
            return entry.end_ns
        case _:  # the first lines of a journal
            return 0


class Follower:
    """Reads a growing file of entries: what has been added since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new_entries(self) -> list[Entry]:
        """Return the entries of the lines that have become whole."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_decoder.decode(line) for line in whole.splitlines()]


def _read_lines(path: Path) -> Iterator[Entry]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield _decoder.decode(line)
            except msgspec.MsgspecError as error:
                if not line.endswith(b"\n"):
                    return
                raise StorageError(
                    f"{path}, line {number}: not a journal entry: {error}"
                ) from error


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a level that counts, both ends included, in ns since the run's start."""

    start_ns: int
    end_ns: int
    steady: bool = False  # whether ramp and drain are left out
    method: str

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A level's records as columns: one array an attribute, times in ns.

    Per request: due_ns and sent_ns since the run's start; ttft_ns and last_ns since sent (-1: no
    token came); end_ns since sent.
    Per token-carrying read: read_ns since the run's start, read_gap_ns since the read before (or
    since sent, for the first), read_tokens, read_later (not the first of its request), read_timed
    (its request did not fail, so that its gaps count), read_request (the request's number).
    """

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    ttft_ns: NDArray[np.int64]
    last_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    outcome: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    first_tokens: NDArray[np.int64]
    reads: NDArray[np.int64]
    read_ns: NDArray[np.int64]
    read_gap_ns: NDArray[np.int64]
    read_tokens: NDArray[np.int64]
    read_later: NDArray[np.bool_]
    read_timed: NDArray[np.bool_]
    read_request: NDArray[np.int64]


class Collector:
    """Turns a level's records into columns without keeping the records themselves."""

    def __init__(self) -> None:
        self._per_request = array("q")
        self._gap_ns = array("q")
        self._read_tokens = array("q")
        self._reads_of_request = array("q")

    def add(self, record: Record) -> None:
        """Take in one record."""
        tokens = record.tokens or (1,) * len(record.gaps_ns)
        has_tokens = bool(record.gaps_ns)
        self._per_request.extend(
            (
                record.sent_ns,
                record.gaps_ns[0] if has_tokens else -1,
                sum(record.gaps_ns) if has_tokens else -1,
                record.end_ns,
                OUTCOMES.index(record.outcome),
                record.input_tokens,
                record.output_tokens,
                tokens[0] if has_tokens else 0,
                record.reads,
                record.due_ns,
                record.request,
            )
        )
        self._gap_ns.extend(record.gaps_ns)
        self._read_tokens.extend(tokens)
        self._reads_of_request.append(len(record.gaps_ns))

    def columns(self) -> Columns:
        """Return everything taken in so far."""
        request = np.array(self._per_request, dtype=np.int64).reshape(-1, 11).T
        gap_ns = np.array(self._gap_ns, dtype=np.int64)
        counts = np.array(self._reads_of_request, dtype=np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        starts = np.cumsum(counts) - counts
        # Running sums within each request: the sum over everything less what came before it.
        total = np.cumsum(gap_ns)
        first = starts[counts > 0]  # index of each request's first read
        later = np.ones(len(gap_ns), dtype=bool)
        later[first] = False
        since_sent = total - np.repeat((total - gap_ns)[first], counts[counts > 0])
        return Columns(
            due_ns=request[9],
            sent_ns=request[0],
            ttft_ns=request[1],
            last_ns=request[2],
            end_ns=request[3],
            outcome=request[4],
            input_tokens=request[5],
            output_tokens=request[6],
            first_tokens=request[7],
            reads=request[8],
            read_ns=request[0][owner] + since_sent,
            read_gap_ns=gap_ns,
            read_tokens=np.array(self._read_tokens, dtype=np.int64),
            read_later=later,
            read_timed=request[4][owner] != FAILED,
            read_request=request[10][owner],
        )
