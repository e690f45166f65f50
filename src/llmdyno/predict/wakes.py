"""Tokens that an engine holds back: it wakes one receiver at a time, in turn.

Each stream waits for its turn, takes what was made meanwhile, and queues behind all others. So the
more streams there are, the more tokens an answer gets at once, the first one included, and the
later its user hears of its end. Wakes share one event loop with the steps. A wake is three passes
of it (the timer, the waiting coroutine, the receiver), and a pass is as long as what it runs: so a
step has about one wake while the loop starts its kernels, however long that takes, and many while
the loop has nothing to do but to ask the GPU whether it is done.
LMDeploy: lmdeploy/pytorch/engine/request.py, RequestManager.sender_wait_loop.
"""

import heapq
import math
from collections.abc import Iterator

from llmdyno.engines._scheduling import Waking
from llmdyno.predict.underway import Request

_ROUNDING = 1e-6  # of a wake: who is to be told at a moment is told when the moment has come


class Wakes:
    """The queue of receivers. Its clock counts wakes: `done` of them have been until now."""

    def __init__(self, waking: Waking) -> None:
        """Take how the engine's loop wakes."""
        self._waking = waking
        self.done = 0.0
        self.prompt_next = False  # whether a step of prompts follows the steps of decodes
        self._deaf = False  # whether the last step was one of prompts
        self._heard_s = 0.0
        self._streams = 0
        self._count = 0
        self._told: list[tuple[float, int, Request, bool]] = []  # by the wake that tells it
        self._ends: list[float] = []  # wakes that tell of a last token

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
        if last:
            heapq.heappush(self._ends, max(due, self.done))

    def next_s(self) -> float:
        """Return the seconds until somebody is told something while there is no step."""
        return (self._told[0][0] - self.done) * self._waking.wake_s if self._told else math.inf

    def a_step(self, gpu_s: float, host_s: float) -> float:
        """Return how many are woken in a step of which GPU and host need so long."""
        waking = self._waking
        free_s = gpu_s - max(host_s, waking.busy_s)
        return waking.a_step + max(0.0, free_s) / waking.wake_s

    def in_steps(self, steps: int, gpu_s: float, host_s: float, *, prompts: bool) -> float:
        """Return how many are woken in equal steps of prompts, or of decodes.

        With `prompt_next` the last one's tokens are taken in only when the next prompt's kernels
        are started: the loop is never free in it.
        """
        self._deaf = prompts
        held = self.prompt_next and not prompts
        wakes = steps * self.a_step(gpu_s, host_s)
        return wakes + held * (self._waking.a_step - self.a_step(gpu_s, host_s))

    def heard_s(self, planned_s: float) -> float:
        """Return until when a prompt must have come to be known to a step planned at a moment.

        The step after one of prompts is planned as soon as their kernels are started. What came
        meanwhile is still in the socket, and the loop hears of it in the step after that.
        """
        if not self._deaf:
            self._heard_s = planned_s
        return self._heard_s

    def while_idle(self, seconds: float) -> float:
        """Return how many are woken in a time without any step."""
        self._deaf = False
        return seconds / self._waking.wake_s

    def until_end(self) -> float:
        """Return after how many wakes somebody hears of an end, and may ask anew."""
        return self._ends[0] - self.done if self._ends else math.inf

    def passed(
        self, begin_s: float, end_s: float, wakes: float
    ) -> Iterator[tuple[Request, float, bool]]:
        """Let time pass; yield whose receiver was told, when, and whether of its last token.

        Args:
            begin_s: from when.
            end_s: to when.
            wakes: receivers that are woken meanwhile, spread evenly.
        """
        until = self.done + wakes
        while self._told and self._told[0][0] <= until + _ROUNDING:
            due, _, request, last = heapq.heappop(self._told)
            share = (due - self.done) / wakes if wakes else 0.0
            yield request, begin_s + share * (end_s - begin_s), last
            if last:
                heapq.heappop(self._ends)
                self._streams -= 1
            else:
                request.woken = due + self._streams
        self.done = until
