"""What an engine's knobs mean to its scheduler: data that the predictor reads, engine by engine."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from llmdyno.knobs import Knob, Value, default

Admission = Literal["prompt", "estimate", "whole"]


class Limit(msgspec.Struct, frozen=True):
    """A limit: the knob that sets it, and what holds while that is unset.

    Attributes:
        knob: empty: nothing sets it.
        unset: on GPUs that nothing else is said of.
        below: what holds on GPUs of less memory than so many GiB, the least first.
        named: what holds on GPUs in whose names this stands, however large they are.
        shared: in place of `below` where `shared_from` GPUs or more share each layer; (): the same.
    """

    knob: str
    unset: float
    below: tuple[tuple[float, float], ...] = ()
    named: Mapping[str, float] = {}
    shared: tuple[tuple[float, float], ...] = ()
    shared_from: int = 4

    def on(self, gpu: str, memory_gib: float, gpus: int = 1) -> float:
        """Return what holds while the knob is unset.

        Args:
            gpu: the GPU's name.
            memory_gib: its memory.
            gpus: so many of them share each layer.
        """
        below = self.shared if self.shared and gpus >= self.shared_from else self.below
        by_name = [value for name, value in self.named.items() if name in gpu]
        by_memory = [value for below_gib, value in below if memory_gib < below_gib]
        return [*by_name, *by_memory, self.unset][0]


class Waking(msgspec.Struct, frozen=True):
    """How an engine's event loop wakes the receivers of its streams, see predict/wakes.py.

    Attributes:
        wake_s: seconds from one wake to the next while the loop has nothing else to do.
        a_step: wakes of a step besides.
        busy_s: seconds for which a step keeps the loop busy, at least.
    """

    wake_s: float
    a_step: float
    busy_s: float


# Values of "dtype" that change nothing in a step's time: weights have 16 bits anyway, those of a
# checkpoint of 32, too, and both formats are computed as fast.
SIXTEEN_BITS = ("half", "float16", "bfloat16")


class Scheduling(msgspec.Struct, frozen=True, kw_only=True):
    """The rules by which an engine puts sequences into steps.

    Attributes:
        mixes: prompts and answers share a step; else prompts go first, in steps of their own.
        mixes_knob: what turns that on or off; empty: nothing.
        admission: how much of the cache must be free before a prompt is let in: room for the
            prompt; also for a share of what the answers may become; for prompt and whole answer.
        plans_ahead: a step is planned while the one before it runs, so that a prompt that comes
            meanwhile waits for one step more; in a pipeline, for one batch more.
        chunks: a knob that, when false, keeps prompts whole; `chunks_unset` holds while it is
            unset.
        whole: prompts that fit a step are not split to fill one; a longer one is computed in steps
            of its own, with a step of decodes between two of them.
        partly: a prompt is computed as far as the cache has room, and whoever is preempted gives
            back what is needed, not all that it has.
        interval: steps of decodes that a prompt may wait for once half of `sequences` run, unless
            those that wait fill a step; 0: none.
        wakes: it tells one stream at a time of its new tokens, in turn; None: all at once.
        sequences, tokens, memory_share: what limits a step, and the cache.
        whole_tokens: the limit that holds where the knob of `tokens` is below 0: prompts stay whole
            then. None: it cannot be.
        memory_of_free: the share is of what the weights leave, not of all memory.
        cache_bytes: a knob that sets the cache's size itself, in units of `cache_unit_bytes`.
        cache_blocks: a knob that sets it as a number of blocks; at 0 it is unset.
        longest: tokens of the longest sequence, which the cache must hold.
        prefix_cache: a knob that turns the prefix cache on and off; `prefix_cached` holds while it
            is unset.
        prefix_cache_off: a knob that, when true, turns it off.
        weights, cache: knobs of number formats; `formats` says which value means which, and
            `cache_unset` which holds for the cache while its knob is unset.
        cache_shipped: quant_methods of checkpoints whose own format of keys and values it takes
            while that knob is unset or "auto".
        graph_mode: a knob whose values `graph_whole` make whole graphs of steps with prompts, too,
            whose values `graph_none` make none, whose values `graph_pieces` start steps of decodes
            in pieces, too, and whose values `graph_decodes` start steps with prompts without any.
        graph_off: a knob that, when true, turns graphs off.
        graph_size: the largest batch with a graph.
        graph_sequences: while its knob is unset, it is at most so many times `sequences`; 0: it is
            not bound to them.
        graph_sizes: the batches that have a graph; another takes the next larger one of these. A
            graph of decodes alone is no larger than `sequences`, but where `graph_whole` makes one
            kind for all steps. (): every batch has its own.
        pieces_size: the largest step with prompts, in tokens, that is started as a few graphs a
            layer; above it each kernel is started by itself. None: as `graph_size`.
        servers: a knob for the number of processes that speak HTTP.
        outputs_at_once: up to so many of a step's tokens such a process takes in without writing
            any, see predict/api.py; 0: it writes each.
        on_cpu: it computes on the processor, whatever GPUs the machine has.
        threads: a knob for the threads that compute on a processor; 0: one a core.
        paces: multiples of the medians of predict/steptime.PRIORS, by their names, that hold for
            this engine; those that are not named are 1.
        gpus: a knob for the GPUs that share every layer.
        copies: a knob for the data-parallel ranks of a server: each has the model, a cache and its
            sequences for itself, on as many GPUs as `gpus` says, and a part of the load.
        stages: a knob for pipeline parallelism: so many groups of GPUs have a part of the layers
            each, and as many batches are under way at once.
        stages_have_sequences: each of these batches may have `sequences`; else all together.
        servers_by_copies: while the knob of `servers` is unset there is one for each rank.
        same_pace: values of further knobs under which these rules hold as well as while the knob is
            unset: what the engine does by itself, and what only changes its start.
        idle: knobs that the engine does not look at under these rules, whatever their value.
        measured: whether the predictor was held against this engine: else its host's pace is less
            known.
        measured_on: GPUs on which it was, by their names in predict/gpus.py.
        start_spread: so many times as far as vLLM's lie equal starts of its server apart.
        variants: other rules under values of the knob `variant`, as of an engine with two cores;
            the knobs that both name are the same.
    """

    mixes: bool = True
    mixes_knob: str = ""
    admission: Admission = "prompt"
    admission_knob: str = ""
    admissions: Mapping[str, Admission] = {}
    plans_ahead: bool = True
    chunks: str = ""
    chunks_unset: bool = True
    whole: bool = False
    partly: bool = False
    interval: int = 0
    wakes: Waking | None = None
    sequences: Limit
    tokens: Limit
    whole_tokens: Limit | None = None
    memory_share: Limit
    memory_of_free: bool = False
    cache_bytes: str = ""
    cache_unit_bytes: float = 1
    cache_blocks: str = ""
    longest: Limit = Limit("", 1)
    block: Limit = Limit("", 16)
    prefix_cache: str = ""
    prefix_cached: bool = True
    prefix_cache_off: str = ""
    weights: str = ""
    cache: str = ""
    cache_unset: str = "bf16"
    cache_shipped: tuple[str, ...] = ()
    formats: Mapping[str, str] = {}
    graph_mode: str = ""
    graph_whole: tuple[Value, ...] = ()
    graph_none: tuple[Value, ...] = ()
    graph_pieces: tuple[Value, ...] = ()
    graph_decodes: tuple[Value, ...] = ()
    graph_off: str = ""
    graph_size: Limit = Limit("", 512)
    graph_sequences: int = 0
    graph_sizes: tuple[int, ...] = ()
    pieces_size: Limit | None = None
    servers: str = ""
    outputs_at_once: int = 0
    on_cpu: bool = False
    threads: str = ""
    paces: Mapping[str, float] = {}
    gpus: str = ""
    copies: str = ""
    stages: str = ""
    stages_have_sequences: bool = False
    servers_by_copies: bool = False
    same_pace: Mapping[str, tuple[Value, ...]] = {}
    idle: tuple[str, ...] = ()
    measured: bool = False
    measured_on: tuple[str, ...] = ()
    start_spread: float = 1.0
    variant: str = ""
    variants: Mapping[str, "Scheduling"] = {}
    source: str = ""

    def under(self, config: Mapping[str, Value]) -> "Scheduling":
        """Return the rules that hold under a config."""
        return self.variants.get(str(config.get(self.variant)), self)

    def knows(self, knob: str) -> bool:
        """Return whether the rules say what a knob does."""
        fields = (getattr(self, name) for name in self.__struct_fields__)
        return any(knob == (one.knob if isinstance(one, Limit) else one) for one in fields)

    def holds_under(self, knob: Knob, value: Value) -> bool:
        """Return whether the rules say what a knob's value does, if it does anything to the pace.

        Its own default, of the newest version that we know, does nothing.
        """
        like_unset = value == default(knob, None) or value in self.same_pace.get(knob.name, ())
        return like_unset or knob.name in self.idle or self.knows(knob.name)

    def splits_prompts(self, config: Mapping[str, Value]) -> bool:
        """Return whether a config splits prompts over several steps."""
        return bool(config.get(self.chunks, self.chunks_unset))
