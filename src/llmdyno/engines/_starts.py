"""What an engine is told of a study, to name configs that the study may begin with."""

import msgspec

from llmdyno.knobs import Config


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """A model's sizes, whole, before it is shared out to GPUs."""

    params: float
    weight_bytes: float  # as the checkpoint has them
    layers: int
    kv_heads: int
    head_dim: int


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """A study's baseline, model, GPU and load; None where it is not known."""

    baseline: Config
    model: Sizes | None = None
    gpu_bytes: float | None = None  # memory of one GPU
    prompt_tokens: float | None = None  # of a typical request
    answer_tokens: float | None = None
