"""How a level ends: first no new request starts, then the requests in flight are cut.

Users and arrivals wait only in `Ending.pause` and `Ending.unless_cut`, so that nothing delays the
end of a level.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llmdyno.wire.connect import ConnectError

Result = TypeVar("Result")


class Ending:
    """The two ends of one level, and the tasks that they wake.

    Args:
        now_ns: the level's clock.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._stopped = asyncio.Event()
        self._cut = asyncio.Event()
        self._pausing: set[asyncio.Task[None]] = set()  # woken by stop()
        self._connecting: set[asyncio.Task[None]] = set()  # woken by release()
        self.stopped_ns = 0  # the moment after which no request starts; 0: not yet

    @property
    def is_stopped(self) -> bool:
        """Whether no new request may start."""
        return self._stopped.is_set()

    @property
    def is_cut(self) -> bool:
        """Whether requests in flight must end now."""
        return self._cut.is_set()

    def stop(self) -> None:
        """Let no new request start, and wake all that pause; returns at once."""
        if self.is_stopped:
            return
        self.stopped_ns = self._now_ns()
        self._stopped.set()
        for task in self._pausing:
            task.cancel()

    def cut(self) -> None:
        """Ask for the end of requests in flight; the task in `until_cut` then ends them."""
        self.stop()
        self._cut.set()

    def release(self) -> None:
        """Wake all that wait for a connection; they get ConnectError "cut"."""
        for task in self._connecting:
            task.cancel()

    async def until_stopped(self) -> None:
        """Wait until no new request may start."""
        await self._stopped.wait()

    async def until_cut(self, timeout_s: float | None) -> bool:
        """Wait up to so many seconds (None: without limit) for the cut; return whether it came."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._cut.wait()
        except TimeoutError:
            return False
        return True

    async def pause(self, duration_s: float) -> bool:
        """Sleep so long, or until stop(); return whether new requests may still start."""
        if duration_s > 0 and not self._stopped.is_set():
            task = _current_task()
            self._pausing.add(task)
            try:
                await asyncio.sleep(duration_s)
            except asyncio.CancelledError:
                if not self._stopped.is_set():
                    raise
                task.uncancel()
            finally:
                self._pausing.discard(task)
        return not self.is_stopped

    async def unless_cut(self, connecting: Callable[[], Awaitable[Result]]) -> Result:
        """Wait for a connection, but no longer than until the cut.

        Raises:
            ConnectError: the cut came first (kind "cut"), or `connecting` raised it.
        """
        if self._cut.is_set():
            raise ConnectError("cut", "")
        task = _current_task()
        self._connecting.add(task)
        try:
            return await connecting()
        except asyncio.CancelledError:
            if not self._cut.is_set():
                raise
            task.uncancel()
            raise ConnectError("cut", "") from None
        finally:
            self._connecting.discard(task)


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None, "called by a task"
    return task
