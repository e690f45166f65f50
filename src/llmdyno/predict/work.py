"""Bytes and FLOPs of a step, from the model's shape and the number formats of weights and cache.

The sums are those of the roofline model (Williams et al., 2009): a step reads all weights that its
tokens use once, and the keys and values of every sequence in it; each token costs two FLOPs a
weight.
"""

import msgspec

from llmdyno.predict.gpus import Gpu
from llmdyno.predict.shapes import Shape

_GROUP_SCALE = 0.06  # 4-bit weights: scales and zero points of groups of 128, a share of the bytes
_NVLINK_BYTES_S = 450e9  # of one GPU in one direction (NVIDIA H100 data sheet)


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

    def read_bytes(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads, in bytes."""
        # Each token takes `experts_active` of them; drawn evenly, so many are taken by none.
        return self.weight_bytes + self.expert_bytes * (1 - self.expert_missed**tokens)


def work_of(shape: Shape, gpu: Gpu, gpus: int, weights: str, cache: str, compute: str) -> Work:
    """Return the costs of a step.

    Args:
        gpus: how many share every layer (tensor parallelism).
        weights: the weights' number format, a key of `BYTES`.
        cache: that of keys and values.
        compute: the key of the GPU's peak that counts; bf16 where it has no other.
    """
    expert_params = (
        3.0
        * shape.hidden
        * shape.moe_intermediate
        * shape.experts
        * (shape.layers - shape.dense_layers)
        if shape.experts
        else 0.0
    )
    other = shape.linear_params - expert_params
    size = bytes_of(weights)
    if shape.kv_lora_rank:  # latent attention keeps one compressed vector, on every GPU
        kv_values = float(shape.layers * (shape.kv_lora_rank + shape.rope_dim))
        kv_shared = 1
    else:
        kv_values = 2.0 * shape.layers * shape.kv_heads * shape.head_dim
        kv_shared = min(gpus, shape.kv_heads)
    ring = 2 * (gpus - 1) / gpus
    return Work(
        weight_bytes=(other * size + shape.head_params * max(size, 2.0)) / gpus,
        expert_bytes=expert_params * size / gpus,
        expert_missed=1 - shape.experts_active / shape.experts if shape.experts else 0.0,
        kv_bytes=kv_values * bytes_of(cache) / kv_shared,
        token_flops=2.0 * shape.linear_params_active / gpus,
        head_flops=2.0 * shape.head_params / gpus,
        context_flops=4.0 * shape.layers * shape.heads * shape.head_dim / gpus,
        bandwidth=gpu.bandwidth_bytes_s,
        flops=gpu.flops.get(compute) or gpu.flops["bf16"],
        exchange_s=2.0 * shape.layers * shape.hidden * 2.0 * ring / _NVLINK_BYTES_S
        if gpus > 1
        else 0.0,
        layers=shape.layers,
        quantised=size < 2,  # noqa: PLR2004 - bytes of 16 bits
        gpus=gpus,
    )


BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5 * (1 + _GROUP_SCALE),
    "int4": 0.5 * (1 + _GROUP_SCALE),
}


def bytes_of(number_format: str) -> float:
    """Bytes of one value."""
    return BYTES[number_format]
