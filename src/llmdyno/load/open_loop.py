"""The open loop: requests start when they are due, whatever became of those before them.

Each request under way has a place, and a place keeps its connection for the next one; the place
freed last is taken first, so that no more connections are open than were needed at once. With a
limit on the places a request waits for one, first come first served. Its due time stands: what it
waited is in every latency that runs from due, so that a server too slow for the load cannot hide it
by slowing the client down (coordinated omission).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns


class OpenLoop:
    """The requests of one level, each started when it is due.

    Args:
        due_ns: when each is due, ascending, by perf_counter_ns.
        serve: sends request number N, due then, at a place, and comes back when it has ended.
        pause: sleeps so many seconds; returns whether new requests may still start.
        places_max: how many may be under way at once; None: any number.
    """

    def __init__(
        self,
        due_ns: Sequence[int],
        serve: Callable[[int, int, int], Awaitable[None]],
        pause: Callable[[float], Awaitable[bool]],
        places_max: int | None,
    ) -> None:
        self._due_ns = due_ns
        self._serve = serve
        self._pause = pause
        self._places_max = places_max
        self._places = 0
        self._free: list[int] = []
        self._waiting: deque[tuple[int, int]] = deque()  # (number, due), for a place
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._all_started = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many are due and wait for a place."""
        return len(self._waiting)

    async def start_all(self) -> None:
        """Start every request when it is due; come back when the last has started, or at stop."""
        for number, due_ns in enumerate(self._due_ns):
            if not await self._pause((due_ns - perf_counter_ns()) / 1e9):
                return
            self._waiting.append((number, due_ns))
            self._start_waiting()
            await asyncio.sleep(0)  # let it be sent before the next, should both be due
        if self._waiting and not self._stopped:
            self._all_started.clear()  # it is set whenever none waits, so maybe before
            await self._all_started.wait()

    def stop(self) -> None:
        """Start no further request."""
        self._stopped = True
        self._all_started.set()

    async def finish(self) -> None:
        """Wait for those under way."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    def _start_waiting(self) -> None:
        while self._waiting and not self._stopped:
            if self._free:
                place = self._free.pop()
            elif self._places_max is None or self._places < self._places_max:
                place = self._places
                self._places += 1
            else:
                return
            task = asyncio.create_task(self._occupy(place, *self._waiting.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _occupy(self, place: int, number: int, due_ns: int) -> None:
        await self._serve(place, number, due_ns)
        self._free.append(place)
        self._start_waiting()
        if not self._waiting:
            self._all_started.set()
