"""One level of load in one process: users or arrivals send requests and produce records.

In a closed loop a user has a connection and at most one request outstanding; between two requests
the user thinks. Users start evenly over the ramp; the first starts immediately. A failed request is
recorded like any other. Its user continues after a pause that grows with each failure in a row, so
the load does not fall unnoticed. In an open loop requests start when they are due (arrivals.py,
open_loop.py), on connections that earlier requests have left. At the end of the duration no new
request starts; those in flight may finish within the grace period, and are cut after it.
"""

import asyncio
import contextlib
import gc
import random
from collections.abc import Iterator

from llmdyno.load.ending import Ending
from llmdyno.load.open_loop import OpenLoop
from llmdyno.load.outcome import Request
from llmdyno.load.plan import Plan
from llmdyno.load.progress import ErrorLimits
from llmdyno.load.recorder import Recorder
from llmdyno.load.sender import Dial, Dialer, Sender
from llmdyno.load.ticker import Ticker
from llmdyno.records.entries import LevelEnded, Record
from llmdyno.workload.prompts import Conversation, Prompts

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
_TICK_S = 1.0


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Make garbage collections rare and small inside the `with`.

    A full collection would stop the client for longer than the gap between two tokens.
    """
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Level:
    """One load point, run once.

    Args:
        plan: the users or arrivals, the target and the times.
        prompts: the source of the requests' texts.
        recorder: where records, ticks and counts go. Its clock must be that of the event loop's
            timers and of the connections' stamps.
        dial: opens a connection; by default to the plan's target.
    """

    def __init__(
        self, plan: Plan, prompts: Prompts, recorder: Recorder, dial: Dial | None = None
    ) -> None:
        self._plan = plan
        self._prompts = prompts
        self._recorder = recorder
        self._ending = Ending(recorder.now_ns)
        self._dialer = Dialer(plan, recorder.meter)
        self._sender = Sender(plan, recorder, self._ending, dial or self._dialer.dial)
        self._ticker = Ticker(recorder, plan.level, plan.share.index)
        self._limits = ErrorLimits(plan.load, plan.requests)
        self._sent = 0
        self._failure: BaseException | None = None
        recorder.progress.expect(plan)
        self.interrupted = False
        self.stopped = ""  # why it ended early if too many requests failed, else empty

    def interrupt(self) -> None:
        """End the level early; requests in flight are cut and recorded. Returns at once."""
        self.interrupted = True
        self._ending.cut()

    async def run(self, start_ns: int | None = None) -> None:
        """Run the level and wait for its end.

        Args:
            start_ns: when it begins, by the recorder's clock; None: now.

        Raises:
            StorageError: a record could not be written; the level ends at once.
        """
        now_ns = self._recorder.now_ns
        if start_ns is None:
            start_ns = now_ns()
        else:
            # Wait even if the level is stopped already: no entry may be older than its level.
            while (left_ns := start_ns - now_ns()) > 0:  # noqa: ASYNC110  # timers round
                await asyncio.sleep(left_ns / 1e9)
        self._ticker.start(start_ns)
        self._recorder.note_start(self._plan, start_ns)
        loop = self._open_loop(start_ns)
        watchers = [
            asyncio.create_task(self._ticker.watch_lag()),
            asyncio.create_task(self._watch(loop)),
            asyncio.create_task(self._end_on_time(start_ns)),
        ]
        if loop is None:
            await asyncio.gather(*map(self._user, self._plan.share.numbers(self._plan.users)))
        else:
            await self._arrive(loop)
        self._ending.stop()
        self._dialer.close()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        if not self.interrupted:
            self.stopped = self._limits.reached(at_end=True)
        self._close(loop)

    def _close(self, loop: OpenLoop | None) -> None:
        """Write the last tick and the end of the level."""
        self._ticker.tick(_waiting(loop))
        unsent_due_ns = loop.unsent_due_ns if loop else ()
        self._recorder.sink(
            LevelEnded(
                level=self._plan.level,
                end_ns=self._recorder.since_zero(self._recorder.now_ns()),
                full_until_ns=self._recorder.since_zero(self._ending.stopped_ns),
                interrupted=self.interrupted,
                stopped=self.stopped,
                unsent=len(unsent_due_ns),
                unsent_due_ns=tuple(map(self._recorder.since_zero, unsent_due_ns)),
            )
        )

    # An open loop.

    def _open_loop(self, start_ns: int) -> OpenLoop | None:
        """Return the open loop of this share, if the load has arrivals."""
        plan, share = self._plan, self._plan.share
        if plan.due_s is None:
            return None
        slots_max = plan.load.max_concurrency
        return OpenLoop(
            [start_ns + round(due_s * 1e9) for due_s in plan.due_s[share.index :: share.of]],
            self._send_due,
            pause=self._ending.pause,
            now_ns=self._recorder.now_ns,
            slots_max=None if slots_max is None else share.count(slots_max),
        )

    async def _arrive(self, loop: OpenLoop) -> None:
        """Start each request when it is due, and wait for those in flight."""
        stopping = asyncio.create_task(self._ending.until_stopped())
        stopping.add_done_callback(lambda _: loop.stop())
        await loop.start_all()
        if not self._plan.load.ends_by_count:
            await self._ending.until_stopped()  # the duration may outlast the last arrival
        self._ending.stop()
        await stopping
        await loop.finish()
        self._sender.hang_up_all()

    async def _send_due(self, nth_slot: int, nth: int, due_ns: int) -> None:
        slot, number = map(self._plan.share.number, (nth_slot, nth))
        request = Request(number=number, user=slot, item=self._prompts.draw(), due_ns=due_ns)
        record, _, _ = await self._sender.exchange(request)
        self._keep_or_end(record)

    # A closed loop.

    async def _user(self, user: int) -> None:
        load, ending, progress = self._plan.load, self._ending, self._recorder.progress
        failures = 0
        conversation = Conversation(self._prompts)
        think = random.Random(f"think/{user}")
        if not await ending.pause(load.effective_ramp_s * user / self._plan.users):
            return
        progress.users += 1
        due_ns = self._recorder.now_ns()
        while (number := self._next_number()) is not None:
            item = conversation.ask()
            record, text, retry_after_s = await self._sender.exchange(
                Request(number=number, user=user, item=item, due_ns=due_ns)
            )
            if not self._keep_or_end(record):
                break
            if item.session >= 0:
                conversation.hear(text)
            failures = failures + 1 if record.outcome == "failed" else 0
            if not await ending.pause(self._rest_s(failures, retry_after_s, think)):
                break
            due_ns = self._recorder.now_ns()
        self._sender.hang_up(user)
        progress.users -= 1

    def _next_number(self) -> int | None:
        """Return the number of the next request, or None if none may start."""
        wanted = self._plan.load.requests
        if self._ending.is_stopped:
            return None
        number = self._plan.share.number(self._sent)
        if wanted is not None and number >= wanted:
            self._ending.stop()
            return None
        self._sent += 1
        return number

    def _rest_s(self, failures: int, retry_after_s: float, rng: random.Random) -> float:
        """Return how long a user pauses after a request: to think, or to back off."""
        if not failures:
            think_s = self._plan.load.think_s
            return rng.uniform(*think_s) if isinstance(think_s, tuple) else think_s
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (failures - 1))
        return max(backoff_s, retry_after_s)

    # Records.

    def _keep_or_end(self, record: Record) -> bool:
        """Write a record; return whether that worked. If not, the level ends."""
        try:
            self._keep(record)
        except Exception as failure:  # noqa: BLE001  # any: it must end the level, not one user
            self._fail(failure)
            return False
        return True

    def _keep(self, record: Record) -> None:
        self._recorder.sink(record)
        self._recorder.progress.add(record)
        self._limits.count(record)
        why = self._limits.reached()
        if why and not self.interrupted:
            self.stopped = why
            self.interrupt()

    def _fail(self, failure: BaseException) -> None:
        """End the level; run() raises the first failure."""
        self._failure = self._failure or failure
        self.interrupt()

    # Tasks beside the users.

    async def _end_on_time(self, start_ns: int) -> None:
        load = self._plan.load
        if load.ends_by_count:
            # A level of so many requests needs no grace period: each request has its timeout.
            await self._ending.until_cut(None)
        else:
            left_s = load.duration_s - (self._recorder.now_ns() - start_ns) / 1e9
            if not await self._ending.until_cut(left_s):
                self._recorder.progress.phase = "finishing"
                self._ending.stop()
                await self._ending.until_cut(load.grace_s)
        self._ending.cut()
        self._sender.cut()
        self._ending.release()

    async def _watch(self, loop: OpenLoop | None) -> None:
        """Call look_after and write a tick, each second, or each interval if that is shorter."""
        while True:
            await asyncio.sleep(min(_TICK_S, self._plan.load.interval_s))
            self._sender.look_after(self._recorder.now_ns())
            try:
                self._ticker.tick(_waiting(loop))
            except Exception as failure:  # noqa: BLE001  # any: it must end the level
                self._fail(failure)
                return


def _waiting(loop: OpenLoop | None) -> int | None:
    return None if loop is None else loop.waiting
