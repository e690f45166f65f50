"""A level's records as columns: what metrics are computed from."""

from array import array
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmdyno.faults import is_timeout
from llmdyno.records.entries import FAILED, OUTCOMES, Record


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a level that counts, both ends included, in ns since the run's start."""

    start_ns: int
    end_ns: int
    steady: bool = False  # whether ramp and drain are left out
    method: str

    @property
    def length_s(self) -> float:
        """How long the window is, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """What a GPU or a part of the processors had used, in J, at ascending times of a level."""

    source: str  # "gpu-0", "package-0"
    by: str  # "counter"; "power": integrated from samples of the power, for want of a counter
    t_ns: NDArray[np.int64]  # since the run's start
    joules: NDArray[np.float64]


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A level's records as columns: one array an attribute, times in ns.

    Per request: due_ns and sent_ns since the run's start; ttft_ns and last_ns since sent (-1: no
    token came); end_ns since sent; timed_out, 1 of a request that failed because it took too long.
    Per token-carrying read: read_ns since the run's start, read_gap_ns since the read before (or
    since sent, for the first), read_tokens, read_later (not the first of its request), read_timed
    (its request did not fail, so that its gaps count), read_request (the request's number).
    Beside them: unsent_due_ns, when each request was due that never got a slot, since the run's
    start; what the machine used meanwhile, and what it costs an hour, if that is known.
    """

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    ttft_ns: NDArray[np.int64]
    last_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    outcome: NDArray[np.int64]
    timed_out: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    asked_tokens: NDArray[np.int64]
    first_tokens: NDArray[np.int64]
    reads: NDArray[np.int64]
    read_ns: NDArray[np.int64]
    read_gap_ns: NDArray[np.int64]
    read_tokens: NDArray[np.int64]
    read_later: NDArray[np.bool_]
    read_timed: NDArray[np.bool_]
    read_request: NDArray[np.int64]
    unsent_due_ns: tuple[int, ...] = ()
    energy: tuple[Energy, ...] = ()
    price_per_h: float | None = None


# What a record adds to the columns of requests, in this order. `request` is its number.
_FIELDS = (
    "sent_ns",
    "ttft_ns",
    "last_ns",
    "end_ns",
    "outcome",
    "timed_out",
    "input_tokens",
    "output_tokens",
    "asked_tokens",
    "first_tokens",
    "reads",
    "due_ns",
    "request",
)


_ONE = array("q", (1,))  # the tokens of a read, mostly


class Collector:
    """Turns a level's records into columns without keeping the records themselves."""

    def __init__(self) -> None:
        self._per_request = array("q")  # the _FIELDS of each record, one record after the other
        self._gap_ns = array("q")
        self._read_tokens = array("q")
        self._reads_of_request = array("q")

    def add(self, record: Record) -> None:
        """Take in one record."""
        tokens = record.tokens
        has_tokens = bool(record.gaps_ns)
        values = {
            "sent_ns": record.sent_ns,
            "ttft_ns": record.gaps_ns[0] if has_tokens else -1,
            "last_ns": sum(record.gaps_ns) if has_tokens else -1,
            "end_ns": record.end_ns,
            "outcome": OUTCOMES.index(record.outcome),
            "timed_out": int(is_timeout(record.error)),
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "asked_tokens": record.asked_tokens,
            "first_tokens": (tokens[0] if tokens else 1) if has_tokens else 0,
            "reads": record.reads,
            "due_ns": record.due_ns,
            "request": record.request,
        }
        self._per_request.extend([values[name] for name in _FIELDS])
        # An array of a tuple is made in one go; to extend one by a tuple takes a call a number.
        self._gap_ns += array("q", record.gaps_ns)
        self._read_tokens += array("q", tokens) if tokens else _ONE * len(record.gaps_ns)
        self._reads_of_request.append(len(record.gaps_ns))

    def columns(self) -> Columns:
        """Return everything taken in so far."""
        table = np.array(self._per_request, dtype=np.int64).reshape(-1, len(_FIELDS))
        of_request: dict[str, Any] = dict(zip(_FIELDS, table.T, strict=True))
        number = of_request.pop("request")
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
            **of_request,
            read_ns=of_request["sent_ns"][owner] + since_sent,
            read_gap_ns=gap_ns,
            read_tokens=np.array(self._read_tokens, dtype=np.int64),
            read_later=later,
            read_timed=of_request["outcome"][owner] != FAILED,
            read_request=number[owner],
        )
