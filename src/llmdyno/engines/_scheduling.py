"""What an engine's knobs mean to its scheduler: data that the predictor reads, engine by engine."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from llmdyno.knobs import Value

Admission = Literal["prompt", "estimate", "whole"]


class Limit(msgspec.Struct, frozen=True):
    """A limit: the knob that sets it, and what holds while that is unset.

    Attributes:
        knob: empty: nothing sets it.
        unset: on GPUs of 70 GiB and more.
        unset_small: on smaller ones; None: the same.
    """

    knob: str
    unset: float
    unset_small: float | None = None


class Scheduling(msgspec.Struct, frozen=True, kw_only=True):
    """The rules by which an engine puts sequences into steps.

    Attributes:
        mixes: prompts and answers share a step; else prompts go first, in steps of their own.
        mixes_knob: what turns that on or off; empty: nothing.
        admission: how much of the cache must be free before a prompt is let in: room for the
            prompt; also for a share of what the answers may become; for prompt and whole answer.
        plans_ahead: a step is planned while the one before it runs, so that a prompt that comes
            meanwhile waits for one step more.
        chunks: a knob that, when false, keeps prompts whole.
        sequences, tokens, memory_share: what limits a step, and the cache.
        memory_of_free: the share is of what the weights leave, not of all memory.
        cache_bytes: a knob that sets the cache's size itself, in units of `cache_unit_bytes`.
        longest: tokens of the longest sequence, which the cache must hold.
        prefix_cache: a knob that turns the prefix cache off.
        weights, cache: knobs of number formats; `formats` says which value means which.
        graph_mode: a knob whose values `graph_whole` make whole graphs of steps with prompts, too,
            whose values `graph_none` make none, whose values `graph_pieces` start steps of decodes
            in pieces, too, and whose values `graph_decodes` start steps with prompts without any.
        graph_off: a knob that, when true, turns graphs off.
        graph_size: the largest batch with a graph.
        pieces_size: the largest step with prompts, in tokens, that is started as a few graphs a
            layer; above it each kernel is started by itself. None: as `graph_size`.
        servers: a knob for the number of processes that speak HTTP.
        gpus: a knob for the GPUs that share every layer.
    """

    mixes: bool = True
    mixes_knob: str = ""
    admission: Admission = "prompt"
    admission_knob: str = ""
    admissions: Mapping[str, Admission] = {}
    plans_ahead: bool = True
    chunks: str = ""
    sequences: Limit
    tokens: Limit
    memory_share: Limit
    memory_of_free: bool = False
    cache_bytes: str = ""
    cache_unit_bytes: float = 1
    longest: Limit = Limit("", 1)
    block: Limit = Limit("", 16)
    prefix_cache: str = ""
    weights: str = ""
    cache: str = ""
    formats: Mapping[str, str] = {}
    graph_mode: str = ""
    graph_whole: tuple[Value, ...] = ()
    graph_none: tuple[Value, ...] = ()
    graph_pieces: tuple[Value, ...] = ()
    graph_decodes: tuple[Value, ...] = ()
    graph_off: str = ""
    graph_size: Limit = Limit("", 512)
    pieces_size: Limit | None = None
    servers: str = ""
    gpus: str = ""
    source: str = ""

    def splits_prompts(self, config: Mapping[str, Value]) -> bool:
        """Return whether a config splits prompts over several steps."""
        return bool(config.get(self.chunks, True))
