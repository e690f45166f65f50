"""Takes the facts of one level: the journal, the live display, and the one clock for both."""

from collections.abc import Callable
from time import perf_counter_ns

import msgspec

from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.records.entries import Entry, LevelStarted
from llmdyno.wire.exchange import Meter


class Recorder(msgspec.Struct, frozen=True, kw_only=True):
    """The journal and the live display of one level.

    All moments are readings of one clock, `now_ns`. In the journal they count from `zero_ns`.
    """

    sink: Callable[[Entry], None]  # appends to the journal, or raises StorageError
    zero_ns: int  # when the run began
    meter: Meter  # of the reads of requests in flight
    progress: Progress
    now_ns: Callable[[], int] = perf_counter_ns

    def since_zero(self, moment_ns: int) -> int:
        """Convert a reading of the clock to the journal's time, in ns since the run began."""
        return moment_ns - self.zero_ns

    def note_start(self, plan: Plan, start_ns: int, workers: int = 1) -> None:
        """Write the start of the level to the journal and to the display.

        Args:
            plan: of the whole level.
            start_ns: when it begins, by the clock.
            workers: the number of processes that run it.

        Raises:
            StorageError: the entry could not be written.
        """
        load = plan.load
        self.sink(
            LevelStarted(
                level=plan.level,
                users=None if load.is_open else plan.users,
                start_ns=self.since_zero(start_ns),
                ramp_ns=round(load.effective_ramp_s * 1e9),
                repeat=plan.repeat,
                arrival=load.arrival,
                rate=plan.rate,
                max_concurrency=load.max_concurrency,
                workers=workers,
            )
        )
