"""Tokens that an engine holds back: it wakes one receiver at a time, in turn.

Each stream waits for its turn, takes what was made meanwhile, and queues behind all others. While
the engine's only thread starts kernels, nobody is woken. So the more streams there are, the more
tokens an answer gets at once, the first one included, and the later its user hears of its end.
LMDeploy: lmdeploy/pytorch/engine/request.py, RequestManager.sender_wait_loop.
"""

import heapq
import math
from collections.abc import Iterator

from llmdyno.predict.underway import Request


class Wakes:
    """The queue of receivers. Its clock counts wakes: `done` of them have been until now."""

    def __init__(self, wake_s: float) -> None:
        """Take the seconds from one wake to the next."""
        self.wake_s = wake_s
        self.done = 0.0
        self._streams = 0
        self._count = 0
        self._told: list[tuple[float, int, Request, bool]] = []  # by the wake that tells it

    def join(self, request: Request) -> None:
        """Let a request's receiver queue behind all others."""
        self._streams += 1
        request.woken = self.done + self._streams

    def tell(self, request: Request, *, last: bool) -> None:
        """Let the receiver hear of its first or its last token.

        A receiver that waited for its first token already is told at once; one that waits for its
        turn, then.
        """
        due = request.woken
        if last and due < self.done:  # its turn comes again and again
            streams = max(1, self._streams)
            due += streams * math.ceil((self.done - due) / streams)
        self._count += 1
        heapq.heappush(self._told, (max(due, self.done), self._count, request, last))

    def next_s(self) -> float:
        """Return the seconds until somebody is told something while nothing hinders it."""
        return (self._told[0][0] - self.done) * self.wake_s if self._told else math.inf

    def passed(
        self, begin_s: float, end_s: float, blocked_s: float
    ) -> Iterator[tuple[Request, float, bool]]:
        """Let time pass; yield whose receiver was told, when, and whether of its last token.

        Args:
            begin_s: from when.
            end_s: to when. At least one receiver is woken.
            blocked_s: of this the engine's thread starts kernels.
        """
        wakes = max(1.0, (end_s - begin_s - blocked_s) / self.wake_s)
        until = self.done + wakes
        while self._told and self._told[0][0] <= until:
            due, _, request, last = heapq.heappop(self._told)
            yield request, begin_s + (due - self.done) / wakes * (end_s - begin_s), last
            if last:
                self._streams -= 1
            else:
                request.woken = due + self._streams
        self.done = until
