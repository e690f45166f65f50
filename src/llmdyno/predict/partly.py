"""Preemption block by block: who has to give way loses as much of the cache as is needed.

OpenVINO GenAI, src/cpp/src/continuous_batching/scheduler.hpp (_apply_preemption,
_preempt_by_recompute) and cache/block_manager.hpp (required_blocks_count). Whose block is full
takes another one; if none is free, the last one that holds any gives its last block up, and
computes those tokens again. An answer that was stopped goes on when all of its missing blocks are
there, for which it takes those of prompts that came later; until then prompts take what is free.
"""

from collections import deque

from llmdyno.predict.schedule import Simulation
from llmdyno.predict.underway import Request


class Partly(Simulation):
    """A simulation that counts blocks."""

    _stopped: tuple[Request, ...] = ()  # in this step, in which they compute nothing

    def _free(self) -> int:
        """Return how many blocks nobody holds."""
        block = self.rules.block
        held = sum(-(-self._kept(each) // block) for _, _, each in self.running)
        held += sum(-(-(each.context - each.left) // block) for each in self.partial)
        return int(self.rules.cache_tokens / block) - held + self.cache.shared

    def _kept(self, request: Request) -> int:
        """Return the tokens in the cache of one that decodes: all but the last it has made."""
        return request.context + self.step - request.joined - 1

    def _room(self) -> float:
        return self._free()

    def _full(self) -> list[int]:
        """Return in how many steps each that decodes takes another block; 0: in the next one."""
        return sorted(-self._kept(each) % self.rules.block for _, _, each in self.running)

    def _steps_of_room(self) -> int:
        full, free = self._full(), self._free()
        whole, rest = divmod(free, len(full))
        return max(1, whole * self.rules.block + full[rest])

    def _make_room(self) -> None:
        """Let the last ones give blocks up while those that decode need more than are free."""
        needed = self._full().count(0) - self._free()
        while needed > 0:
            if self._give_up():
                needed -= 1
                continue
            if len(self.running) < 2:
                break
            request = self._stop_last()
            self.seen.preempted += 1
            request.left = 1  # its next token
            self._stopped += (request,)
            needed -= (request.context - 1) % self.rules.block == 0
            self.partial.appendleft(request)

    def _give_up(self, first: int = 0) -> int:
        """Let the last that waits with blocks give one up; return how many: 0 or 1.

        Args:
            first: of those who wait, in their order; who comes before it gives nothing.
        """
        for request in list(self.partial)[first:][::-1]:
            kept = request.context - request.left
            if kept > 0:
                request.left += (kept - 1) % self.rules.block + 1
                self._stopped += (request,)
                return 1
        return 0

    def _plan_prompts(self) -> tuple[int, float, list[Request]]:
        self._capped = self._crowded = False
        rules, ended, waiting = self.rules, list[Request](), deque[Request]()
        budget = rules.tokens - len(self.running) * rules.mixes
        free = self._free() - self._full().count(0) * rules.mixes
        total, seen = 0, 0.0
        for place, request in enumerate(self.partial):
            alone = not (self.running or total)
            while (
                (request.done or alone)
                and self._lacks(request, budget - total) > free
                and self._give_up(place + 1)
            ):
                free += 1
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
            taken, blocks = self._taken(request, whole - total, free)
            if not taken:
                self._crowded = self._lacks(request, budget) > free
                break
            self._let_in(self.waiting.popleft())
            total, free, seen = total + taken, free - blocks, seen + request.compute(taken)
            (self.partial if request.left else ended).append(request)
        return total, seen, ended

    def _is_full(self, ended: int) -> bool:
        """Whether as many sequences are in as may be."""
        held = len(self.running) + len(self.partial) + ended
        self._capped = held >= self.rules.sequences
        return self._capped

    def _lacks(self, request: Request, budget: int) -> int:
        """Return how many blocks a request needs to compute all that a step has tokens for."""
        block, kept = self.rules.block, request.context - request.left
        return kept // -block - (kept + min(request.left, budget)) // -block

    def _taken(self, request: Request, budget: int, free: int) -> tuple[int, int]:
        """Return the tokens that a request may compute, and the blocks that it takes for them."""
        block, kept = self.rules.block, request.context - request.left
        taken = max(0, min(request.left, budget, free * block - kept % -block))
        whole = request.left if not self.rules.chunks else min(request.left, budget)
        if taken < whole and (request.done or not self.rules.chunks):
            return 0, 0
        return taken, kept // -block - (kept + taken) // -block
