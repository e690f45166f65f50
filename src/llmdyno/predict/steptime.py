"""How long a step takes: the GPU's part, the host's part, and what of both lies beside the other.

    gpu  = (memory^4 + compute^4)^(1/4) + cache + fixed
    host = batches x (step + sequences x each + prompts x each)
         + (pieces or kernels, where no graph is whole)
    step = (gpu^p + host^p)^(1/p), p = 4, and 1.5 where a step of prompts is started in pieces,
           1 where it plans a step only when the one before it is done

A mean of such a power is a maximum with a rounded corner: near the corner both hinder each other,
the more so where the GPU waits for the host between the pieces of one step.
While a batch passes the stages of a pipeline once, the host plans each of its batches once; the
stages start the kernels of their own layers only.
Nine numbers are not known beforehand; `PRIORS` holds what is believed of them and how firmly.
"""

from bisect import bisect_left
from typing import Any

import msgspec
import numpy as np

from llmdyno.predict.work import Work

# Of what 16-bit weights reach: 8-bit ones have scales, and inputs that are quantised step by step.
_QUANTISED_LOSS = 0.1  # of the bandwidth
_QUANTISED_FLOPS_LOSS = 0.35  # of the share of the (doubled) peak, where products are narrow
_QUANTISED_TOKENS = 355  # ... and small steps half of that: the lack halves each so many tokens
_QUANTISED_PIECES = 0.3  # more host time where a step is graphs in pieces
_QUANTISED_KERNELS = 0.95  # ... where its kernels are started one by one, and small steps most:
_QUANTISED_FEW = 150  # it halves each so many tokens; four servers of one machine say so
# Where steps of decodes are started in pieces, see starts.py: times the pieces' time, in a row and
# after a step of another kind, times the kernels' time after one, and those with 8-bit weights.
_WARM_PIECES, _COLD_PIECES = 0.67, 2.0
_COLD_KERNELS, _COLD_QUANTISED = 1.45, 1.2
WARMS = 0.87  # what each equal step leaves of being cold
_SIZES = 8  # tokens between two sizes of pieces, where an engine's own are not known
_SHARED_LAYER = 0.5  # more GPU time a layer where GPUs wait for each other twice in it
_SAMPLE_S = 3e-6  # the sampler's passes over a sequence's logits
_TOKEN_SHARE = 0.032  # an answer's token costs an API server so much of what a request costs it


class Prior(msgspec.Struct, frozen=True):
    """What is believed of a parameter: its median, and the deviation of its logarithm."""

    name: str
    median: float
    deviation: float
    means: str


PRIORS = (
    Prior("bandwidth_share", 0.8, 0.12, "share of the peak bandwidth that reads reach"),
    Prior("flops_share", 0.65, 0.2, "share of the peak FLOPs that matrix products reach"),
    Prior("layer_s", 35e-6, 0.3, "GPU time a layer that depends on nothing: launches, norms"),
    Prior("host_step_s", 2.5e-3, 0.3, "host time of a step: planning, sampling, taking results in"),
    Prior("host_sequence_s", 25e-6, 0.4, "host time of a step for each sequence in it"),
    Prior("host_layer_s", 150e-6, 0.4, "host time a layer of a step that is graphs in pieces"),
    Prior("host_kernels_s", 550e-6, 0.3, "host time a layer of a step that has no graph"),
    Prior("host_prompt_s", 0.3e-3, 0.6, "host time for a prompt that is let in"),
    Prior("api_s", 2.2e-3, 0.4, "an API server's time for a request: HTTP, template, tokens"),
)
NAMES = tuple(prior.name for prior in PRIORS)
MEDIANS = np.array([prior.median for prior in PRIORS])
DEVIATIONS = np.array([prior.deviation for prior in PRIORS])


class Graphs(msgspec.Struct, frozen=True):
    """How the host starts a step.

    Attributes:
        decode_max: up to so many sequences a step of decodes is one graph.
        prompts_max: up to so many tokens a step with prompts is.
        pieces_max: up to so many tokens other steps are a few graphs a layer; the kernels of larger
            ones are started one by one.
        in_turn: the host plans a step when the one before it is done: their times add up.
        sizes: that have graphs, ascending; a step is padded up to the next. (): not known.
    """

    decode_max: int
    prompts_max: int = 0
    pieces_max: int = 0
    in_turn: bool = False
    sizes: tuple[int, ...] = ()


class StepTime:
    """The step time of one server. `theta` holds the parameters in the order of `PRIORS`."""

    def __init__(self, work: Work, graphs: Graphs, theta: np.ndarray) -> None:
        """Work the constants out once; `seconds` is called a million times."""
        paces = work.paces or (1.0,) * len(NAMES)
        values = {name: value * pace for name, value, pace in zip(NAMES, theta, paces, strict=True)}
        self.work = work
        self.graphs = graphs
        self.batches = work.batches
        share = values["bandwidth_share"] * (1 - _QUANTISED_LOSS * work.quantised)
        self._byte_s = 1 / (work.bandwidth * share)
        self._cache_s = work.kv_bytes / (work.bandwidth * values["bandwidth_share"])
        rate = work.flops * (1 - _QUANTISED_FLOPS_LOSS * work.narrow)
        self._flop_s = 1 / (rate * values["flops_share"])
        self._token_s = work.token_flops * self._flop_s + work.exchange_s
        self._head_s = work.head_flops * self._flop_s
        self._context_s = work.context_flops * self._flop_s
        self._fixed_s = work.layers * values["layer_s"] * (1 + _SHARED_LAYER * (work.gpus > 1))
        self._step_s = values["host_step_s"]
        self._sequence_s = values["host_sequence_s"]
        pieces = 1 + _QUANTISED_PIECES * work.quantised
        self._pieces_s = work.layers * values["host_layer_s"] * pieces
        self._kernels_s = work.layers * values["host_kernels_s"]
        self._kernels_more = _QUANTISED_KERNELS * work.quantised
        self._prompt_s = values["host_prompt_s"]
        self._forgets = bool(np.any(work.window_share) or np.any(work.state_tokens))
        self.api_s = values["api_s"]
        self.token_api_s = self.api_s * _TOKEN_SHARE

    def seconds(
        self, decodes: float, context: float, chunk: float = 0, seen: float = 0,
        prompts: float = 0, cold: float = 0,
    ) -> float:  # fmt: skip
        """Return a step's time.

        Args:
            decodes: sequences that get their next token.
            context: tokens of context of all of these together.
            chunk: prompt tokens that the step computes.
            seen: the sum over these of the tokens of context that each looks at.
            prompts: prompts that are let in.
            cold: how cold its start is, see cold_s().
        """
        gpu, host = self.parts(decodes, context, chunk, seen, prompts)
        host += self.decodes_in_pieces(decodes) * self.cold_s(decodes, chunk, cold)
        return self.joined_s(gpu, host, decodes, chunk)

    def joined_s(self, gpu: float, host: float, decodes: float, chunk: float) -> float:
        """Return the time of a step whose parts take so long."""
        tokens = decodes + chunk
        # Kernels that are started one by one are queued ahead of the GPU.
        in_pieces = (1 - self._is_whole(tokens, chunk)) * (tokens <= self.graphs.pieces_max)
        apart = 1 - in_pieces * (chunk > 0)
        beside = apart * rounded_max(gpu, host) + (1 - apart) * (gpu**1.5 + host**1.5) ** (1 / 1.5)
        return beside + self.graphs.in_turn * (gpu + host - beside)  # type: ignore[no-any-return]

    def decodes_in_pieces(self, decodes: float) -> bool:
        """Return whether a step of so many decodes is started in pieces; takes arrays, too."""
        return (decodes > self.graphs.decode_max) & (decodes <= self.graphs.pieces_max)

    def start_of(self, decodes: int, chunk: int) -> int:
        """Return what starts have in common: -1 a whole graph, 0 kernels, else pieces of a size."""
        tokens = decodes + chunk
        if self._is_whole(tokens, chunk):
            return -1
        if tokens > self.graphs.pieces_max:
            return 0
        sizes = self.graphs.sizes
        return 1 + (bisect_left(sizes, tokens) if sizes else (tokens - 1) // _SIZES)

    def cold_s(self, decodes: float, chunk: float, cold: float) -> float:
        """Return what a start takes beyond what parts() says, where decodes are in pieces.

        Args:
            decodes: as in parts(); an array, too.
            chunk: likewise.
            cold: from 0, in a row of equal steps, to 1, after one of another kind.
        """
        tokens = decodes + chunk
        pieces_s = (_WARM_PIECES - 1 + (_COLD_PIECES - _WARM_PIECES) * cold) * self._pieces_s
        few = self._kernels_more * 0.5 ** (tokens / _QUANTISED_FEW)
        kernels = _COLD_KERNELS * (1 + (_COLD_QUANTISED - 1) * self.work.quantised) - 1 - few
        kernels_s = cold * np.maximum(0.0, kernels) * self._kernels_s
        in_pieces = tokens <= self.graphs.pieces_max
        more_s = in_pieces * pieces_s + (1 - in_pieces) * kernels_s
        return more_s * (1 - self._is_whole(tokens, chunk))  # type: ignore[no-any-return]

    def _is_whole(self, tokens: float, chunk: float) -> float:
        """Whether one graph has all of the step; works for arrays, too."""
        graphs = self.graphs
        return (chunk <= 0) * (tokens <= graphs.decode_max) + (chunk > 0) * (
            tokens <= graphs.prompts_max
        )

    def parts(
        self, decodes: float, context: float, chunk: float = 0, seen: float = 0, prompts: float = 0
    ) -> tuple[float, float]:
        """Return the GPU's and the host's part of a step, in seconds."""
        tokens = decodes + chunk
        if self._forgets:
            context = self.work.context_read(context, decodes)
            seen = self.work.context_seen(seen, chunk) if np.any(chunk) else seen
        memory_s = self.work.read_bytes(tokens) * self._byte_s
        linear_s = rounded_max(memory_s, self._compute_s(tokens, decodes + prompts))
        gpu_s = (
            linear_s
            + context * self._cache_s
            + seen * self._context_s
            + self._fixed_s
            + decodes * _SAMPLE_S
        )
        host_s = self._step_s + decodes * self._sequence_s + prompts * self._prompt_s
        host_s = self.batches * host_s
        in_pieces = tokens <= self.graphs.pieces_max
        kernels_s = self._kernels_s * (1 + self._kernels_more * 0.5 ** (tokens / _QUANTISED_FEW))
        starts_s = in_pieces * self._pieces_s + (1 - in_pieces) * kernels_s
        return gpu_s, host_s + starts_s * (1 - self._is_whole(tokens, chunk))

    def _compute_s(self, tokens: float, sequences: float) -> float:
        """Return the time of the matrix products; works for arrays, too."""
        small = self.work.narrow * 0.5 ** (tokens / _QUANTISED_TOKENS)
        return tokens * self._token_s * (1 + small) + sequences * self._head_s  # type: ignore[no-any-return]

    def prompt_s(self, tokens: Any) -> Any:
        """Return the time of the matrix products of a prompt in a large step; takes arrays, too."""
        return tokens * self._token_s

    def bound_by(self, decodes: float, context: float, chunk: float = 0, prompts: float = 0) -> str:
        """Name what the time of such a step goes to most."""
        gpu, host = self.parts(decodes, context, chunk, prompts=prompts)
        if host > gpu:
            return "host"
        compute_s = self._compute_s(decodes + chunk, decodes + prompts)
        memory_s = self.work.read_bytes(decodes + chunk) * self._byte_s
        parts = {
            "compute": compute_s,
            "weights bandwidth": memory_s,
            "KV bandwidth": self.work.context_read(context, decodes) * self._cache_s,
        }
        return max(parts, key=lambda name: parts[name])


def mean_cold(steps: Any) -> Any:
    """Return what is left of being cold, on average over so many equal steps; takes arrays, too."""
    return (1 - WARMS**steps) / (1 - WARMS) / steps


def rounded_max(one: float, other: float) -> float:
    """Return the maximum of two times with a rounded corner; works for arrays, too."""
    one, other = one * one, other * other
    return (one * one + other * other) ** 0.25  # type: ignore[no-any-return]
