"""Bytes and FLOPs of a step, from the model's shape and the number formats of weights and cache.

The sums are those of the roofline model (Williams et al., 2009): a step reads all weights that its
tokens use once, and the keys and values of every sequence in it; each token costs two FLOPs a
weight.
"""

import msgspec

from llmdyno.predict.decoder import Shape
from llmdyno.predict.gpus import Gpu

_GROUP_SCALE = 0.06  # 4-bit weights: scales and zero points of groups of 128, a share of the bytes
_NVLINK_BYTES_S = 450e9  # of one GPU in one direction (NVIDIA H100 data sheet)

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
        kv_bytes: keys and values of one token of context.
        token_flops, head_flops: for a token; for a sequence that gets a token.
        context_flops: attention, for a token and each token of context that it looks at.
        exchange_s: a token's activations between the GPUs, in seconds.
        paces: multiples of the medians of steptime.PRIORS, in their order.
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
    gpus: int
    paces: tuple[float, ...] = ()

    def read_bytes(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads, in bytes."""
        # Each token takes `experts_active` of them; drawn evenly, so many are taken by none.
        return self.weight_bytes + self.expert_bytes * (1 - self.expert_missed**tokens)  # type: ignore[no-any-return]


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
    computes = weights or ("fp8" if size == BYTES["fp8"] else "bf16")
    shared = 1 if shape.kv_lora_rank else min(gpus, shape.kv_heads)
    ring = 2 * (gpus - 1) / gpus
    return Work(
        weight_bytes=weight_bytes / gpus,
        expert_bytes=expert_bytes / gpus,
        expert_missed=1 - shape.experts_active / shape.experts if shape.experts else 0.0,
        kv_bytes=shape.layers * shape.kv_numbers * BYTES[cache] / shared,
        token_flops=2.0 * shape.linear_params_active / gpus,
        head_flops=2.0 * shape.head_params / gpus,
        context_flops=4.0 * shape.layers * shape.heads * shape.head_dim / gpus,
        bandwidth=gpu.bandwidth_of((weight_bytes + expert_bytes) / gpus),
        flops=gpu.flops_at(computes),
        exchange_s=shape.layers * 2 * shape.hidden * BYTES["bf16"] * ring / _NVLINK_BYTES_S,
        layers=shape.layers,
        quantised=size < BYTES["bf16"],
        gpus=gpus,
    )


def _in_memory(size: float, gpu: Gpu) -> float:
    """Return the bytes of a number as it is read: one that is no quantisation is made larger."""
    return max(size, gpu.number_bytes) if size >= BYTES["bf16"] else size
