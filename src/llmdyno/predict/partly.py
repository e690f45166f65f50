"""Preemption block by block: who has to give way loses as much of the cache as is needed.

OpenVINO GenAI, src/cpp/src/continuous_batching/scheduler.hpp (_apply_preemption,
_preempt_by_recompute) and cache/block_manager.hpp (required_blocks_count). Whose block is full
takes another one; if none is free, the last one that holds any gives its last block up, and
computes those tokens again. An answer that was stopped goes on when all of its missing blocks are
there, for which it takes those of prompts that came later; until then prompts take what is free.

A sequence's states take blocks, too, as many as their bytes fill, and what layers with a window
have forgotten takes none, so that simulation and memory.py count alike. A state has no earlier one
to go back to: who gives blocks up computes all of its tokens again (not run by us).
"""

import functools
import math
from bisect import bisect_left, bisect_right
from collections import deque

from llmdyno.predict.rules import Load, Rules
from llmdyno.predict.schedule import LEAP_MAX, Simulation
from llmdyno.predict.steptime import StepTime
from llmdyno.predict.underway import Request


class Partly(Simulation):
    """A simulation that counts blocks."""

    _stopped: tuple[Request, ...] = ()  # in this step, in which they compute nothing

    def __init__(self, rules: Rules, time: StepTime, load: Load) -> None:
        super().__init__(rules, time, load)
        self._blocks = functools.cache(self._blocks_of)
        self._is_plain = not (rules.state_tokens or rules.window_share)

    def _blocks_of(self, kept: int) -> int:
        """Return the blocks of a sequence with so many tokens in the cache: it grows with them."""
        return math.ceil(self.rules.kept(kept, 1) / self.rules.block) if kept > 0 else 0

    def _free(self) -> int:
        """Return how many blocks nobody holds."""
        held = sum(self._blocks(self._kept(each)) for _, _, each in self.running)
        held += sum(self._blocks(each.context - each.left) for each in self.partial)
        return int(self.rules.cache_tokens / self.rules.block) - held + self._shared()

    def _shared(self) -> int:
        """Return how many blocks the sequences' own sums count too often."""
        shared, within = self.cache.shared, len(self.running) + len(self.partial)
        if not shared or self._is_plain:
            return shared
        context, rules = self._contexts(), self.rules
        own = rules.kept(context - shared * rules.block, within)
        return int((rules.kept(context, within) - own) / rules.block)

    def _beyond(self, request: Request) -> int:
        """Return the blocks that a prompt with a prefix of others takes beyond those of its rest.

        Its states are its own, and layers that forget keep its rest, not the prefix.
        """
        kept = request.context - request.left
        if not kept or self._is_plain:
            return 0
        return self._blocks(request.left) - self._lacks(request, request.left)

    def _kept(self, request: Request) -> int:
        """Return the tokens in the cache of one that decodes: all but the last it has made."""
        return request.context + self.step - request.joined - 1

    def _room(self) -> float:
        return self._free()

    def _needed(self, steps: int = 1) -> int:
        """Return how many blocks those that decode take in so many steps."""
        kept = [self._kept(each) for _, _, each in self.running]
        return sum(self._blocks(each + steps) - self._blocks(each) for each in kept)

    def _steps_of_room(self) -> int:
        free = self._free()
        if self._needed(LEAP_MAX) <= free:
            return LEAP_MAX
        return max(1, bisect_right(range(LEAP_MAX), free, key=self._needed) - 1)

    def _make_room(self) -> None:
        """Let the last ones give blocks up while those that decode need more than are free."""
        needed = self._needed() - self._free()
        while needed > 0:
            if given := self._give_up():
                needed -= given
                continue
            if len(self.running) < 2:
                break
            request = self._stop_last()
            self.seen.preempted += 1
            request.left = 1  # its next token
            self._stopped += (request,)
            needed -= self._blocks(request.context) - self._blocks(request.context - 1)
            self.partial.appendleft(request)

    def _give_up(self, first: int = 0) -> int:
        """Let the last that waits with blocks give its last one up; return how many are free now.

        Args:
            first: of those who wait, in their order; who comes before it gives nothing.
        """
        for request in list(self.partial)[first:][::-1]:
            kept = request.context - request.left
            if kept > 0:
                held = self._blocks(kept)
                rest = bisect_left(range(kept), held, key=self._blocks) - 1
                if self.rules.state_tokens:
                    rest = 0
                request.left = request.context - rest
                self._stopped += (request,)
                return held - self._blocks(rest)
        return 0

    def _plan_prompts(self) -> tuple[int, float, list[Request]]:
        self._capped = self._crowded = False
        rules, ended, waiting = self.rules, list[Request](), deque[Request]()
        budget = rules.tokens - len(self.running) * rules.mixes
        free = self._free() - self._needed() * rules.mixes
        total, seen = 0, 0.0
        for place, request in enumerate(self.partial):
            alone = not (self.running or total)
            while (
                (request.done or alone)
                and self._lacks(request, budget - total) > free
                and (given := self._give_up(place + 1))
            ):
                free += given
            taken, blocks = self._taken(request, budget - total, free)
            if request in self._stopped:
                taken, blocks = 0, 0
            total, free, seen = total + taken, free - blocks, seen + request.compute(taken)
            (waiting if request.left else ended).append(request)
        self.partial, self._stopped = waiting, ()
        while self.waiting and total < budget and not self._is_full(len(ended)):
            request = self.waiting[0]
            self._match(request)
            whole = budget if rules.chunks or total else max(budget, request.left)
            beyond = self._beyond(request)
            taken, blocks = self._taken(request, whole - total, free - beyond)
            if not taken:
                self._crowded = self._lacks(request, budget) > free - beyond
                break
            self._let_in(self.waiting.popleft())
            total, free = total + taken, free - blocks - beyond
            seen += request.compute(taken)
            (self.partial if request.left else ended).append(request)
        return total, seen, ended

    def _is_full(self, ended: int) -> bool:
        """Whether as many sequences are in as may be."""
        held = len(self.running) + len(self.partial) + ended
        self._capped = held >= self.rules.sequences
        return self._capped

    def _lacks(self, request: Request, budget: int) -> int:
        """Return how many blocks a request needs to compute all that a step has tokens for."""
        kept = request.context - request.left
        return self._blocks(kept + min(request.left, budget)) - self._blocks(kept)

    def _taken(self, request: Request, budget: int, free: int) -> tuple[int, int]:
        """Return the tokens that a request may compute, and the blocks that it takes for them."""
        kept = request.context - request.left
        held, most = self._blocks(kept), max(0, min(request.left, budget))
        taken = most
        if self._blocks(kept + most) - held > free:
            within = range(kept, kept + most)
            taken = max(0, bisect_right(within, held + free, key=self._blocks) - 1)
        whole = request.left if not self.rules.chunks else min(request.left, budget)
        if taken < whole and (request.done or not self.rules.chunks):
            return 0, 0
        return taken, self._blocks(kept + taken) - held
