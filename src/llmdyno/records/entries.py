"""The entries of a journal: the raw facts of a run, one a line. Every metric is derived from them.

All times are nanoseconds of one monotonic clock, counted from the start of the run.

Format versions:
    1 (November 2026): the first. Since then, further kinds of lines: "scrape",
        "gpu", "cpu-energy" and "calibration"; "share-end", "worker-host", and files beside the
        journal, journal-0.jsonl and on, in which a level's workers write its requests and ticks;
        `unstreamed`, `oddities`, `model`, `answered_by`, `blocks` and `characters` of a request;
        `unsent_due_ns` of a level's end; "settled". At first `answered_by` was empty where the
        server named the model that was asked, too: nothing is known of such a record.
"""

from typing import Any, Literal

import msgspec

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


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """How long the run waited before a level for a server on which it had hung up."""

    level: int
    waited_ns: int
    answered_ns: int  # what the last short question took
    idle_ns: int  # what the quickest took, if one was answered before any load; -1: none was
    busy: bool  # the time for it was over, and the server as busy as before


class LevelStarted(msgspec.Struct, frozen=True, kw_only=True, tag="level"):
    """The journal's line at the beginning of one load point."""

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
    # Tokens that the server counts beyond output_tokens, and never streamed: hidden reasoning.
    unstreamed: int = 0
    asked_tokens: int = -1  # the length that was asked of the answer; -1: any
    source: str = "chunks"  # where output_tokens comes from
    oddities: tuple[str, ...] = ()  # what was odd about its stream: see wire/reply.py
    session: int = -1  # which one of the level; -1: the request stands alone
    turn: int = 0
    model: str = ""  # where the level asks several
    answered_by: str = ""  # the model that the server names; empty: it names none
    reads: int = 0  # all reads of this response, also those without tokens
    # Of a prompt whose beginning matters: blocks, and characters of its parts (prefixes.py).
    blocks: tuple[int, ...] = ()
    characters: tuple[int, ...] = ()
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
    waiting: int = 0  # requests due that wait for a slot (--max-concurrency)
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
    unsent: int = 0  # requests due that had no slot before the level ended
    unsent_due_ns: tuple[int, ...] = ()  # when each of them was due, since the run's start


class ShareEnded(msgspec.Struct, frozen=True, kw_only=True, tag="share-end"):
    """A worker has done its share of a level; the parent makes the LevelEnded of all of them."""

    level: int
    worker: int
    end_ns: int
    full_until_ns: int
    unsent: int
    unsent_due_ns: tuple[int, ...] = ()


class WorkerHost(msgspec.Struct, frozen=True, kw_only=True, tag="worker-host"):
    """On which other machine a worker is; again at the level's end, with the clock's drift."""

    level: int
    worker: int
    host: str
    clock_uncertainty_ns: int  # of its times, which are in the run's: plus or minus
    clock_drift_ns: int | None = None  # since the level's start
    clock_drift_uncertainty_ns: int | None = None  # of the drift: that of both comparisons


class Calibration(msgspec.Struct, frozen=True, kw_only=True, tag="calibration"):
    """How exact and how fast the client was on this machine, measured just before the run."""

    ttft_floor_ms_p50: float  # its own share of a TTFT, against a server of known timing
    ttft_floor_ms_p99: float
    itl_floor_ms_p99: float
    events_per_s_max: float  # that one core can handle, from the CPU time of an event


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
    energy_j: float | None = None  # the driver's counter, which began when the driver was loaded


class CpuEnergy(msgspec.Struct, frozen=True, kw_only=True, tag="cpu-energy"):
    """What one part of this machine's processors had used by one moment of a level."""

    level: int
    t_ns: int
    part: str  # the kernel's name and number of it: "package-0", "dram-1"
    energy_j: float  # since the level's first sample


Entry = (
    Opened
    | Settled
    | LevelStarted
    | Record
    | Tick
    | LevelEnded
    | ShareEnded
    | WorkerHost
    | Calibration
    | Scrape
    | GpuSample
    | CpuEnergy
)
