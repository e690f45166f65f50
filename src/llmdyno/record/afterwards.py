"""What can wait is done once nothing has to be passed on.

A model's step ends for all its streams at once, so their tokens come together. What a token costs
after it was passed on (its parsing, the end of an answer, its way to the scribe) would delay those
behind it.
"""

import asyncio
from collections import deque
from collections.abc import Callable

_AT_ONCE = 4  # some tens of microseconds; then it is looked whether something has come
# A busy loop brings something in every round, and what waits must not wait for ever.
_ROUNDS_MAX = 100
_WAITING_MAX = 256


class Afterwards:
    """Calls what it is given, in its order, in rounds of the event loop in which nothing new came.

    Where each round brings something it does a little now and then, and at once what is too much.

    Args:
        loop: the event loop, which reads all connections between two of its rounds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._known = 0  # of those that wait, how many did in the round before
        self._is_due = False
        self._put_off = 0  # rounds in a row

    def call(self, one: Callable[[], None]) -> None:
        """Call it once a round has brought nothing new, after those that wait already."""
        self._waiting.append(one)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        count = len(self._waiting)
        waits = count != self._known and self._put_off < _ROUNDS_MAX
        self._put_off = self._put_off + 1 if waits else 0
        turn = max(0 if waits else min(_AT_ONCE, count), count - _WAITING_MAX)
        self._known = count - turn
        self._is_due = self._known > 0
        if self._is_due:
            self._loop.call_soon(self._round)
        for _ in range(turn):
            self._loop.call_soon(self._waiting.popleft())  # one that fails stops no other
