"""The coarse pass: many servers and loads at once, in a closed form that is iterated.

n sequences with answers of O tokens end n/O a step, so that many prompts come in. How many of them
share a step follows from how long steps are: what comes during one is in the next. Users of a
closed loop whose answers are equally long come as close together, cycle after cycle, as they
started: 100 users with a ramp of 2 s ask 50 times a second for 2 s, and then not until their
answers end. Others come by Poisson's law. What is left out (how users in step scatter and gather,
ends of chunks, preemption) the simulation in schedule.py has.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno.predict.api import API_PASSES, LATENCY_REQUESTS, api_pass_s, behind_share
from llmdyno.predict.decoder import remembered
from llmdyno.predict.server import Server
from llmdyno.predict.steptime import NAMES, Graphs, StepTime, mean_cold, rounded_max
from llmdyno.predict.work import Work

_ROUNDS = 40
_DAMPING = 0.5
# Times what an API server writes several of: of so many streams at most steps have a token while it
# is behind, as the simulation of 200 to 600 users has it: the others wait for their last tokens.
_BUSY = 1.9


class CoarseLoads(msgspec.Struct, frozen=True):
    """A load for each server; arrays of one length. `users` counts where `rate` is 0.

    `together_s`: in so many seconds users start, and so they ask again; inf: at any time.
    """

    users: np.ndarray
    rate: np.ndarray
    prompt: np.ndarray
    uncached: np.ndarray
    answer: np.ndarray
    duration_s: np.ndarray
    together_s: np.ndarray
    think_s: float = 0.01


class CoarseAnswer(msgspec.Struct, frozen=True):
    """Tokens a second, TTFT and TPOT in seconds, sequences that run: arrays, one value a load."""

    token_rate: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    running: np.ndarray
    used: np.ndarray  # the load as a share of what the server can take


class Stack(msgspec.Struct, frozen=True):
    """Servers side by side: the fields of their rules, work and graphs as arrays."""

    work: Work
    graphs: Graphs
    sequences: np.ndarray
    tokens: np.ndarray
    cache_tokens: np.ndarray
    servers: np.ndarray
    merges: np.ndarray
    ahead: np.ndarray
    mixes: np.ndarray
    interval: np.ndarray
    writes: np.ndarray
    wake_s: np.ndarray  # 0: it tells all streams at once
    step_wakes: np.ndarray
    busy_s: np.ndarray

    def kept(self, context: np.ndarray) -> np.ndarray:
        """Return the tokens of the cache that a sequence's context takes, see rules.Rules."""
        work = self.work
        near = remembered(context, 1, work.window, work.window_share)
        return np.asarray(near + work.state_tokens)


def stack(servers: Sequence[Server]) -> Stack:
    """Put servers side by side."""

    def column(kind: str, field: str) -> np.ndarray:
        return np.array([getattr(getattr(server, kind), field) for server in servers], float)

    def waking(field: str) -> np.ndarray:
        return np.array([getattr(server.rules.wakes, field, 0.0) for server in servers], float)

    works: dict[str, object] = {
        field: column("work", field) for field in Work.__struct_fields__ if field != "paces"
    }
    paces = [server.work.paces or (1.0,) * len(NAMES) for server in servers]
    works["paces"] = tuple(np.array(paces).T)
    return Stack(
        work=Work(**works),  # type: ignore[arg-type]  # arrays do where numbers do
        graphs=Graphs(
            decode_max=column("graphs", "decode_max"),  # type: ignore[arg-type]
            prompts_max=column("graphs", "prompts_max"),  # type: ignore[arg-type]
            pieces_max=column("graphs", "pieces_max"),  # type: ignore[arg-type]
            in_turn=column("graphs", "in_turn"),  # type: ignore[arg-type]
        ),
        sequences=column("rules", "sequences"),
        tokens=column("rules", "tokens"),
        cache_tokens=column("rules", "cache_tokens"),
        servers=np.maximum(1, column("rules", "servers")),
        merges=column("rules", "merges"),
        ahead=column("rules", "ahead"),
        mixes=column("rules", "mixes"),
        interval=column("rules", "interval"),
        writes=column("rules", "writes"),
        wake_s=waking("wake_s"),
        step_wakes=waking("a_step"),
        busy_s=waking("busy_s"),
    )


def under_way(batches: Any, running: Any) -> Any:
    """Return how many batches of a pipeline are under way while one of them is, in an open loop.

    Requests come to each by chance: by Poisson's law exp(-running) of the others have none.

    Args:
        batches: of the pipeline; an array, too.
        running: sequences of each, on average; likewise.
    """
    return 1 + (batches - 1) * (1 - np.exp(-running))


def solve(servers: Stack, loads: CoarseLoads, theta: np.ndarray) -> CoarseAnswer:
    """Return what the servers do; `theta` has a row for each of steptime.PRIORS: (9, 1)."""
    time = StepTime(servers.work, servers.graphs, theta)
    answer, is_open = loads.answer, loads.rate > 0
    places = np.maximum(
        1.0,
        np.minimum(
            servers.sequences, servers.cache_tokens / servers.kept(loads.prompt + answer / 2)
        ),
    )
    running = np.minimum(places, np.where(is_open, loads.rate * answer * 0.01, loads.users))
    running = np.maximum(running, 1e-3)
    steps = Steps(np.ones_like(running), running)
    pipelines = bool(np.any(servers.work.batches > 1) and np.any(is_open))
    for _ in range(_ROUNDS):
        if pipelines:
            some = under_way(servers.work.batches, running)
            time.batches = np.where(is_open, some, servers.work.batches)  # type: ignore[assignment]
        tpot_s, ttft_s, steps = _latencies(servers, loads, time, running, steps)
        e2e_s = ttft_s + (answer - 1) * tpot_s
        wanted = np.where(
            is_open, loads.rate * e2e_s, loads.users * e2e_s / (e2e_s + loads.think_s)
        )
        running = running + _DAMPING * (np.minimum(places, wanted) - running)
    full = wanted > places * 1.0001
    # A place is free one step after an end is seen.
    cycle_s = (answer + 1 + np.ceil(servers.ahead)) * tpot_s
    capacity = places / cycle_s
    requests = np.where(full, capacity, np.where(is_open, loads.rate, running / e2e_s))
    closed_s = loads.users / capacity - (answer - 1) * tpot_s - loads.think_s
    behind_s = ttft_s + np.maximum(0.0, loads.rate / capacity - 1) * loads.duration_s / 2
    queued_s = np.where(is_open, behind_s, np.maximum(ttft_s, closed_s))
    return CoarseAnswer(
        token_rate=requests * answer,
        ttft_s=np.where(full, queued_s, ttft_s),
        tpot_s=tpot_s,
        running=running,
        used=np.where(is_open, loads.rate / capacity, loads.users / places),
    )


class Steps(msgspec.Struct, frozen=True):
    """What is in a step on average: prompts of one that has any, and sequences that decode."""

    prompts: np.ndarray
    decodes: np.ndarray


def _latencies(
    servers: Stack, loads: CoarseLoads, time: StepTime, running: np.ndarray, last: Steps
) -> tuple[np.ndarray, np.ndarray, Steps]:
    """Return TPOT and TTFT without queueing for a place, in seconds, and what is in a step.

    `last`: what was in a step by the round before.
    """
    decodes = last.decodes
    context = decodes * (loads.prompt + loads.answer / 2)
    coming = decodes / loads.answer  # prompts a step
    budget = np.maximum(1.0, servers.tokens - decodes * servers.mixes)
    prompts = np.maximum(last.prompts, coming)
    chunk = np.minimum(budget, prompts * loads.uncached)
    prompts = chunk / loads.uncached
    share = np.minimum(1.0, coming / prompts)
    beside = np.where(servers.mixes > 0, decodes, 1e-9)
    row = np.maximum(1.0, (1 - share) / np.maximum(share, 1e-6))  # steps of decodes in a row
    decode_s = time.seconds(decodes, context, cold=mean_cold(row))  # type: ignore[arg-type]
    seen = chunk * (loads.prompt - loads.uncached / 2)
    mixed_s = time.seconds(beside, context * servers.mixes, chunk, seen, prompts, 1.0)  # type: ignore[arg-type]
    tpot_s = np.where(
        servers.mixes > 0, (1 - share) * decode_s + share * mixed_s, decode_s + share * mixed_s
    )
    handover_s = decodes * time.token_api_s * servers.writes / servers.servers
    streams = np.where(servers.merges > 0, np.minimum(decodes, _BUSY * servers.merges), decodes)
    least_s = handover_s * behind_share(streams, servers.merges)
    tpot_s = np.maximum(tpot_s, least_s)  # who is written to more slowly than steps go
    passes_s = (API_PASSES - 0.5) * api_pass_s(handover_s, tpot_s)
    api_s = time.api_s * (LATENCY_REQUESTS + 1) + passes_s
    rate = coming / tpot_s
    gathered, wait_s = _gathered(servers, loads, rate, running, decode_s, mixed_s)  # type: ignore[arg-type]
    own_s = time.prompt_s(loads.uncached)
    gathered = np.minimum(
        gathered, _grown(loads, np.maximum(decode_s, mixed_s - prompts * own_s), own_s)
    )
    steps = np.maximum(1.0, loads.uncached / budget)
    ttft_s = api_s + (0.5 + servers.ahead) * wait_s + steps * mixed_s + handover_s
    turn_s = _turn_s(servers, time, decodes, context, share, tpot_s)
    ttft_s = np.asarray(rounded_max(ttft_s, turn_s))  # type: ignore[arg-type]
    answering_s = (loads.answer - 1) * tpot_s
    still = running * answering_s / (answering_s + ttft_s)
    found = Steps(
        prompts + _DAMPING * (np.minimum(gathered, running) - prompts),
        decodes + _DAMPING * (np.maximum(still, 1e-3) - decodes),
    )
    return tpot_s, ttft_s, found


def _gathered(
    servers: Stack,
    loads: CoarseLoads,
    rate: np.ndarray,
    running: np.ndarray,
    decode_s: np.ndarray,
    mixed_s: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompts of a step that has any, and how long the step is that a prompt meets.

    While users come at some rate, a step of s seconds is followed by one of prompts with the
    probability 1 - exp(-rate x s). `rate` is that of all the time, in requests a second.
    """
    closely = np.maximum(rate, loads.users / loads.together_s)
    none = np.exp(-closely * mixed_s)
    some = np.maximum(1e-12, -np.expm1(-closely * decode_s))
    between = none / some  # steps of decodes from one of prompts to the next
    between = np.where(servers.writes > 0, between, np.maximum(1.0, between))
    held = (servers.interval > 0) & (running >= servers.sequences / 2)
    between = np.where(held, np.maximum(servers.interval, between), between)
    prompts = closely * (mixed_s + between * decode_s)
    met_s = (mixed_s**2 + between * decode_s**2) / (mixed_s + between * decode_s)
    return prompts, met_s


def _grown(loads: CoarseLoads, first_s: np.ndarray, prompt_s: np.ndarray) -> np.ndarray:
    """Return how many prompts share a step at most, on average, before all users have asked.

    A step of prompts gathers those of the next, which so takes longer, and gathers more. While each
    second of prompts lets a second of them come, steps grow by `first_s` from one to the next, and
    n of them take first_s x n^2 / 2.
    """
    growth = np.maximum(1.0, prompt_s * loads.users / loads.together_s)
    steps = np.sqrt(2 * loads.together_s / first_s)
    most = np.maximum(1.0, loads.users / steps * growth)
    return np.where(np.isfinite(loads.together_s), most, np.inf)


def _turn_s(
    servers: Stack,
    time: StepTime,
    running: np.ndarray,
    context: np.ndarray,
    share: np.ndarray,
    tpot_s: np.ndarray,
) -> np.ndarray:
    """Return the seconds in which each stream is woken once, see wakes.py; 0: all are, at once.

    `share`: of the steps of decodes so many have one of prompts before them.
    """
    if not np.any(servers.wake_s):
        return np.zeros_like(running)
    gpu_s, host_s = time.parts(running, context)  # type: ignore[arg-type]
    free_s = np.maximum(0.0, gpu_s - np.maximum(host_s, servers.busy_s)) * (1 - share)
    wakes = servers.step_wakes * (1 + share) + free_s / np.maximum(servers.wake_s, 1e-9)
    turn_s = running * tpot_s / np.maximum(wakes, 1e-9)
    return np.where(servers.wake_s > 0, turn_s, 0.0)
