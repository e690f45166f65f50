"""Load: users or arrivals against one target, one level at a time; out come records.

In a closed loop a user has a connection of its own and one request outstanding; between two
requests it thinks. Users come linearly within the ramp, the first one at once. A failed request is
a record like any other, and its user goes on after a pause that grows with each failure in a row:
the load does not silently fall. In an open loop requests start when they are due (arrivals.py,
open_loop.py), on connections that earlier ones have left. At the end of the duration no new request
starts; those in flight may finish within the grace, and are cut after it.
"""

import asyncio
import contextlib
import gc
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import perf_counter_ns

import msgspec

from llmdyno import spec
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.faults import REDIRECTS, http_fault, meaning
from llmdyno.load.open_loop import OpenLoop
from llmdyno.records.entries import LAG_PERIOD_S, Entry, LevelEnded, LevelStarted, Record, Tick
from llmdyno.wire.grpc import as_sent, connect
from llmdyno.wire.http1 import CONNECT_TIMEOUT_S, ConnectError, Exchange, Meter, Response, Target
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.poller import Poller, can_stamp
from llmdyno.wire.reply import Reply, by_read, count_tokens, text_by_read
from llmdyno.workload.prompts import Conversation, Prompts
from llmdyno.workload.sessions import Item
from llmdyno.workload.share import Share

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
RETRY_AFTER_MAX_S = 60.0
ERROR_RATE_REQUESTS = 50  # --max-error-rate is of so many requests, the last ones
_TICK_S = 1.0
_DETAIL_CHARACTERS_MAX = 300
_LAST_WORDS_BYTES = 150
# A stream that had come to its end is whole, however its connection ended then.
_AFTER_THE_END = frozenset({"reset", "truncated"})
# So long after its end mark the rest of a body is not waited for any more: nothing is to come.
_AFTER_THE_END_NS = 5_000_000_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a level needs to know."""

    level: int
    users: int  # of a closed loop
    load: spec.Load
    target: Target
    endpoint: Endpoint
    model: str
    tensors: tuple[Tensor, ...] = ()  # that it takes, if the endpoint must know
    repeat: int = 0
    rate: float | None = None  # of an open loop
    due_s: Sequence[float] | None = None  # of an open loop: since the level's start, ascending
    share: Share = Share()  # which part of all that is this process's

    @property
    def requests(self) -> int | None:
        """How many requests are sent in all, if that is known."""
        if self.load.ends_by_count and self.due_s is not None:
            return len(self.due_s)
        return self.load.requests


class Progress(msgspec.Struct, kw_only=True):
    """What a live display shows; written by the level, read by the display."""

    level: int = 0
    load: str = ""  # what is wanted, e.g. "50 users"
    users: int = 0
    waiting: int | None = None  # for a place, in an open loop
    in_flight: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0  # of finished requests
    reads: int = 0  # that those tokens came with
    elapsed_s: float = 0.0
    ttft_ms: list[float] = []  # of the last finished requests
    errors: dict[str, int] = {}
    phase: str = "running"
    duration_s: float | None = None  # of the level, or
    requests: int | None = None  # how many it sends

    def add(self, record: Record) -> None:
        """Count a request that has ended."""
        self.tokens += record.output_tokens
        self.reads += record.reads
        if record.outcome == "completed":
            self.completed += 1
            self.ttft_ms.append(record.gaps_ns[0] / 1e6)
            del self.ttft_ms[:-200]
        elif record.outcome == "failed":
            self.failed += 1
            self.errors[record.error] = self.errors.get(record.error, 0) + 1


class ErrorLimits:
    """How many failed requests the user puts up with: `--max-errors`, `--max-error-rate`."""

    def __init__(self, load: spec.Load) -> None:
        self._errors_max = load.max_errors
        self._rate_max = load.max_error_rate
        self._failed = 0
        self._last: deque[bool] = deque(maxlen=ERROR_RATE_REQUESTS)

    def reached_by(self, record: Record) -> str:
        """Take in a record; say which limit it reached, if it did."""
        failed = record.outcome == "failed"
        if record.outcome != "cut":
            self._last.append(failed)
        if not failed:
            return ""
        self._failed += 1
        if self._errors_max is not None and self._failed >= self._errors_max:
            return f"{self._failed} requests failed, as many as --max-errors allows"
        share = sum(self._last) / len(self._last)
        full = len(self._last) == ERROR_RATE_REQUESTS
        if self._rate_max is not None and full and share > self._rate_max:
            return (
                f"{share:.0%} of the last {ERROR_RATE_REQUESTS} requests failed, more than"
                f" --max-error-rate {self._rate_max:g} allows"
            )
        return ""


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector come seldom, and have little to look at when it does.

    A full collection would stop the client for longer than a token takes.
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
    """One load point, run once."""

    def __init__(
        self,
        plan: Plan,
        prompts: Prompts,
        *,
        zero_ns: int,
        sink: Callable[[Entry], None],
        meter: Meter,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._prompts = prompts
        self._zero_ns = zero_ns
        self._sink = sink
        self._meter = meter
        self._progress = progress
        self._stop = asyncio.Event()  # no new request starts
        self._cut = asyncio.Event()  # those in flight end now
        self._stopped_ns = 0
        self._sent = 0
        self._in_flight: dict[int, Exchange] = {}  # by user, or by place in an open loop
        self._idle: dict[int, Exchange] = {}  # of an open loop, by place
        self._open_loop: OpenLoop | None = None
        self._answers: dict[int, str] = {}  # of a session's turn, by user, until it is heard
        self._unsent = 0
        self._pausing: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()  # users who wait for a connection
        self._limits = ErrorLimits(plan.load)
        self._silent_after: dict[int, int] = {}  # by user: its body had so many pieces when read
        self._lags_us: list[int] = []
        self._failure: BaseException | None = None
        self._poller = Poller(meter) if can_stamp() else None
        progress.duration_s = None if plan.load.ends_by_count else plan.load.duration_s
        progress.requests = plan.requests
        self.interrupted = False
        self.stopped = ""  # why it ended early, if too many requests failed
        self.uncounted = 0  # completed requests whose tokens the server did not count

    def interrupt(self) -> None:
        """End the level now; requests in flight are cut and recorded."""
        self.interrupted = True
        self._stop_load()
        self._cut.set()

    async def run(self, start_ns: int | None = None) -> None:
        """Run the level to its end; it begins at start_ns (by perf_counter_ns), or now.

        Raises:
            StorageError: a record could not be written; the level ends at once.
        """
        plan = self._plan
        if start_ns is None:
            start_ns = perf_counter_ns()
        else:
            # Even if it is stopped before: nothing is written of a level that has not begun.
            while (left_ns := start_ns - perf_counter_ns()) > 0:  # noqa: ASYNC110  # timers round
                await asyncio.sleep(left_ns / 1e9)
        cpu_start_s = time.process_time()
        self._sink(
            LevelStarted(
                level=plan.level,
                users=None if plan.load.is_open else plan.users,
                start_ns=start_ns - self._zero_ns,
                ramp_ns=round(plan.load.effective_ramp_s * 1e9),
                repeat=plan.repeat,
                arrival=plan.load.arrival,
                rate=plan.rate,
                max_concurrency=plan.load.max_concurrency,
            )
        )
        watchers = [
            asyncio.create_task(self._watch_lag()),
            asyncio.create_task(self._tick(start_ns, cpu_start_s)),
            asyncio.create_task(self._end_on_time(start_ns)),
        ]
        if plan.due_s is None:
            await asyncio.gather(*map(self._user, plan.share.numbers(plan.users)))
        else:
            due_s = plan.due_s[plan.share.index :: plan.share.of]
            await self._arrive([start_ns + round(moment_s * 1e9) for moment_s in due_s])
        self._stop_load()
        if self._poller is not None:
            self._poller.close()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        self._note(start_ns, cpu_start_s)
        self._sink(
            LevelEnded(
                level=plan.level,
                end_ns=perf_counter_ns() - self._zero_ns,
                full_until_ns=self._stopped_ns - self._zero_ns,
                interrupted=self.interrupted,
                stopped=self.stopped,
                unsent=self._unsent,
            )
        )

    # An open loop.

    async def _arrive(self, due_ns: list[int]) -> None:
        """Start each request when it is due, and wait for those under way."""
        load = self._plan.load
        places_max = load.max_concurrency
        if places_max is not None:
            places_max = self._plan.share.count(places_max)
        loop = OpenLoop(due_ns, self._serve, self._pause, places_max)
        self._open_loop = loop
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: loop.stop())
        await loop.start_all()
        if not load.ends_by_count:
            await self._stop.wait()  # the duration goes on after the last arrival
        self._stop_load()
        await stopping
        self._unsent = loop.waiting
        await loop.finish()
        for connection in self._idle.values():
            connection.close()

    async def _serve(self, nth_place: int, nth: int, due_ns: int) -> None:
        self._sent += 1
        place, request = map(self._plan.share.number, (nth_place, nth))
        connection, record, _ = await self._exchange(
            self._idle.pop(place, None), place, request, self._prompts.draw(), due_ns
        )
        if connection is not None:
            self._idle[place] = connection
        self._keep_or_end(record)

    # One user.

    async def _user(self, number: int) -> None:
        load = self._plan.load
        connection: Exchange | None = None
        failures = 0
        conversation = Conversation(self._prompts)
        think = random.Random(f"think/{number}")
        if not await self._pause(load.effective_ramp_s * number / self._plan.users):
            return
        self._progress.users += 1
        due_ns = perf_counter_ns()
        while (request := self._next_request()) is not None:
            item = conversation.ask()
            connection, record, retry_after_s = await self._exchange(
                connection, number, request, item, due_ns
            )
            if not self._keep_or_end(record):
                break
            if item.session >= 0:
                conversation.hear(self._answers.pop(number))
            failures = failures + 1 if record.outcome == "failed" else 0
            if not await self._pause(self._rest_s(failures, retry_after_s, think)):
                break
            due_ns = perf_counter_ns()
        if connection is not None:
            connection.close()
        self._progress.users -= 1

    def _next_request(self) -> int | None:
        wanted = self._plan.load.requests
        if self._stop.is_set():
            return None
        request = self._plan.share.number(self._sent)
        if wanted is not None and request >= wanted:
            self._stop_load()
            return None
        self._sent += 1
        return request

    def _rest_s(self, failures: int, retry_after_s: float, rng: random.Random) -> float:
        if not failures:
            think_s = self._plan.load.think_s
            return rng.uniform(*think_s) if isinstance(think_s, tuple) else think_s
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (failures - 1))
        return max(backoff_s, retry_after_s)

    async def _pause(self, duration_s: float) -> bool:
        """Sleep; return whether the user should go on."""
        if duration_s > 0 and not self._stop.is_set():
            task = asyncio.current_task()
            assert task is not None
            self._pausing.add(task)
            try:
                await asyncio.sleep(duration_s)
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
                task.uncancel()
            finally:
                self._pausing.discard(task)
        return not self._stop.is_set()

    async def _exchange(
        self,
        connection: Exchange | None,
        user: int,
        request: int,
        item: Item,
        due_ns: int,
    ) -> tuple[Exchange | None, Record, float]:
        """Send one request and wait for its end; return the connection if it can be used again."""
        plan = self._plan
        body = plan.endpoint.body(
            Ask(
                prompt=item.prompt,
                system_prompt=item.system_prompt,
                history=item.history,
                model=plan.model,
                max_tokens=item.max_tokens,
                exact_length=item.exact_length,
                tensors=plan.tensors,
            )
        )
        data = as_sent(plan.target, plan.endpoint.path(plan.model), body)
        started_ns = perf_counter_ns()
        while True:
            reused = connection is not None and connection.usable
            if connection is None or not connection.usable:
                try:
                    connection = await self._connect()
                except ConnectError as error:
                    response = Response(
                        sent_ns=started_ns,
                        end_ns=perf_counter_ns(),
                        error=error.kind,
                        detail=str(error),
                    )
                    return None, self._record(response, user, request, item, due_ns), 0.0
            response = await self._await_response(connection, user, data)
            # A server may close an idle connection just as we send: nothing was answered on a
            # connection that had served before, so the request is sent again on a new one.
            if reused and response.first_byte_ns < 0 and response.error in {"no-response", "reset"}:
                connection = None
                continue
            break
        record = self._record(response, user, request, item, due_ns)
        return (connection if connection.usable else None), record, _retry_after_s(response)

    async def _connect(self) -> Exchange:
        """Open a connection, for as long as a request may take and not beyond the level's end."""
        if self._cut.is_set():
            raise ConnectError("cut", "")
        task = asyncio.current_task()
        assert task is not None
        self._opening.add(task)
        try:
            limit_s = min(CONNECT_TIMEOUT_S, self._plan.load.timeout_s)
            return await connect(self._plan.target, self._meter, limit_s, self._poller)
        except asyncio.CancelledError:
            if not self._cut.is_set():
                raise
            task.uncancel()
            raise ConnectError("cut", "") from None
        finally:
            self._opening.discard(task)

    async def _await_response(self, connection: Exchange, user: int, data: bytes) -> Response:
        timeout_s = self._plan.load.timeout_s
        detail = f"no end within {timeout_s:g} s"
        loop = asyncio.get_running_loop()
        done = connection.send(data)
        timer = loop.call_later(timeout_s, connection.give_up, "timeout", detail)
        self._in_flight[user] = connection
        self._progress.in_flight += 1
        if self._cut.is_set():
            connection.give_up("cut")
        try:
            return await done
        finally:
            timer.cancel()
            self._silent_after.pop(user, None)
            del self._in_flight[user]
            self._progress.in_flight -= 1

    # What comes of it.

    def _record(
        self, response: Response, user: int, request: int, item: Item, due_ns: int
    ) -> Record:
        answered = response.status == 200
        reply = self._plan.endpoint.read(response.pieces) if answered else Reply()
        error, detail = _verdict(response, reply, self._plan.endpoint)
        assert error in {"", "cut"} or meaning(error), f"{error} is not in faults.FAULTS"
        if item.session >= 0:
            self._answers[user] = "" if error else "".join(reply.texts)
        tokens, source = count_tokens(reply)
        gaps_ns, counts = by_read(reply.stamps_ns, tokens, response.sent_ns)
        recountable = source == "chunks" and bool(tokens) and error in {"", "cut"}
        self.uncounted += recountable and not error
        return Record(
            level=self._plan.level,
            request=request,
            user=user,
            prompt=item.number,
            due_ns=due_ns - self._zero_ns,
            sent_ns=response.sent_ns - self._zero_ns,
            end_ns=response.end_ns - response.sent_ns,
            outcome="cut" if error == "cut" else "failed" if error else "completed",
            error="" if error == "cut" else error,
            detail=self._plan.target.redact(detail)[:_DETAIL_CHARACTERS_MAX],
            status=response.status,
            finish=reply.finish,
            first_byte_ns=response.first_byte_ns - response.sent_ns
            if response.first_byte_ns >= 0
            else -1,
            gaps_ns=gaps_ns,
            tokens=counts,
            input_tokens=reply.input_tokens,
            output_tokens=sum(tokens),
            source=source,
            reads=response.reads,
            texts=tuple(self._plan.target.redact_parts(text_by_read(reply))) if recountable else (),
            input_text=_asked(item) if recountable else "",
            session=item.session,
            turn=item.turn,
        )

    def _keep_or_end(self, record: Record) -> bool:
        """Keep a record; return whether that could be done. If not, the level ends."""
        try:
            self._keep(record)
        except Exception as failure:  # noqa: BLE001  # any: it must end the level, not one user
            self._failure = self._failure or failure
            self.interrupt()
            return False
        return True

    def _keep(self, record: Record) -> None:
        self._sink(record)
        self._progress.add(record)
        why = self._limits.reached_by(record)
        if why and not self.interrupted:
            self.stopped = why
            self.interrupt()

    # The clock of the level.

    def _stop_load(self) -> None:
        if self._stop.is_set():
            return
        self._stopped_ns = perf_counter_ns()
        self._stop.set()
        for task in self._pausing:
            task.cancel()

    async def _end_on_time(self, start_ns: int) -> None:
        load = self._plan.load
        if not load.ends_by_count:
            left_s = load.duration_s - (perf_counter_ns() - start_ns) / 1e9
            try:
                async with asyncio.timeout(left_s):
                    await self._cut.wait()
            except TimeoutError:
                self._progress.phase = "finishing"
                self._stop_load()
        else:
            await self._stop.wait()
        try:
            # A level of so many requests has no end of its own to wait for after the last was sent:
            # each of them has its timeout.
            async with asyncio.timeout(None if load.ends_by_count else load.grace_s):
                await self._cut.wait()
        except TimeoutError:
            self._cut.set()
        for connection in list(self._in_flight.values()):
            connection.give_up("cut")
        for task in self._opening:
            task.cancel()

    async def _watch_lag(self) -> None:
        while True:
            due_ns = perf_counter_ns() + round(LAG_PERIOD_S * 1e9)
            await asyncio.sleep(LAG_PERIOD_S)
            self._lags_us.append(max(0, (perf_counter_ns() - due_ns) // 1000))

    async def _tick(self, start_ns: int, cpu_start_s: float) -> None:
        while True:
            await asyncio.sleep(min(_TICK_S, self._plan.load.interval_s))
            now_ns = perf_counter_ns()
            for user, connection in list(self._in_flight.items()):
                connection.look_after(now_ns)
                self._end_unended(user, connection, now_ns)
            try:
                self._note(start_ns, cpu_start_s)
            except Exception as failure:  # noqa: BLE001  # any: it must end the level
                self._failure = self._failure or failure
                self.interrupt()
                return

    def _end_unended(self, user: int, connection: Exchange, now_ns: int) -> None:
        """Let a user go on whose server said that this was all, and then never ended the body."""
        pieces = connection.came_before(now_ns - _AFTER_THE_END_NS)
        if not pieces or self._silent_after.get(user) == len(pieces):
            return
        self._silent_after[user] = len(pieces)  # reading a body costs; once for each silence
        if self._plan.endpoint.read(pieces).ended:
            connection.give_up("truncated", "the server never ended the body after its end mark")

    def _note(self, start_ns: int, cpu_start_s: float) -> None:
        now_ns = perf_counter_ns()
        lags_us, self._lags_us = tuple(self._lags_us), []
        self._progress.elapsed_s = (now_ns - start_ns) / 1e9
        waiting = self._open_loop.waiting if self._open_loop else None
        self._progress.waiting = waiting
        self._sink(
            Tick(
                level=self._plan.level,
                t_ns=now_ns - self._zero_ns,
                users=self._progress.users,
                in_flight=self._progress.in_flight,
                waiting=waiting or 0,
                worker=self._plan.share.index,
                reads=self._meter.reads,
                cpu_s=round(time.process_time() - cpu_start_s, 6),
                loop_lags_us=lags_us,
            )
        )


def _asked(item: Item) -> str:
    """Return all the text of a request."""
    said = (text for turn in item.history for text in turn)
    return "\n\n".join(text for text in (item.system_prompt, *said, item.prompt) if text)


def _verdict(response: Response, reply: Reply, endpoint: Endpoint) -> tuple[str, str]:
    """Return the error class and its detail; both empty for a response that is whole."""
    if response.error == "cut":
        return "cut", ""
    if response.status in REDIRECTS:
        return "redirect", response.headers.get("location", "the server does not say where to")
    if response.status and response.status != 200:
        return http_fault(response.status), endpoint.error_of(response.body())
    if reply.error == "stream-error":
        return reply.error, reply.detail
    if response.error in _AFTER_THE_END and reply.ended and reply.stamps_ns and not reply.error:
        return "", response.detail
    if response.error:  # before what cannot be read: it is what made it so
        return response.error, response.detail
    if reply.error:
        return reply.error, reply.detail
    if not _is_stream(response, reply, endpoint) and response.body():
        return "not-a-stream", endpoint.error_of(response.body())
    if not reply.ended and not endpoint.ends_with_body:
        last = response.body()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
        return "truncated", f"no finish reason and no end mark; the last words are: {last}"
    if not reply.stamps_ns:
        return "no-tokens", "the stream ended without a single token"
    return "", ""


def _is_stream(response: Response, reply: Reply, endpoint: Endpoint) -> bool:
    if endpoint.ends_with_body:  # nothing in such a body says so: the server's word must do
        media_type = response.headers.get("content-type", "")
        return not media_type.startswith(("application/json", "text/html"))
    return reply.ended or bool(reply.stamps_ns)


def _retry_after_s(response: Response) -> float:
    """Return how long the server asks us to stay away: seconds or an HTTP date, up to a minute."""
    said = response.headers.get("retry-after", "").strip()
    if response.status not in {429, 503} or not said:
        return 0.0
    try:
        if said.replace(".", "", 1).isdecimal():
            wait_s = float(said)
        else:
            wait_s = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # garbage, or a date without a zone
        return 0.0
    return min(RETRY_AFTER_MAX_S, max(0.0, wait_s))
