"""Does it fit: weights, what a step needs, and the KV cache, against a GPU's memory.

What an engine keeps beside weights and cache is an estimate: the CUDA context and the allocator's
rest (1 GiB), graphs (a little a captured batch), and the activations of the largest step.
"""

import math

import msgspec

from llmdyno.predict.gpus import GIB, Gpu
from llmdyno.predict.shapes import Shape
from llmdyno.units import counted

_CONTEXT_BYTES = 1.0 * GIB  # CUDA or ROCm, its libraries, buffers of communication
_GRAPH_BYTES = 10e6  # of one captured batch
_GRAPHS = 67  # vLLM: batches of 1, 2, 4 and every 8th to 512
_ACTIVATION_BYTES = 2.0
_LOGIT_BYTES = 4.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is laid over GPUs, and in what its numbers are kept.

    Attributes:
        tensor: GPUs that share each layer.
        pipeline: groups of GPUs that share the layers out.
        weight_bytes: of a parameter in the layers; None: as the checkpoint has it.
        kv_bytes: of a number in the KV cache.
        share: of the GPU's memory that the engine may use.
        step_tokens: tokens of the largest step.
        sequences: that may run at once, at most.
        longest: tokens of the longest sequence that must fit.
        graphs: whether steps are captured as graphs.
        cache_bytes: of the KV cache on each GPU; None: what is left.
        share_of_free: `share` is of what the weights leave.
    """

    tensor: int = 1
    pipeline: int = 1
    weight_bytes: float | None = None
    kv_bytes: float = 2.0
    share: float = 0.9
    step_tokens: int = 8192
    sequences: int = 256
    longest: int = 1
    graphs: bool = True
    cache_bytes: float | None = None
    share_of_free: bool = False


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of one GPU, in bytes, and what its cache holds.

    `cache` is what is left for keys and values; below 0: not even the weights fit.
    """

    usable: float
    weights: float
    activations: float
    graphs: float
    cache: float
    kv_bytes_token: float  # of one token on this GPU, as long as no window forgets
    cache_tokens: float
    longest_bytes: float  # of the longest sequence's keys and values, and of its states
    state_bytes: float  # of a sequence's states
    sequences: int  # of `longest` tokens that fit at once, the cap of the config aside
    fits: bool
    why: str  # the sum, as a sentence


def fit(shape: Shape, gpu: Gpu, part: Part) -> Fit:
    """Return what fits on each GPU of a group that serves one copy of the model."""
    stage = math.ceil(shape.layers / part.pipeline) / shape.layers  # of the layers, the largest
    weights = weight_bytes(shape, part.weight_bytes) * stage / part.tensor
    activations = _activations(shape, part)
    graphs = _CONTEXT_BYTES + (_GRAPHS * _GRAPH_BYTES if part.graphs else 0.0)
    usable = gpu.memory_bytes * part.share
    if part.share_of_free:
        usable = weights + activations + (gpu.memory_bytes - weights - activations) * part.share
    left = usable - weights - activations - graphs
    cache = left
    if part.cache_bytes is not None:  # set by hand: the share does not bound it, the memory does
        usable = gpu.memory_bytes
        left = usable - weights - activations - graphs
        cache = min(part.cache_bytes, left)
    one = shape.layer_token_bytes(part.kv_bytes, part.tensor) * stage
    token = shape.token_bytes(part.kv_bytes, part.tensor) * stage
    state = shape.state_layers * shape.state_bytes / part.tensor * stage
    longest_bytes = shape.kv_layer_tokens(part.longest) * one + state
    too_large = part.cache_bytes is not None and part.cache_bytes > left
    uneven = _uneven(shape, part)
    fits = cache >= longest_bytes and not too_large and not uneven
    found = Fit(
        usable=usable,
        weights=weights,
        activations=activations,
        graphs=graphs,
        cache=cache,
        kv_bytes_token=one * shape.cache_layers,
        cache_tokens=max(0.0, cache) / token,
        longest_bytes=longest_bytes,
        state_bytes=state,
        sequences=max(0, int(cache // longest_bytes)),
        fits=fits,
        why="",
    )
    asked = part.cache_bytes if too_large else None
    return msgspec.structs.replace(found, why=uneven or _sentence(found, gpu, part, asked))


def _uneven(shape: Shape, part: Part) -> str:
    """Return why so many GPUs cannot share the model out; empty: they can."""
    if part.pipeline > shape.layers:
        return f"{counted(shape.layers, 'layer')} cannot be shared out over {part.pipeline} stages"
    if shape.splits_over(part.tensor):
        return ""
    heads = f"{shape.heads} attention heads"
    if shape.heads % part.tensor == 0:
        heads += f" of which {shape.kv_heads} have keys and values"
    even = [count for count in range(1, 65) if shape.splits_over(count)]
    return (
        f"{heads} cannot be shared out evenly over {part.tensor} GPUs; these"
        f" numbers can: {', '.join(map(str, even))}"
    )


def weight_bytes(shape: Shape, of_one: float | None = None) -> float:
    """Return the bytes of a whole model's weights; `of_one`: of a parameter in the layers."""
    if of_one is None:
        return shape.bytes_as_shipped
    others = shape.params - shape.linear_params  # logits and tokens are not quantised
    return shape.linear_params * of_one + others * max(of_one, 2.0)


def _activations(shape: Shape, part: Part) -> float:
    """Estimate what the largest step holds at once: one layer's vectors, and the logits."""
    net = max(shape.intermediate, shape.moe_intermediate * shape.experts_active)
    heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    wide = 2 * shape.hidden + (heads + 2 * net) / part.tensor
    logits = min(part.sequences, part.step_tokens) * shape.vocab / part.tensor * _LOGIT_BYTES * 2
    return part.step_tokens * wide * _ACTIVATION_BYTES + logits


def _sentence(found: Fit, gpu: Gpu, part: Part, asked: float | None) -> str:
    """Write the sum: what there is, what is taken, and what is left for whom."""
    each = "" if part.tensor * part.pipeline == 1 else " each"
    taken = (
        f"weights {_gib(found.weights)} + activations {_gib(found.activations)}"
        f" + context and graphs {_gib(found.graphs)}"
    )
    whole = f"{_gib(found.usable)} usable of {gpu.name}'s {_gib(gpu.memory_bytes)}{each}"
    left = found.usable - found.weights - found.activations - found.graphs
    if left < 0:
        return f"{taken} = {_gib(found.usable - left)} > {whole}"
    if asked is not None:
        return f"{taken} leave {_gib(left)} of {whole}, the cache is to have {_gib(asked)}"
    sequence = f"{counted(part.longest, 'token')} of KV cache take {_gib(found.longest_bytes)}"
    if not found.fits:
        return f"{taken} leave {_gib(left)} of {whole}, but {sequence}"
    tokens, each = f"{counted(found.cache_tokens, 'token')}, ", counted(part.longest, "token")
    if found.state_bytes:  # tokens alone would be said to be too many
        tokens, state = "", f", {_gib(found.state_bytes)} of each whatever its length"
        each = f"{each}{state}" if found.kv_bytes_token else "any length"
    return (
        f"{taken} leave {_gib(left)} of {whole}; the cache of {_gib(found.cache)} holds"
        f" {tokens}{counted(found.sequences, 'sequence')} of {each}"
    )


def _gib(count: float) -> str:
    gib = count / GIB
    return f"{gib:.1f} GiB" if gib >= 0.05 else f"{count / 2**20:.2g} MiB"
