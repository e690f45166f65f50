"""What the simulation of a scheduler takes and gives: its rules, what is asked, what happened.

The rules as we understand them, and where each engine's source has its own. Those of vLLM 0.26,
SGLang 0.5.23, LMDeploy (at 0.16), OpenVINO GenAI and TensorRT-LLM (its C++ scheduler; not run by
us) were read for this:
- decode first, prompts in chunks with what is left of the step's tokens, admission by sequences and
  blocks of the cache, preemption of the last one let in, which computes its prompt again:
  vllm/v1/core/sched/scheduler.py (Scheduler.schedule). With asynchronous scheduling
  (vllm/v1/core/sched/async_scheduler.py) a step is planned while the one before it runs.
- prompts first, in steps of their own; room for a share of what answers may become:
  sglang/srt/managers/scheduler.py (get_next_batch_to_run) and schedule_policy.py (PrefillAdder).
- room for the whole answer (GUARANTEED_NO_EVICT) or for the prompt only (MAX_UTILIZATION, which
  pauses the last one started); without chunked prefill a prompt waits for a step with room for it:
  TensorRT-LLM, cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp and microBatchScheduler.cpp.
- dynamic split-fuse, prompts as far as there is room, and preemption of what is needed: partly.py;
  openvino.genai, src/cpp/src/continuous_batching/scheduler.hpp (schedule, _preempt_by_recompute).
- whole prompts first while fewer than half of the sequences run, else after 16 steps of decodes at
  most; a prompt longer than a step alone, a step of decodes between its chunks:
  lmdeploy/pytorch/engine/inputs_maker.py (do_prefill_default, _select_active_chunk_work). Tokens
  are handed out to one stream at a time: see wakes.py.
"""

from collections.abc import Iterable, Sequence

import msgspec

from llmdyno.engines._scheduling import Admission, Waking
from llmdyno.predict.decoder import remembered


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler's rules with their limits, see engines/_scheduling.py.

    Attributes:
        whole, partly, interval, wakes: see there.
        cache_tokens: tokens that the cache holds while no layer forgets any.
        window, window_share: see work.Work.
        state_tokens: what a sequence's states take of these tokens.
        batches: of a pipeline, those that have requests, each of which has its own steps; what is
            simulated is one of them.
        servers: processes that speak HTTP.
        merges: up to so many tokens of a step these write several of a stream at once if they are
            behind, see api.py; 0: never.
    """

    mixes: bool
    admission: Admission
    plans_ahead: bool
    batches: int = 1
    chunks: bool
    whole: bool = False
    partly: bool = False
    interval: int = 0
    wakes: Waking | None = None
    sequences: int
    tokens: int
    cache_tokens: float
    block: int
    servers: int
    merges: int = 0
    window: float = 0.0
    window_share: float = 0.0
    state_tokens: float = 0.0

    @property
    def ahead(self) -> float:
        """So much of a step's time before its start it is planned: while another batch begins."""
        return self.plans_ahead / self.batches

    @property
    def writes(self) -> bool:
        """Whether API servers write each token of a step as it comes; else wakes tell of them."""
        return self.wakes is None

    def kept(self, context: float, sequences: int) -> float:
        """Return the tokens of the cache that the contexts of so many sequences take."""
        if self.window_share:
            context = float(remembered(context, sequences, self.window, self.window_share))
        return context + sequences * self.state_tokens


class Ask(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        prompt, answer: tokens.
        cached: of the prompt's tokens, how many the prefix cache holds; where there are `blocks`,
            the simulated cache finds out itself.
        blocks: of the prompt and its answer, whole ones only, each an id of all text up to its end:
            equal ids mean equal beginnings. `Rules.block` is their size.
    """

    prompt: int
    cached: int
    answer: int
    blocks: tuple[int, ...] = ()


class Load(msgspec.Struct, frozen=True):
    """What is sent, and when.

    Attributes:
        asks: taken in turn, again from the first when they are used up.
        starts_s: closed loop: when each user sends its first request; open loop: every request.
        closed: each user sends again `think_s` after its answer's end.
        sessions: closed loop: in place of `asks`; users take them in turn, a turn after the answer
            to the one before. When they are used up, nobody asks any more.
    """

    asks: Sequence[Ask]
    starts_s: Sequence[float]
    closed: bool
    duration_s: float
    window_s: float
    think_s: float = 0.01
    sessions: Iterable[Sequence[Ask]] | None = None

    def counts(self, moment_s: float) -> bool:
        """Return whether a moment is in the window."""
        return self.window_s <= moment_s <= self.duration_s


class Happened(msgspec.Struct):
    """What the simulation has seen in the window [Load.window_s, Load.duration_s].

    `capped_s` and `crowded_s`: seconds of requests that waited because as many sequences ran as
    may, and because the cache had no room. Those who wait for their share of a step are in neither.
    `prompts` and `cached` are the tokens of prompts that were let in, and those of them that the
    prefix cache held.
    """

    tokens: float = 0.0
    ttft_s: list[float] = []
    tpot_s: list[float] = []
    e2e_s: list[float] = []
    busy_s: float = 0.0
    running_s: float = 0.0
    capped_s: float = 0.0
    crowded_s: float = 0.0
    host_s: float = 0.0
    steps: float = 0.0
    decodes: float = 0.0
    contexts: float = 0.0
    chunk: float = 0.0
    prompts: float = 0.0
    cached: float = 0.0
    preempted: int = 0
    unfinished: int = 0

    def passed(self, seconds: float, running: int, capped: int, crowded: int) -> None:
        """Count time of the window that passed with so many requests in and before the server."""
        self.busy_s += seconds
        self.running_s += seconds * running
        self.capped_s += seconds * capped
        self.crowded_s += seconds * crowded

    def stepped(self, steps: float, decodes: int, context: float, chunk: int, new: int) -> None:
        """Count steps: their decodes, context and prompt tokens, and the first tokens they made."""
        self.steps += steps
        self.tokens += steps * (decodes + new)
        self.decodes += steps * decodes
        self.contexts += steps * context
        self.chunk += steps * chunk
