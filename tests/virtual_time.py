"""A clock that jumps: an event loop that never waits, and a server whose every moment is known.

Where a test is about time alone (ramp, backoff, think time, grace, arrivals), minutes pass in
milliseconds, and moments are exact: nothing is late on this loop, and nothing opens a socket.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from llmdyno import plugins, spec
from llmdyno.load.level import Level
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Entry, Record
from llmdyno.wire.connect import ConnectError
from llmdyno.wire.exchange import Exchange, Meter, Response
from llmdyno.wire.target import Target
from llmdyno.workload.prompts import Prompts
from scripted_server import DONE, STOP, chunk

Result = TypeVar("Result")

TARGET = Target(host="nowhere", port=1, tls=False, prefix="")


class _JumpingSelector(selectors.SelectSelector):
    """Lets the loop's clock jump to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            # None: only a socket could wake the loop, and there are none but its own.
            assert timeout is not None, "everybody waits for ever"
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def now_ns() -> int:
    """Return the running loop's time in ns: the level's clock."""
    return round(asyncio.get_running_loop().time() * 1e9)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Reply:
    """What the server answers to a request, and when.

    Args:
        ttft_s: until the first token; it ends with that one, too, unless there are more.
        status: of HTTP.
        tokens: how many, `itl_s` apart.
        itl_s: between two tokens.
        headers: of the response.
        error: of the exchange, instead of an end.
    """

    def __init__(
        self,
        ttft_s: float = 0.1,
        *,
        status: int = 200,
        tokens: int = 2,
        itl_s: float = 0.0,
        headers: dict[str, str] | None = None,
        error: str = "",
    ) -> None:
        self.ttft_s = ttft_s
        self.status = status
        self.tokens = tokens
        self.itl_s = itl_s
        self.headers = headers or {}
        self.error = error

    async def play(self, response: Response) -> None:
        """Let the response come, piece by piece."""
        await asyncio.sleep(self.ttft_s)
        response.first_byte_ns = now_ns() if not self.error else -1
        response.status, response.headers = self.status, self.headers
        for number in range(self.tokens if self.status == 200 and not self.error else 0):
            await asyncio.sleep(self.itl_s if number else 0.0)
            response.add(now_ns(), chunk("a"))
            response.reads += 1
        response.add(now_ns(), STOP + DONE)


Replies = Callable[[int], Reply]


class ScriptedExchange(Exchange):
    """A connection to the server of a test; it takes no time to be made."""

    def __init__(self, reply: Callable[[], Reply]) -> None:
        super().__init__(Meter())
        self._reply = reply
        self._playing: asyncio.Task[None] | None = None
        self._open = True

    @property
    def usable(self) -> bool:
        return self._open

    def send(self, data: bytes) -> asyncio.Future[Response]:
        done = self._begin()
        response = self._response
        assert data
        assert response is not None
        response.sent_ns = now_ns()
        self._playing = asyncio.create_task(self._play(self._reply(), response))
        return done

    async def _play(self, reply: Reply, response: Response) -> None:
        await reply.play(response)
        self._open = not reply.error
        self._finish(reply.error)

    def parse(self) -> bool:
        return False

    def _finish(self, error: str = "", detail: str = "") -> None:
        response, done = self._response, self._done
        assert response is not None
        assert done is not None
        self._response = self._done = None
        response.end_ns = now_ns()
        response.error, response.detail = error, detail
        done.set_result(response)

    def close(self) -> None:
        self._open = False
        if self._playing is not None:
            self._playing.cancel()


class Server:
    """Answers the requests of all connections together one after the other.

    Args:
        replies: of each request by its number; an iterable's last one is for all that follow.
        connect_s: how long a connection takes.
        refused: how many connections fail first.
    """

    def __init__(
        self, replies: Iterable[Reply] | Replies, *, connect_s: float = 0.0, refused: int = 0
    ) -> None:
        self._replies = replies if callable(replies) else _last_for_ever(list(replies))
        self._connect_s = connect_s
        self._refused = refused
        self.requests = 0
        self.exchanges: list[ScriptedExchange] = []

    def _next(self) -> Reply:
        self.requests += 1
        return self._replies(self.requests - 1)

    async def dial(self) -> Exchange:
        """Open a connection: what a level is given."""
        await asyncio.sleep(self._connect_s)
        if self._refused:
            self._refused -= 1
            raise ConnectError("refused", "nobody listens")
        self.exchanges.append(ScriptedExchange(self._next))
        return self.exchanges[-1]


def _last_for_ever(replies: list[Reply]) -> Replies:
    return lambda number: replies[min(number, len(replies) - 1)]


class Played:
    """What a level came to: its records in order of sending, and all that it wrote."""

    def __init__(self, entries: list[Entry], level: Level, progress: Progress) -> None:
        self.entries = entries
        self.level = level
        self.progress = progress
        records = [entry for entry in entries if isinstance(entry, Record)]
        self.records = sorted(records, key=lambda record: (record.sent_ns, record.request))

    @property
    def sent_s(self) -> list[float]:
        """When each request was sent, in seconds since the level's start."""
        return [record.sent_ns / 1e9 for record in self.records]


def play(
    server: Server,
    *,
    users: int = 1,
    due_s: list[float] | None = None,
    meanwhile: Callable[[Level], Awaitable[None]] | None = None,
    **load: Any,
) -> Played:
    """Run one level against a server, in virtual time, beginning at 0."""
    entries: list[Entry] = []
    progress = Progress()
    given: dict[str, Any] = {"users": (users,), "ramp_s": 0.0, "think_s": 0.0, "interval_s": 1.0}
    if due_s is not None:
        given |= {"arrival": "constant", "rates": (1.0,)}
    plan = Plan(
        level=0,
        users=users if due_s is None else 0,
        load=spec.Load(**given | load),
        target=TARGET,
        endpoint=plugins.load("endpoints", "openai-chat"),
        model="m",
        due_s=due_s,
    )

    async def main() -> Level:
        recorder = Recorder(
            sink=entries.append, zero_ns=0, meter=Meter(), progress=progress, now_ns=now_ns
        )
        level = Level(plan, Prompts(spec.Workload()), recorder, server.dial)
        if meanwhile is None:
            await level.run()
        else:
            await asyncio.gather(level.run(), meanwhile(level))
        return level

    return Played(entries, run(main()), progress)
