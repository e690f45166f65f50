"""What can wait is done once nothing has to be passed on.

A model's step ends for all its streams at once, so their tokens come together. What a token costs
after it was passed on (its parsing, the end of an answer, its way to the scribe) would delay those
behind it.
"""

import asyncio
from collections import deque
from collections.abc import Callable

_AT_ONCE = 4  # some tens of microseconds; then it is looked whether something has come


class Afterwards:
    """Calls what it is given, in its order, in rounds of the event loop in which nothing new came.

    Args:
        loop: the event loop, which reads all connections between two of its rounds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._known = 0  # of those that wait, how many did in the round before
        self._is_due = False

    def call(self, one: Callable[[], None]) -> None:
        """Call it once a round has brought nothing new, after those that wait already."""
        self._waiting.append(one)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        has_news = len(self._waiting) != self._known
        turn = 0 if has_news else min(_AT_ONCE, self._known)
        self._known = len(self._waiting) - turn
        self._is_due = self._known > 0
        if self._is_due:
            self._loop.call_soon(self._round)
        for _ in range(turn):
            self._loop.call_soon(self._waiting.popleft())  # one that fails stops no other
