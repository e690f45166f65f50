"""A discrete-event simulation of an engine's scheduler: who is in which step, and when it ends.

The rules as we understand them, and where each engine's source has its own. Of vLLM's the first
part was read for this; the others are written from what is known of them, and were not checked:
- decode first, prompts in chunks with what is left of the step's tokens, admission by sequences and
  blocks of the cache, preemption of the last one let in, which computes its prompt again:
  vllm/v1/core/sched/scheduler.py (Scheduler.schedule). With asynchronous scheduling
  (vllm/v1/core/sched/async_scheduler.py) a step is planned while the one before it runs.
- prompts first, in steps of their own; room for a share of what answers may become:
  sglang/srt/managers/scheduler.py (get_next_batch_to_run) and schedule_policy.py (PrefillAdder).
- room for the whole answer (GUARANTEED_NO_EVICT) or for the prompt only (MAX_UTILIZATION):
  TensorRT-LLM, cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp and microBatchScheduler.cpp.
- dynamic split-fuse: openvino.genai, src/cpp/src/continuous_batching/scheduler.hpp (schedule).

Between two events (a prompt, an end) every step has the same sequences: those steps are one leap.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno.engines._scheduling import Admission
from llmdyno.predict.steptime import StepTime

_LEAP_MAX = 64  # steps in one leap: the context grows meanwhile
_ESTIMATE_SHARE = 0.5  # of the answers' remaining tokens, SGLang's new_token_ratio half decayed
_STEPS_MAX = 400_000
_API_BUSY_MAX = 0.9
API_PASSES = 2  # of its event loop, that a request and its first token wait for
LATENCY_REQUESTS = 2.0  # what a request passes outside the queues, in API times: sockets, events

_SURE_SHARE = 0.3  # of that: what every request passes; the rest is exponential


class Rules(msgspec.Struct, frozen=True):
    """A scheduler's rules with their limits, see engines/_scheduling.py.

    Attributes:
        cache_tokens: tokens that the cache holds.
        servers: processes that speak HTTP.
    """

    mixes: bool
    admission: Admission
    plans_ahead: bool
    chunks: bool
    sequences: int
    tokens: int
    cache_tokens: float
    block: int
    servers: int


class Ask(msgspec.Struct, frozen=True):
    """A request: tokens of its prompt, how many of them the prefix cache holds, of its answer."""

    prompt: int
    cached: int
    answer: int


class Load(msgspec.Struct, frozen=True):
    """What is sent, and when.

    Attributes:
        asks: taken in turn, again from the first when they are used up.
        starts_s: closed loop: when each user sends its first request; open loop: every request.
        closed: each user sends again `think_s` after its answer's end.
    """

    asks: Sequence[Ask]
    starts_s: Sequence[float]
    closed: bool
    duration_s: float
    window_s: float
    think_s: float = 0.01


class Happened(msgspec.Struct):
    """What the simulation has seen in the window [Load.window_s, Load.duration_s]."""

    tokens: float = 0.0
    ttft_s: list[float] = []
    tpot_s: list[float] = []
    e2e_s: list[float] = []
    busy_s: float = 0.0
    running_s: float = 0.0
    context_s: float = 0.0
    waiting_s: float = 0.0
    host_s: float = 0.0
    steps: float = 0.0
    decodes: float = 0.0
    contexts: float = 0.0
    chunk: float = 0.0
    preempted: int = 0
    unfinished: int = 0


class _Request:
    """A request on its way; `context`: tokens that it holds in the cache when it joins."""

    __slots__ = ("answer", "context", "done", "first_s", "joined", "left", "promised", "sent_s")

    def __init__(self, ask: Ask, sent_s: float) -> None:
        self.sent_s = sent_s
        self.context = ask.prompt
        self.answer = ask.answer
        self.left = ask.prompt - min(ask.cached, ask.prompt - 1)  # tokens still to be computed
        self.done = 0  # tokens of the answer made when it joined
        self.joined = 0  # the step that made the last of these
        self.promised = 0  # tokens that admission has kept room for
        self.first_s = 0.0


class _Simulation:
    """One run. Times are seconds since the level's start."""

    def __init__(self, rules: Rules, time: StepTime, load: Load) -> None:
        self.rules = rules
        self.time = time
        self.load = load
        self.now_s = 0.0
        self.last_s = 0.0  # the last step's time
        self.step = 0
        self.context = 0.0  # tokens of context of all that decode
        self.reserved = 0.0  # tokens of answers that admission has promised
        self.coming: list[tuple[float, int, _Request]] = []  # by arrival at the engine
        self.waiting: deque[_Request] = deque()
        self.partial: deque[_Request] = deque()
        self.running: list[tuple[int, int, _Request]] = []  # by the step that ends them
        self.leaving: deque[float] = deque()  # slots whose end is not yet seen
        self.seen = Happened()
        self._count = 0
        # When each API server is free.
        self._servers = [(0.0, server) for server in range(max(1, rules.servers))]
        self._asked = 0
        self._random = random.Random("predict/latency")
        self.sending = sorted(load.starts_s)  # a heap: when requests leave the client

    def run(self) -> Happened:
        """Simulate to the end of the level."""
        for _ in range(_STEPS_MAX):
            if self.now_s >= self.load.duration_s:
                break
            if not self._advance():
                break
        self.seen.unfinished = len(self.waiting) + len(self.partial) + len(self.running)
        return self.seen

    def _send(self, sent_s: float) -> None:
        """Let a request, sent by now, pass an API server's queue on its way to the engine."""
        load = self.load
        request = _Request(load.asks[self._asked % len(load.asks)], sent_s)
        self._asked += 1
        free_s, server = heapq.heappop(self._servers)
        ready_s = max(free_s, sent_s) + self.time.api_s
        heapq.heappush(self._servers, (ready_s, server))
        self._count += 1
        # The loop takes what has come since its last pass: those requests go on together.
        pass_s = api_pass_s(self._handover_s(len(self.running)), self.last_s)
        if pass_s:
            phase_s = pass_s * server / len(self._servers)
            passes = math.ceil((ready_s - phase_s) / pass_s) + API_PASSES - 1
            ready_s = phase_s + passes * pass_s
        # Scattered: without it all prompts would keep step with the steps that ended their answers.
        scatter = _SURE_SHARE + (1 - _SURE_SHARE) * self._random.expovariate(1.0)
        arrives_s = ready_s + LATENCY_REQUESTS * self.time.api_s * scatter
        heapq.heappush(self.coming, (arrives_s, self._count, request))

    def _advance(self) -> bool:
        """Take one step, or a leap of equal ones; False: nothing is left to do."""
        planned_s = self.now_s - (self.last_s if self.rules.plans_ahead else 0.0)
        while self.sending and self.sending[0] <= self.now_s:
            self._send(heapq.heappop(self.sending))
        while self.coming and self.coming[0][0] <= planned_s:
            self.waiting.append(heapq.heappop(self.coming)[2])
        while self.leaving and self.leaving[0] <= planned_s:
            self.leaving.popleft()
        self._make_room()
        chunk, look, ended = self._plan_prompts()
        if chunk:
            self._mixed_step(chunk, look, ended)
        elif self.running:
            self._leap()
        elif (next_s := self._next_s()) < math.inf:
            self.now_s = max(self.now_s, next_s)
            self.last_s = 0.0
        else:
            return False
        return True

    def _next_s(self) -> float:
        """When something comes from outside, if nothing is in a step."""
        moments = [*self.sending[:1], *(each[0] for each in self.coming[:1])]
        if self.leaving:
            moments.append(self.leaving[0])
        return min(moments, default=math.inf)

    def _used(self) -> float:
        """Tokens of the cache that are taken: half a block is lost at the end of each sequence."""
        ends = (len(self.running) + len(self.partial)) * self.rules.block / 2
        return self.context + sum(each.context for each in self.partial) + ends

    def _make_room(self) -> None:
        """Preempt the last ones let in while the next step's tokens do not fit."""
        while len(self.running) > 1 and self._used() + len(self.running) > self.rules.cache_tokens:
            victim = max(self.running, key=lambda each: each[1])
            self.running.remove(victim)
            heapq.heapify(self.running)
            request = victim[2]
            made = self.step - request.joined
            self.context -= request.context + made
            self.reserved -= request.promised
            request.context += made
            request.done += made
            request.left = request.context
            self.waiting.appendleft(request)
            self.seen.preempted += 1

    def _fits(self, request: _Request, beside: Sequence[_Request]) -> bool:
        """Whether one more may come in, beside those whose prompts end in this very step."""
        rules = self.rules
        held = len(self.running) + len(self.partial) + len(beside)
        if held + len(self.leaving) >= rules.sequences:
            return False
        if not held:
            return True
        used = self._used() + request.context + sum(each.context for each in beside)
        if rules.admission != "prompt":
            share = _ESTIMATE_SHARE if rules.admission == "estimate" else 1.0
            used += share * (self.reserved + request.answer - request.done)
        return used <= rules.cache_tokens

    def _plan_prompts(self) -> tuple[int, float, list[_Request]]:
        """Return tokens of prompts, the contexts that they look at, and whose prompts end."""
        if not (self.partial or self.waiting):
            return 0, 0.0, []
        rules = self.rules
        budget = rules.tokens - (len(self.running) if rules.mixes else 0)
        total, seen = 0, 0.0
        ended: list[_Request] = []
        while self.partial and total < budget:
            request = self.partial[0]
            taken = min(budget - total, request.left)
            total, seen = total + taken, seen + self._compute(request, taken)
            if request.left:
                break
            ended.append(self.partial.popleft())
        while self.waiting and total < budget and not self.partial:
            request = self.waiting[0]
            if not self._fits(request, ended):
                break
            if not rules.chunks and request.left > budget - total and total:
                break
            self.waiting.popleft()
            taken = min(budget - total, request.left) if rules.chunks else request.left
            total, seen = total + taken, seen + self._compute(request, taken)
            request.promised = request.answer - request.done
            self.reserved += request.promised
            (self.partial if request.left else ended).append(request)
        return total, seen, ended

    @staticmethod
    def _compute(request: _Request, taken: int) -> float:
        start = request.context - request.left
        request.left -= taken
        return taken * (start + taken / 2)

    def _mixed_step(self, chunk: int, look: float, ended: Sequence[_Request]) -> None:
        """Take a step that computes prompts, beside the decodes where the rules mix them."""
        decodes = len(self.running) if self.rules.mixes else 0
        context = self.context if decodes else 0.0
        gpu, host = self.time.parts(decodes, context, chunk, look, len(ended))
        seconds = self.time.joined_s(gpu, host, decodes, chunk)
        made = decodes + len(ended)
        # The process that takes tokens out first starts the next step, if that one is planned.
        late_s = 0.0
        if self.rules.plans_ahead and self.coming and self.coming[0][0] <= self.now_s:
            late_s = min(host, seconds) / 2
        self._pass(1, seconds, decodes, chunk, len(ended), host_led=host > gpu)
        if decodes:
            self._step_on(1)
        for request in ended:
            request.done += 1
            request.joined = self.step
            request.context += 1
            if not request.first_s:
                request.first_s = self.now_s + late_s + self._handover_s(made)
                if self._in_window(request.first_s):
                    self.seen.ttft_s.append(request.first_s - request.sent_s)
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
        steps = min(self.running[0][0] - self.step, _LEAP_MAX)
        gpu, host = self.time.parts(decodes, self.context + decodes * steps / 2)
        seconds = self.time.joined_s(gpu, host, decodes, 0)
        free = decodes + len(self.partial) + len(self.leaving) < self.rules.sequences
        until_s = math.inf
        if free and not self.waiting:
            until_s = self.coming[0][0] if self.coming else math.inf
            if self.sending:
                until_s = min(until_s, self.sending[0] + self.time.api_s)
        if self.leaving and self.waiting:
            until_s = min(until_s, self.leaving[0])
        if until_s < math.inf:
            lag_s = seconds if self.rules.plans_ahead else 0.0
            steps = max(1, min(steps, math.ceil((until_s + lag_s - self.now_s) / seconds)))
        self._pass(steps, seconds, decodes, 0, 0, host_led=host > gpu)
        self._step_on(steps)

    def _step_on(self, steps: int) -> None:
        """Count steps of the running sequences, and let those leave whose answer is whole."""
        self.step += steps
        made = len(self.running)
        self.context += made * steps
        while self.running and self.running[0][0] <= self.step:
            request = heapq.heappop(self.running)[2]
            self.context -= request.context + self.step - request.joined
            self._end(request, made)

    def _end(self, request: _Request, made: int) -> None:
        last_s = self.now_s + self._handover_s(made)
        self.reserved -= request.promised
        if self.rules.plans_ahead:
            self.leaving.append(self.now_s)
        if self._in_window(last_s):
            if request.answer > 1:
                self.seen.tpot_s.append((last_s - request.first_s) / (request.answer - 1))
            self.seen.e2e_s.append(last_s - request.sent_s)
        if self.load.closed and last_s < self.load.duration_s:
            heapq.heappush(self.sending, last_s + self.load.think_s)

    def _handover_s(self, made: int) -> float:
        """From a step's end to the client: the API servers write the step's tokens in turn."""
        return made * self.time.token_api_s / len(self._servers)  # type: ignore[no-any-return]

    def _in_window(self, moment_s: float) -> bool:
        return self.load.window_s <= moment_s <= self.load.duration_s

    def _pass(
        self, steps: int, seconds: float, decodes: int, chunk: int, new: int, *, host_led: bool
    ) -> None:
        """Let time pass, and add up what counts of it."""
        took_s = steps * seconds
        begin_s, self.now_s, self.last_s = self.now_s, self.now_s + took_s, seconds
        low, high = max(begin_s, self.load.window_s), min(self.now_s, self.load.duration_s)
        if high <= low:
            return
        share = (high - low) / took_s
        seen, context, made = self.seen, self.context if decodes else 0.0, decodes + new
        seen.tokens += share * steps * made
        seen.busy_s += high - low
        seen.running_s += (high - low) * (len(self.running) + len(self.partial))
        seen.waiting_s += (high - low) * len(self.waiting)
        seen.context_s += (high - low) * context
        seen.chunk += share * chunk
        seen.steps += share * steps
        seen.decodes += share * steps * decodes
        seen.contexts += share * steps * context
        if host_led:
            seen.host_s += high - low


def api_pass_s(work_s: Any, step_s: Any) -> Any:
    """Return the time of a pass of an API server's event loop; takes arrays, too.

    In a pass it writes a token for each of its requests, which costs it `work_s`; while it does, a
    step of `step_s` makes the next ones. The nearer the two are, the longer are its passes, until
    it sends several tokens at once.
    """
    busy = np.minimum(_API_BUSY_MAX, work_s / np.maximum(step_s, 1e-9))
    return work_s / (1 - busy)


def simulate(rules: Rules, time: StepTime, load: Load) -> Happened:
    """Return what a client would see of a server with these rules under this load."""
    return _Simulation(rules, time, load).run()
