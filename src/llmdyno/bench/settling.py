"""Waits before a level until the server is done with answers on which we hung up.

Many servers hear a hang-up late, or never: they go on with the answer, and what is measured next
waits behind it, or shares the machine with it. So after a rehearsal that was broken off, and after
a level at whose end requests were cut, a short question is asked until it is answered as soon as an
idle server answers it. A server that one answer keeps busy answers it once that answer is over. The
time for this is bounded; if it is over, the level begins, and a doubt says so.

How soon an idle server answers is learned before any load. Where it is not known, the wait ends
once answers stop getting quicker, and no idle time is claimed. A server may be steadily busy then:
its page of metrics tells, where there is one: it waits until that counts no request any more.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import perf_counter_ns

from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.errors import TargetError
from llmdyno.records.entries import Settled
from llmdyno.spec import Bench
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import Target
from llmdyno.workload.words import synthetic_text

SETTLES_S = 30.0  # at most; then the level begins all the same
SHORT_WORDS = 50  # of a short question
_PAUSE_S = 0.1  # between two questions
# An idle server answers within this: so many times its quickest answer, and some more.
_IDLE_TIMES = 1.5
_IDLE_MORE_NS = 5_000_000
# Without an idle answer to compare with: so many answers in a row are no quicker than one before.
_STEADY_ANSWERS = 5
_QUICKER_TIMES = 0.95  # of the quickest before; less than that is noise
_LEARNS_S = 10.0  # at most, for each question
_BUSY = frozenset({"429", "503", "timeout", "grpc-resource-exhausted"})  # statuses and errors


def question(spec: Bench, words: int) -> Ask:
    """Return what asks the first model for one token after a prompt of so many words."""
    return Ask(
        prompt=synthetic_text(words, random.Random(words)),
        model=spec.models[0].name,  # its adapters have the same tokenizer
        max_tokens=1,
        renamed=spec.renamed,
        tensors=spec.tensors,
    )


# Returns how many requests the server says that it has, running and waiting; None: it does not say.
UnderWay = Callable[[], Awaitable[float | None]]


async def _unknown() -> None:
    """Stand for a server without a page of metrics."""


class Settler:
    """Knows how soon an idle server answers a short question, and waits until it does so again.

    Args:
        target: the server.
        now_ns: the clock of the responses.
    """

    def __init__(self, target: Target, now_ns: Callable[[], int] = perf_counter_ns) -> None:
        self.is_due = False  # a hang-up of ours may still keep the server busy
        self._target = target
        self._now_ns = now_ns
        self._idle_ns: int | None = None  # the quickest answer of an idle server

    def note(self, response: Response) -> None:
        """Learn from the answer to a short question, unless a hang-up may have delayed it."""
        if not self.is_due and response.status == 200 and not response.error:
            took_ns = response.end_ns - response.sent_ns
            self._idle_ns = took_ns if self._idle_ns is None else min(took_ns, self._idle_ns)

    async def learn(self, spec: Bench, endpoint: Endpoint) -> None:
        """Ask before any load how soon an idle server answers, where no answer has told it.

        Args:
            spec: with endpoint, model and tensors filled in.
            endpoint: the protocol.
        """
        if self.is_due or self._idle_ns is not None:
            return
        prober = Prober(self._target)
        try:
            for _ in range(2):  # the first answer of a fresh server is slow
                response = await _asked(prober, spec, endpoint, _LEARNS_S)
                self.is_due = prober.has_hung_up
                self.note(response)
        except TargetError:  # the level will say what is wrong
            return
        finally:
            prober.close()

    async def settle(
        self, spec: Bench, endpoint: Endpoint, level: int, under_way: UnderWay = _unknown
    ) -> Settled | None:
        """Wait until the server is idle, for SETTLES_S at most.

        Args:
            spec: with endpoint, model and tensors filled in.
            endpoint: the protocol.
            level: the number of the level that begins next.
            under_way: asks the server how many requests it has, while none of ours waits.

        Returns:
            How long that took; None: the server answers no such question, so nothing is known.
        """
        self.is_due = False
        is_idle = False
        steadiness = _Steadiness()
        prober = Prober(self._target)
        began_ns = self._now_ns()
        ends_ns = began_ns + round(SETTLES_S * 1e9)
        try:
            while True:
                left_s = (ends_ns - self._now_ns()) / 1e9
                response = await _asked(prober, spec, endpoint, left_s)
                is_busy = not _BUSY.isdisjoint({str(response.status), response.error})
                if not is_busy and (response.error or response.status != 200):
                    return None
                is_steady = steadiness.is_reached(None if is_busy else response)
                is_idle = not is_busy and self._is_idle(response, is_steady=is_steady)
                if is_idle and self._idle_ns is None:
                    is_idle = not await under_way()
                if is_idle:
                    break
                if self._now_ns() + _PAUSE_S * 1e9 >= ends_ns:
                    break
                await asyncio.sleep(_PAUSE_S)
        except TargetError:  # the level will say what is wrong
            return None
        finally:
            prober.close()
        return Settled(
            level=level,
            waited_ns=self._now_ns() - began_ns,
            answered_ns=response.end_ns - response.sent_ns,
            idle_ns=-1 if self._idle_ns is None else self._idle_ns,
            busy=not is_idle,
        )

    def _is_idle(self, response: Response, *, is_steady: bool) -> bool:
        """Whether an answer came as soon as an idle server's; if that is not known: as ever."""
        if self._idle_ns is None:
            return is_steady
        took_ns, before_ns = response.end_ns - response.sent_ns, self._idle_ns
        self._idle_ns = min(took_ns, before_ns)
        return took_ns <= _IDLE_TIMES * before_ns + _IDLE_MORE_NS


class _Steadiness:
    """Notices when the answers of a server have stopped getting quicker."""

    def __init__(self) -> None:
        self._quickest_ns: int | None = None
        self._unbeaten = 0  # answers since the quickest

    def is_reached(self, response: Response | None) -> bool:
        """Say so after the next answer; None: the server was too busy for one."""
        if response is None:
            self._unbeaten = 0
            return False
        took_ns = response.end_ns - response.sent_ns
        if self._quickest_ns is None or took_ns < _QUICKER_TIMES * self._quickest_ns:
            self._quickest_ns, self._unbeaten = took_ns, 0
        else:
            self._unbeaten += 1
        return self._unbeaten >= _STEADY_ANSWERS


async def _asked(prober: Prober, spec: Bench, endpoint: Endpoint, timeout_s: float) -> Response:
    ask = question(spec, SHORT_WORDS)
    path, body = endpoint.path(ask.model), endpoint.body(ask)
    return await prober.answer("POST", path, body, timeout_s=max(timeout_s, _PAUSE_S))
