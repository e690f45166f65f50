"""A discrete-event simulation of an engine's scheduler: who is in which step, and when it ends.

The rules, and where each engine's source has its own, are in rules.py.
Between two events (a prompt, an end) steps have the same sequences: they are one leap.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence

from llmdyno.predict.api import ApiServers
from llmdyno.predict.blocks import BlockCache
from llmdyno.predict.rules import Happened, Load, Rules
from llmdyno.predict.starts import Starts
from llmdyno.predict.steptime import StepTime
from llmdyno.predict.underway import Asks, Request
from llmdyno.predict.wakes import Wakes

LEAP_MAX = 64  # steps in one leap: the context grows meanwhile
_ESTIMATE_SHARE = 0.5  # of the answers' remaining tokens, SGLang's new_token_ratio half decayed
_STEPS_MAX = 400_000


class Simulation:
    """One run. Times are seconds since the level's start."""

    def __init__(self, rules: Rules, time: StepTime, load: Load) -> None:
        self.rules = rules
        self.time = time
        self.load = load
        self.now_s = 0.0
        self.last_s = 0.0  # the last step's time
        self.context = 0.0  # tokens of context of all that decode
        self.reserved = 0.0  # tokens of answers that are still to be made by all that are in
        self.coming: list[tuple[float, int, Request]] = []  # by arrival at the engine
        self.waiting: deque[Request] = deque()
        self.partial: deque[Request] = deque()
        self.running: list[tuple[int, int, Request]] = []  # by the step that ends them
        self.leaving: deque[float] = deque()  # slots whose end is not yet seen
        self.seen = Happened()
        self._asks = Asks(load)
        self.step = self._count = 0
        # A heap: when requests leave the client, and whose they are.
        self.sending = sorted((start_s, user) for user, start_s in enumerate(load.starts_s))
        self.cache = BlockCache()
        self._starts = Starts(time)
        self._held_off = 0  # steps of decodes since prompts began to wait for their turn
        self._chunked = False  # whether the last step had a long prompt's chunk
        self._capped, self._crowded = False, False  # what keeps the next prompt out
        self.wakes = Wakes(rules.wakes) if rules.wakes else None
        token_s = time.token_api_s * rules.writes
        self._api = ApiServers(rules.servers, time.api_s, token_s, rules.merges)

    def run(self) -> Happened:
        """Simulate to the end of the level."""
        for _ in range(_STEPS_MAX):
            if self.now_s >= self.load.duration_s or not self._advance():
                break
        begin_s, self.now_s = self.now_s, max(self.now_s, self.load.duration_s)
        self._write(begin_s, 0)
        self.seen.unfinished = len(self.waiting) + len(self.partial) + len(self.running)
        return self.seen

    def _send(self, sent_s: float, user: int) -> None:
        """Let a request, sent by now, pass an API server's queue on its way to the engine."""
        ask = self._asks.next(user)
        if ask is None:
            return
        request = Request(ask, sent_s, user)
        self._count += 1
        arrives_s = self._api.passed_s(sent_s, len(self.running), self.last_s)
        heapq.heappush(self.coming, (arrives_s, self._count, request))

    def _advance(self) -> bool:
        """Take one step, or a leap of equal ones; False: nothing is left to do."""
        planned_s = self.now_s - self.last_s * self.rules.ahead
        heard_s = self.wakes.heard_s(planned_s) if self.wakes else planned_s
        while self.sending and self.sending[0][0] <= self.now_s:
            self._send(*heapq.heappop(self.sending))
        while self.coming and self.coming[0][0] <= heard_s:
            self.waiting.append(heapq.heappop(self.coming)[2])
            if self.wakes:
                self.wakes.join(self.waiting[-1])
        while self.leaving and self.leaving[0] <= planned_s:
            self.leaving.popleft()
        self._make_room()
        chunk, look, ended = self._plan_prompts()
        if not self.cache.is_empty:
            self.cache.trim(self._room())
        if chunk or ended:  # who was stopped may have lost nothing
            self._mixed_step(chunk, look, ended)
        elif self.running:
            self._leap()
        elif (next_s := self._next_s()) < math.inf:
            begin_s, self.now_s, self.last_s = self.now_s, max(self.now_s, next_s), 0.0
            if self.wakes:
                self._wake(begin_s, self.wakes.while_idle(self.now_s - begin_s))
            self._write(begin_s, 0)
        else:
            return False
        return True

    def _next_s(self) -> float:
        """When something comes from outside, if nothing is in a step."""
        moments = [start_s for start_s, _ in self.sending[:1]]
        moments += [arrives_s for arrives_s, _, _ in self.coming[:1]]
        moments += list(self.leaving)[:1]
        if self.wakes:
            moments.append(self.now_s + self.wakes.next_s())
        return min(moments, default=math.inf)

    def _used(self, beside: Sequence[Request] = (), hit: float = 0.0) -> float:
        """Tokens of the cache that are taken: half a block is lost at the end of each sequence.

        Args:
            beside: requests that are to be counted, too.
            hit: tokens of their prompts that are in the cache already. What sequences share is
                there once; layers that forget share no more than they keep beside each one's own.
        """
        within = len(self.running) + len(self.partial)
        context = self._contexts() + sum(each.context for each in beside)
        own = context - self.cache.shared * self.rules.block - hit
        return self.rules.kept(own, within + len(beside)) + within * self.rules.block / 2

    def _contexts(self) -> float:  # of all that are in
        return sum(each.context for each in self.partial) + self.context

    def _room(self) -> float:
        """Blocks that no sequence holds."""
        return (self.rules.cache_tokens - self._used()) / self.rules.block

    def _steps_of_room(self) -> int:
        """Return for how many steps there is room for what all that decode will make."""
        return int((self.rules.cache_tokens - self._used()) / len(self.running))

    def _make_room(self) -> None:
        """Preempt the last ones let in while the next step's tokens do not fit."""
        rules = self.rules
        needed = self._used() + len(self.running) - rules.cache_tokens
        while len(self.running) > 1 and needed > 0:
            request = self._stop_last()
            self.seen.preempted += 1
            request.left = request.context
            self.reserved -= request.answer - request.done
            self._release(request)
            self.waiting.appendleft(request)
            needed = self._used() + len(self.running) - rules.cache_tokens

    def _stop_last(self) -> Request:
        """Take the last one let in out of the steps."""
        _, _, request = victim = max(self.running, key=lambda each: each[1])
        self.running.remove(victim)
        heapq.heapify(self.running)
        made = self.step - request.joined
        self.context -= request.context + made
        request.context += made
        request.done += made
        return request

    def _fits(self, request: Request, beside: Sequence[Request]) -> bool:
        """Whether one more may come in, beside those whose prompts end in this very step."""
        rules = self.rules
        held = len(self.running) + len(self.partial) + len(beside)
        if held + len(self.leaving) >= rules.sequences:
            self._capped = True
            return False
        if not held:
            return True
        hit = rules.block * self.cache.held(self._prompt_blocks(request))
        used = self._used([*beside, request], hit)
        if rules.admission != "prompt":
            share = _ESTIMATE_SHARE if rules.admission == "estimate" else 1.0
            used += share * (self.reserved + request.answer - request.done)
        self._crowded = used > rules.cache_tokens
        return not self._crowded

    def _plan_prompts(self) -> tuple[int, float, list[Request]]:
        """Return tokens of prompts, the contexts that they look at, and whose prompts end."""
        self._capped = self._crowded = False
        if not (self.partial or self.waiting) or self._decodes_first():
            return 0, 0.0, []
        rules = self.rules
        budget = rules.tokens - len(self.running) * rules.mixes
        total, seen = 0, 0.0
        ended: list[Request] = []
        while self.partial and total < budget:
            request = self.partial[0]
            taken = min(budget - total, request.left)
            total, seen = total + taken, seen + request.compute(taken)
            if request.left:
                break
            ended.append(self.partial.popleft())
        if rules.whole and total:  # a long prompt's chunk has its step for itself
            self._chunked = True
            return total, seen, ended
        while self.waiting and total < budget and not self.partial:
            request = self.waiting[0]
            self._match(request)
            if not self._fits(request, ended):
                break
            beside = total or (rules.mixes and self.running)
            if (rules.whole or not rules.chunks) and request.left > budget - total and beside:
                break
            self._let_in(self.waiting.popleft())
            taken = min(budget - total, request.left) if rules.chunks else request.left
            total, seen = total + taken, seen + request.compute(taken)
            (self.partial if request.left else ended).append(request)
        self._chunked = bool(self.partial)
        return total, seen, ended

    def _decodes_first(self) -> bool:
        """Whether an engine that computes prompts by themselves lets those who decode go on."""
        rules = self.rules
        if not rules.whole or not self.running:
            return False
        if self.partial:
            self._chunked, last = False, self._chunked
            return last
        if not rules.interval or self._held_off >= rules.interval:
            self._held_off = 0
            return False
        few = len(self.running) + len(self.leaving) < rules.sequences / 2
        if few or sum(each.left for each in self.waiting) >= rules.tokens:
            self._held_off = 0
            return False
        return True

    def _let_in(self, request: Request) -> None:
        self.reserved += request.answer - request.done
        if self.load.counts(self.now_s):
            self.seen.prompts += request.context
            self.seen.cached += request.context - request.left
        ids = self._prompt_blocks(request)
        self.cache.hold(ids)
        request.held = len(ids)

    def _match(self, request: Request) -> None:
        """Find out how much of a prompt the prefix cache holds."""
        if request.blocks:
            hits = self.cache.hits(self._prompt_blocks(request)) * self.rules.block
            request.left = request.context - min(hits, request.context - 1)

    def _prompt_blocks(self, request: Request) -> Sequence[int]:
        """Blocks of what a request has to compute before its next token."""
        return request.blocks[: request.context // self.rules.block]

    def _release(self, request: Request) -> None:
        """Let the blocks go that a request held: others may still find them."""
        if request.blocks:
            self.cache.release(request.blocks[: request.held], self._room())
            request.held = 0

    def _mixed_step(self, chunk: int, look: float, ended: Sequence[Request]) -> None:
        """Take a step that computes prompts, beside the decodes where the rules mix them."""
        decodes = len(self.running) if self.rules.mixes else 0
        context = self.context if decodes else 0.0
        gpu, host = self.time.parts(decodes, context, chunk, look, len(ended))
        host += self._starts.more_s(1, decodes, chunk)
        seconds = self.time.joined_s(gpu, host, decodes, chunk)
        made = decodes + len(ended)
        # The process that takes tokens out first starts the next step, if that one is planned.
        late_s = 0.0
        if self.rules.plans_ahead and self.coming and self.coming[0][0] <= self.now_s:
            late_s = min(host, seconds) / 2
        self._pass(1, gpu, host, seconds, decodes, chunk, len(ended))
        if decodes:
            self._step_on(1)
        for request in ended:
            request.done += 1
            self.reserved -= 1
            request.joined = self.step
            request.context += 1
            if request.done == 1:
                self._tell(request, self.now_s + late_s + self._api.handover_s(made), last=False)
            if request.done >= request.answer:
                self._end(request, made)
                continue
            self._count += 1
            self.context += request.context
            ends = self.step + request.answer - request.done
            heapq.heappush(self.running, (ends, self._count, request))

    def _leap(self) -> None:
        """Take steps of decodes only until somebody ends or somebody may come in."""
        decodes = len(self.running)
        steps = min(self.running[0][0] - self.step, LEAP_MAX)
        steps = max(1, min(self._starts.leap(decodes, steps), self._steps_of_room()))
        gpu, host = self.time.parts(decodes, self.context + decodes * steps / 2)
        host += self._starts.more_s(steps, decodes, 0)
        seconds = self.time.joined_s(gpu, host, decodes, 0)
        free = decodes + len(self.partial) + len(self.leaving) < self.rules.sequences
        until_s = math.inf
        if free and not self.waiting:
            until_s = self.coming[0][0] if self.coming else math.inf
            if self.sending:
                until_s = min(until_s, self.sending[0][0] + self.time.api_s)
        if self.leaving and self.waiting:
            until_s = min(until_s, self.leaving[0])
        if self.wakes and self.load.closed:
            told = self.wakes.until_end() / self.wakes.a_step(gpu, host)
            steps = max(1, math.ceil(min(told, steps)))
        if self.waiting and self.rules.interval:
            steps = min(steps, max(1, self.rules.interval - self._held_off))
        if self.partial:  # a long prompt's next chunk
            steps = 1
        elif until_s < math.inf:
            wait_s = until_s - self.now_s + seconds * self.rules.ahead
            steps = max(1, min(steps, math.ceil(wait_s / seconds)))
        self._held_off = self._held_off + steps if self.waiting else 0
        if self.wakes:
            planned_s = self.now_s + (steps - 1) * seconds
            self.wakes.prompt_next = free and bool(self.coming) and self.coming[0][0] <= planned_s
        self._pass(steps, gpu, host, seconds, decodes)
        self._step_on(steps)

    def _step_on(self, steps: int) -> None:
        """Count steps of the running sequences, and let those leave whose answer is whole."""
        self.step += steps
        made = len(self.running)
        self.context += made * steps
        self.reserved -= made * steps
        while self.running and self.running[0][0] <= self.step:
            request = heapq.heappop(self.running)[2]
            self.context -= request.context + self.step - request.joined
            self._end(request, made)

    def _end(self, request: Request, made: int) -> None:
        if request.blocks:
            self.cache.hold(request.blocks[request.held :])
            request.held = len(request.blocks)
            self._release(request)
        if self.rules.plans_ahead:
            self.leaving.append(self.now_s)
        self._tell(request, self.now_s + self._api.handover_s(made), last=True)

    def _tell(self, request: Request, moment_s: float, *, last: bool) -> None:
        """Let a user hear of a first or a last token, at once or when its receiver is woken."""
        if self.wakes:
            self.wakes.tell(request, last=last)
        else:
            self._told(request, moment_s, last=last)

    def _told(self, request: Request, moment_s: float, *, last: bool) -> None:
        if not last:
            request.first_s = moment_s
            if self.load.counts(moment_s):
                self.seen.ttft_s.append(moment_s - request.sent_s)
            return
        if self.load.counts(moment_s):
            self.seen.e2e_s.append(moment_s - request.sent_s)
            if request.answer > request.first_tokens:
                tokens = request.answer - request.first_tokens
                self.seen.tpot_s.append((moment_s - request.first_s) / tokens)
        if self.load.closed and moment_s < self.load.duration_s:
            heapq.heappush(self.sending, (moment_s + self.load.think_s, request.user))

    def _wake(self, begin_s: float, wakes: float) -> None:
        """Let those hear of their tokens whose turn has come in so many wakes until now."""
        woken = self.wakes.passed(begin_s, self.now_s, wakes) if self.wakes else ()
        for request, moment_s, last in woken:
            if not last:
                made = request.done + self.step - request.joined
                made += int((moment_s - begin_s) / self.last_s) if self.last_s else 0
                request.first_tokens = max(1, min(request.answer, made))
            self._told(request, moment_s, last=last)

    def _pass(
        self, steps: int, gpu: float, host: float, seconds: float, decodes: int, chunk: int = 0,
        new: int = 0,
    ) -> None:  # fmt: skip
        """Let time pass, and add up what counts of it."""
        took_s = steps * seconds
        begin_s, self.now_s, self.last_s = self.now_s, self.now_s + took_s, seconds
        self._starts.passed(steps, decodes, chunk)
        if self.wakes:
            self._wake(begin_s, self.wakes.in_steps(steps, gpu, host, prompts=chunk > 0))
        self._write(begin_s, steps * (decodes + new), decodes + new)
        low, high = self._counted(begin_s)
        if high <= low:
            return
        seen, counted = self.seen, steps * (high - low) / took_s
        running, waiting = len(self.running) + len(self.partial), len(self.waiting)
        seen.passed(high - low, running, waiting * self._capped, waiting * self._crowded)
        seen.stepped(counted, decodes, self.context if decodes else 0.0, chunk, new)
        if host > gpu:
            seen.host_s += high - low

    def _counted(self, begin_s: float) -> tuple[float, float]:
        """Return what of the time since a moment counts: from when, and until when."""
        return max(begin_s, self.load.window_s), min(self.now_s, self.load.duration_s)

    def _write(self, begin_s: float, tokens: float, streams: int = 0) -> None:
        """Let the API servers write since a moment in which steps made so many tokens."""
        if self.now_s <= begin_s:
            return
        self._api.over(self.now_s - begin_s, tokens, streams)
        low, high = self._counted(begin_s)
        if high > low:  # nobody has had yet what waits
            self.seen.tokens -= self._api.unwritten(low - begin_s, high - begin_s)
