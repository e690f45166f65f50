"""The state of a level while it runs: the counts of the live display, and the limits on errors.

The level, or the crew of workers, writes the counts as requests end; the terminal and the live
metrics read them. No figure of the results comes from here: those come from the journal.
"""

import math
from collections import deque

import msgspec

from llmdyno import spec
from llmdyno.load.plan import Plan
from llmdyno.records.entries import Record
from llmdyno.results import wording
from llmdyno.units import counted

ERROR_RATE_REQUESTS = 50  # --max-error-rate is judged over so many of the last requests
ERROR_RATE_REQUESTS_MIN = 10  # fewer say nothing
_CHANCE = 0.01
RECENT_MAX = 200  # completed requests of which a live display knows the latencies


class Progress(msgspec.Struct, kw_only=True):
    """The counts of a live display; the level writes them, the display reads them."""

    level: int = 0
    load: str = ""  # the load in words, e.g. "50 users"
    users: int = 0
    waiting: int | None = None  # requests due that wait for a slot, in an open loop
    in_flight: int = 0
    completed: int = 0
    failed: int = 0
    hung_up: int = 0  # requests that we ended: cut, or after their time limit
    uncounted: int = 0  # completed requests whose tokens the server did not count
    tokens: int = 0  # of finished requests
    reads: int = 0  # reads that brought those tokens
    elapsed_s: float = 0.0
    # The last that were completed, so that whoever shows a latency live can derive it.
    recent: deque[Record] = msgspec.field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    errors: dict[str, int] = {}
    phase: str = "running"
    duration_s: float | None = None  # of the level; None if it ends by the next
    requests: int | None = None  # the number of requests after which the level ends

    def expect(self, plan: Plan) -> None:
        """Note how the level will end: after its duration, or after a number of requests."""
        self.duration_s = None if plan.load.ends_by_count else plan.load.duration_s
        self.requests = plan.requests

    @property
    def ttft_ms(self) -> list[float]:
        """The times to first token of the last completed requests."""
        return [record.gaps_ns[0] / 1e6 for record in self.recent]

    def add(self, record: Record) -> None:
        """Count a request that has ended."""
        self.tokens += record.output_tokens
        self.reads += record.reads
        self.hung_up += record.outcome == "cut" or record.error == "timeout"
        if record.outcome == "completed":
            self.completed += 1
            self.uncounted += bool(record.texts)
            self.recent.append(record)
        elif record.outcome == "failed":
            self.failed += 1
            self.errors[record.error] = self.errors.get(record.error, 0) + 1


class ErrorLimits:
    """How many failed requests end a level: `--max-errors`, `--max-error-rate`.

    The rate is judged over the last 50 requests. Before there are 50 it ends a level only if the
    allowed rate cannot explain so many failures; a level that ends before is judged as a whole.

    Args:
        load: with the limits.
        requests: of the whole level; None if it ends by its duration.
    """

    def __init__(self, load: spec.Load, requests: int | None = None) -> None:
        self._errors_max = load.max_errors
        self._rate_max = load.max_error_rate
        self._whole = min(ERROR_RATE_REQUESTS, requests or ERROR_RATE_REQUESTS)
        self._failed = 0
        self._last: deque[bool] = deque(maxlen=ERROR_RATE_REQUESTS)  # whether each has failed

    def count(self, record: Record) -> None:
        """Count a request that has ended. The error rate leaves out requests that we cut."""
        if record.outcome != "cut":
            self._last.append(record.outcome == "failed")
        self._failed += record.outcome == "failed"

    def reached(self, *, at_end: bool = False) -> str:
        """Return in words which limit has been reached; empty if none has.

        Args:
            at_end: the level has ended, so that few requests are all there will be.
        """
        if self._errors_max is not None and self._failed >= self._errors_max:
            return f"{counted(self._failed, 'request')} failed, as many as --max-errors allows"
        failed, judged = sum(self._last), len(self._last)
        if self._rate_max is None or failed < 2:
            return ""
        if judged < ERROR_RATE_REQUESTS_MIN and not at_end:
            return ""
        if failed <= self._rate_max * judged:
            return ""
        if judged < self._whole and not at_end and not _too_many(failed, judged, self._rate_max):
            return ""
        return (
            f"{wording.share(failed / judged)} of the last {judged} requests failed, more than"
            f" --max-error-rate {self._rate_max:g} allows"
        )


def _too_many(failed: int, judged: int, rate: float) -> bool:
    """Whether so many or more of so many requests fail by chance less than once in a hundred."""
    chances = (
        math.comb(judged, each) * rate**each * (1 - rate) ** (judged - each)
        for each in range(failed, judged + 1)
    )
    return sum(chances) < _CHANCE
