"""The API servers before an engine: how long a request and a token wait for their event loops.

vLLM's takes a step's tokens in, puts each into its stream's collector, and lets the streams write
(vllm/v1/engine/async_llm.py, output_handler; output_processor.py, RequestOutputCollector). If it
has fallen behind, the next step's tokens are there already: it takes them in before any stream
writes, and a stream writes several at once, which saves a part of their cost. A step with more
tokens than VLLM_V1_OUTPUT_PROC_CHUNK_SIZE, however, is taken in by parts, and streams write after
each part: then every token is written by itself, however far the server is behind, and a further
part is one more pass of the loop.

A request's text becomes tokens in one thread beside the loop (vllm/renderers/base.py). While the
loop never sleeps, that thread gets Python's lock only when it has asked for it for
sys.getswitchinterval() = 5 ms: so requests pass one after another, slowly.
"""

import heapq
import math
import random
from typing import Any

import numpy as np

_BUSY_MAX = 0.9
API_PASSES = 2  # of its event loop, that a request and its first token wait for
LATENCY_REQUESTS = 2.0  # what a request passes outside the queues, in API times: sockets, events
SURE_SHARE = 0.3  # of that: what every request passes; the rest is exponential
MERGED = 0.7  # of a token's cost, what is left where a stream writes several at once
_PART = 0.45  # ... and what one costs more for each further part of a message
_PARTS = 2  # further parts of the longest messages that were measured
# Of 0.22, 0.32, 0.45 and 0.64 that is the best on the levels with 200 and 400 users of one server
# (evidence/engines-h200, h200-drawn-2): a token took 71 us with 200, and 95 with 400, of whom
# 208 to 260 ran on average.
_LOCK_S = 5e-3  # until Python's lock is given to a thread that asks for it
_LOCKS = 4  # times that a request asks for it: template and tokenizer, each before and after


def api_pass_s(work_s: Any, step_s: Any) -> Any:
    """Return the time of a pass of an API server's event loop; takes arrays, too.

    In a pass it writes a token for each of its requests, which costs it `work_s`; while it does, a
    step of `step_s` makes the next ones. The nearer the two are, the longer are its passes, until
    it sends several tokens at once.
    """
    if isinstance(work_s, float):  # arrays take several times as long, and each request asks
        return work_s / (1 - min(_BUSY_MAX, work_s / max(step_s, 1e-9)))
    return work_s / (1 - np.minimum(_BUSY_MAX, work_s / np.maximum(step_s, 1e-9)))


def behind_share(streams: Any, merges: Any) -> Any:
    """Return what a token costs servers that are behind, in what it costs others; takes arrays.

    Args:
        streams: with a token in each step.
        merges: up to so many the servers write several of a stream at once; 0: they never do.
    """
    more = (merges > 0) * (streams / (merges + (merges <= 0)) - 1)
    parts = (more > 0) * (more < _PARTS) * more + (more >= _PARTS) * _PARTS
    return 1 - (1 - MERGED) * (streams <= merges) + _PART * parts


class ApiServers:
    """The processes that speak HTTP: what requests and tokens wait for on their way.

    Args:
        count: of them.
        request_s: what a request costs one of them.
        token_s: what a token that is written costs it.
        merges: up to so many tokens of a step a server that is behind writes several of a stream
            at once; 0: never.
    """

    def __init__(self, count: int, request_s: float, token_s: float, merges: int = 0) -> None:
        self._free_s = [(0.0, number) for number in range(max(1, count))]  # a heap: from when
        self._request_s = request_s
        self._token_s = token_s / len(self._free_s)
        self._merges = merges
        self._random = random.Random("predict/latency")
        self._waiting = self._from = self._grows = 0.0  # tokens of steps that are not written yet
        self._written_s = self._token_s  # what each costs at present
        self._asked_s = 0.0  # what requests cost that have come since the last step

    def passed_s(self, sent_s: float, running: int, step_s: float) -> float:
        """Return when a request has come to the engine.

        Args:
            sent_s: when it left the client.
            running: streams that are written to meanwhile.
            step_s: how long the last step took.
        """
        free_s, server = heapq.heappop(self._free_s)
        never_sleeps = self._merges and running * self._least_s(running) > step_s
        # Waits for Python's lock hold a request up, unless its own work takes longer.
        lock_s = _LOCKS * _LOCK_S if never_sleeps else 0.0
        ready_s = max(free_s, sent_s) + max(self._request_s, lock_s)
        heapq.heappush(self._free_s, (ready_s, server))
        self._asked_s += self._request_s / len(self._free_s)
        # The loop takes what has come since its last pass: those requests go on together.
        pass_s = api_pass_s(running * self._token_s, step_s)
        if pass_s:
            phase_s = pass_s * server / len(self._free_s)
            passes = math.ceil((ready_s - phase_s) / pass_s) + API_PASSES - 1
            ready_s = phase_s + passes * pass_s
        # Scattered: without it all prompts would keep step with the steps that ended their answers.
        scatter = SURE_SHARE + (1 - SURE_SHARE) * self._random.expovariate(1.0)
        found: float = ready_s + LATENCY_REQUESTS * self._request_s * scatter
        return found

    def handover_s(self, tokens: int) -> float:
        """Return the time from a step's end to the client: its tokens are written in turn."""
        return self._waiting * self._written_s + tokens * self._token_s

    def over(self, took_s: float, tokens: float, streams: int) -> None:
        """Let steps pass that took so long and made so many tokens, one a step for each stream.

        One thread takes requests and writes, in turn where both wait.
        """
        asked_s = min(took_s / 2, self._asked_s)
        self._asked_s = max(0.0, self._asked_s - took_s)
        behind = tokens * self._token_s > took_s
        self._written_s = self._least_s(streams) if behind else self._token_s
        written = (took_s - asked_s) / self._written_s if self._written_s else math.inf
        self._from, self._grows = self._waiting, (tokens - written) / took_s
        self._waiting = self._at(took_s)

    def unwritten(self, after_s: float, until_s: float) -> float:
        """Return how many more tokens wait at the later of two moments since these steps began."""
        return self._at(until_s) - self._at(after_s)

    def _least_s(self, streams: int) -> float:
        """Return what a token of so many streams costs a server that is behind."""
        return float(self._token_s * behind_share(streams, self._merges))

    def _at(self, after_s: float) -> float:
        """Return the tokens that wait at a moment since these steps began."""
        return max(0.0, self._from + self._grows * after_s) if self._written_s else 0.0
