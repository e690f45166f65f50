"""Bytes and FLOPs of a step, from the model's shape and the number formats of weights and cache.

The sums are those of the roofline model (Williams et al., 2009): a step reads all weights that its
tokens use once, and the keys and values of every sequence in it; each token costs two FLOPs a
weight.
"""

import msgspec

from llmdyno.predict.decoder import Shape, remembered
from llmdyno.predict.gpus import Gpu
from llmdyno.predict.links import link_bytes_s

_GROUP_SCALE = 0.06  # 4-bit weights: scales and zero points of groups of 128, a share of the bytes

BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5 * (1 + _GROUP_SCALE),
    "int4": 0.5 * (1 + _GROUP_SCALE),
}


class Work(msgspec.Struct, frozen=True):
    """What a step costs on one GPU of `gpus` that share every layer; times are at the peak.

    Attributes:
        expert_bytes: weights of experts in all; a step reads those that its tokens are sent to.
        expert_missed: the share of experts that a token is not sent to.
        weight_bytes: all other weights.
        kv_bytes: keys and values that a step reads of one token of context, as long as no window
            forgets it.
        window, window_share: tokens that a share of the layers reach back at most.
        state_tokens: what a sequence's states take, in such tokens.
        token_flops, head_flops: for a token; for a sequence that gets a token.
        context_flops: attention, for a token and each token of context that it looks at.
        quantised: the weights are smaller than 16 bits.
        narrow: products are made in fewer bits, at a higher peak.
        exchange_s: a token's activations between the GPUs, in seconds.
        paces: multiples of the medians of steptime.PRIORS, in their order.
        batches: of a pipeline, under way at once: one host plans all of them in turn.
    """

    weight_bytes: float
    expert_bytes: float
    expert_missed: float
    kv_bytes: float
    token_flops: float
    head_flops: float
    context_flops: float
    bandwidth: float
    flops: float
    exchange_s: float
    layers: int
    quantised: bool
    narrow: bool
    gpus: int
    window: float = 0.0
    window_share: float = 0.0
    state_tokens: float = 0.0
    paces: tuple[float, ...] = ()
    batches: float = 1.0

    def read_bytes(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads, in bytes."""
        # Each token takes `experts_active` of them; drawn evenly, so many are taken by none.
        return self.weight_bytes + self.expert_bytes * (1 - self.expert_missed**tokens)  # type: ignore[no-any-return]

    def context_seen(self, context: float, tokens: float) -> float:
        """Return the tokens of context that so many tokens attend to; takes arrays, too."""
        return remembered(context, tokens, self.window, self.window_share)  # type: ignore[no-any-return]

    def context_read(self, context: float, sequences: float) -> float:
        """Return the tokens of context that a step of so many sequences reads; takes arrays, too.

        Layers with a window read its tokens only.
        """
        near = self.context_seen(context, sequences)
        return near + 2 * sequences * self.state_tokens  # and written


def work_of(shape: Shape, gpu: Gpu, gpus: int, weights: str | None, cache: str) -> Work:
    """Return the costs of a step.

    Args:
        shape: the model.
        gpu: what computes it.
        gpus: how many share every layer (tensor parallelism).
        weights: the number format that they are quantised to, a key of `BYTES`; None: as shipped.
        cache: that of keys and values.
    """
    size = BYTES[weights] if weights else _in_memory(shape.weight_bytes, gpu)
    expert_size = BYTES[weights] if weights else _in_memory(shape.expert_bytes or size, gpu)
    weight_bytes = (shape.linear_params - shape.expert_params) * size
    weight_bytes += shape.head_params * max(size, gpu.number_bytes)
    expert_bytes = shape.expert_params * expert_size
    computes = weights or shape.computes or "bf16"
    # Layers that keep no keys and values of their own read those of others.
    reads = shape.attention_layers / shape.cache_layers if shape.cache_layers else 1.0
    ring = 2 * (gpus - 1) / gpus
    return Work(
        weight_bytes=weight_bytes / gpus,
        expert_bytes=expert_bytes / gpus,
        expert_missed=1 - shape.experts_active / shape.experts if shape.experts else 0.0,
        kv_bytes=reads * shape.token_bytes(BYTES[cache], gpus),
        token_flops=2.0 * shape.linear_params_active / gpus,
        head_flops=2.0 * shape.head_params / gpus,
        context_flops=2.0 * shape.attention_layers * shape.heads * _looks(shape) / gpus,
        bandwidth=gpu.bandwidth_of((weight_bytes + expert_bytes) / gpus),
        flops=gpu.flops_at(computes),
        exchange_s=shape.layers * 2 * shape.hidden * BYTES["bf16"] * ring / link_bytes_s(gpu.name),
        layers=shape.layers,
        quantised=size < BYTES["bf16"],
        narrow=gpu.flops_at(computes) > gpu.flops_at("bf16"),
        gpus=gpus,
        window=shape.window,
        window_share=shape.window_share,
        state_tokens=shape.state_tokens(BYTES[cache], gpus) / reads,
    )


def _looks(shape: Shape) -> int:
    """Return the numbers of a query and a value, which meet one token of context."""
    return shape.head_dim + shape.rope_dim + (shape.value_dim or shape.head_dim)


def _in_memory(size: float, gpu: Gpu) -> float:
    """Return the bytes of a number as it is read: one that is no quantisation is made larger."""
    return max(size, gpu.number_bytes) if size >= BYTES["bf16"] else size
