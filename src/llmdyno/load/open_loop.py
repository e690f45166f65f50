"""The open loop: requests start when they are due, whatever happened to those before them.

Each request in flight has a slot, and a slot keeps its connection for the next request. The slot
that was freed last is reused first, so that no more connections are open than were needed at once.
If the number of slots is limited, requests queue for one in order. Their due times stay: a latency
that runs from due includes the time in that queue. So a server that is too slow for the load cannot
hide it by slowing the client down (coordinated omission).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence


class OpenLoop:
    """The requests of one level, each started when it is due.

    Args:
        due_ns: when each request is due, ascending, by the clock.
        send: takes (slot, number, due_ns), sends that request, and returns when it has ended.
        pause: sleeps so many seconds; returns whether new requests may still start.
        now_ns: the clock.
        slots_max: the limit on requests in flight; None: there is none.
    """

    def __init__(
        self,
        due_ns: Sequence[int],
        send: Callable[[int, int, int], Awaitable[None]],
        *,
        pause: Callable[[float], Awaitable[bool]],
        now_ns: Callable[[], int],
        slots_max: int | None,
    ) -> None:
        self._due_ns = due_ns
        self._send = send
        self._pause = pause
        self._now_ns = now_ns
        self._slots_max = slots_max
        self._slots = 0  # slots made so far
        self._free: list[int] = []
        self._waiting: deque[tuple[int, int]] = deque()  # (number, due_ns) without a slot yet
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._all_started = asyncio.Event()
        self.unsent_due_ns: list[int] = []  # of requests that got no slot before the end

    @property
    def waiting(self) -> int:
        """The number of requests that are due and wait for a slot."""
        return len(self._waiting)

    async def start_all(self) -> None:
        """Start each request when it is due; wait until the last has started, or until stop()."""
        for number, due_ns in enumerate(self._due_ns):
            if not await self._pause((due_ns - self._now_ns()) / 1e9):
                return
            self._waiting.append((number, due_ns))
            self._start_waiting()
            await asyncio.sleep(0)  # lets this one send first if the next is due at the same time
        if self._waiting and not self._stopped:
            self._all_started.clear()  # it is set whenever the queue is empty
            await self._all_started.wait()

    def stop(self) -> None:
        """Start no further request; those that wait for a slot are unsent."""
        self._stopped = True
        self.unsent_due_ns = [due_ns for _, due_ns in self._waiting]
        self._all_started.set()

    async def finish(self) -> None:
        """Wait for the requests in flight to end."""
        while self._in_flight:
            await asyncio.gather(*self._in_flight)

    def _start_waiting(self) -> None:
        while self._waiting and not self._stopped:
            if self._free:
                slot = self._free.pop()
            elif self._slots_max is None or self._slots < self._slots_max:
                slot = self._slots
                self._slots += 1
            else:
                return
            task = asyncio.create_task(self._occupy(slot, *self._waiting.popleft()))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _occupy(self, slot: int, number: int, due_ns: int) -> None:
        await self._send(slot, number, due_ns)
        self._free.append(slot)
        self._start_waiting()
        if not self._waiting:
            self._all_started.set()
