"""A decoder's sizes, and what follows from them: parameters, and numbers in the KV cache."""

import re
from typing import Any

import msgspec
import numpy as np

BITS_A_BYTE = 8


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder's sizes. Parameters are counts of numbers; biases and norms are left out.

    A layer has `heads` queries and `kv_heads` keys and values of `head_dim` each, and a
    feed-forward net of `matrices` matrices. With `experts`, all layers but `dense_layers` have that
    many nets of `moe_intermediate`, of which `experts_active` work on a token, beside
    `shared_intermediate` that always does. `kv_lora_rank` above 0 is multi-head latent attention:
    one vector a token and layer of that length and `rope_dim` is all that the cache holds. In
    `window_layers` of the layers (all, if it is 0) attention reaches back `window` tokens.
    `state_layers` have no cache that grows: each keeps `state_bytes` of a sequence, however long it
    is (linear attention, a state-space model, attention to a picture). `reading_layers` attend to
    the keys and values of another layer, and keep none. Only `net_layers` have a feed-forward net.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    experts: int = 0
    experts_active: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    kv_lora_rank: int = 0
    rope_dim: int = 0
    window: int = 0
    window_layers: int = 0
    q_lora_rank: int = 0
    value_dim: int = 0  # of a head with latent attention; 0: head_dim
    query_gate: bool = False  # attention's output passes a gate as large as the queries
    reading_layers: int = 0
    state_layers: int = 0
    state_bytes: int = 0
    state_params: int = 0  # of one such layer in place of attention; 0: as many as attention has
    state_beside: bool = False  # these layers have attention, too
    net_layers: int = -1  # -1: all
    layer_params: int = 0  # of each layer beside attention, state and net
    matrices: int = 3  # of a feed-forward net: 3 with a gate, 2 without
    other_params: int = 0  # that no token of an answer passes: a vision tower and its projector
    weight_bytes: float = 2.0  # of a parameter in the layers, as it lies in the GPU's memory
    expert_bytes: float = 0.0  # the same of the experts; 0: weight_bytes
    cache: str = ""  # the format of keys and values that its checkpoint is made for
    method: str = ""  # by which that was quantised, as its quant_method says
    computes: str = ""  # the precision of its products: fp8, int8, fp4; empty: 16 bits
    context: int = 0  # tokens of the longest sequence that the model was made for; 0: not known

    @property
    def attention_params(self) -> int:
        """Parameters of one layer's attention."""
        if self.kv_lora_rank:
            value_dim = self.value_dim or self.head_dim
            query = self.heads * (self.head_dim + self.rope_dim)
            queries = (
                self.q_lora_rank * (self.hidden + query)
                if self.q_lora_rank
                else self.hidden * query
            )
            latent = self.hidden * (self.kv_lora_rank + self.rope_dim)
            up = self.kv_lora_rank * self.heads * (self.head_dim + value_dim)
            return queries + latent + up + self.heads * value_dim * self.hidden
        queries = self.heads * (2 + self.query_gate)
        return self.hidden * self.head_dim * (queries + 2 * self.kv_heads)

    @property
    def moe_layers(self) -> int:
        """How many layers have experts."""
        return self._nets - self.dense_layers if self.experts else 0

    @property
    def expert_params(self) -> int:
        """Parameters of all experts in all layers, without those that every token passes."""
        return self.moe_layers * self.experts * self._net(self.moe_intermediate)

    @property
    def linear_params(self) -> int:
        """Parameters in the layers: attention, nets, routers, all experts; no embeddings."""
        return self._beside_experts + self.expert_params

    @property
    def linear_params_active(self) -> int:
        """Parameters in the layers that work on one token."""
        active = self.moe_layers * self.experts_active * self._net(self.moe_intermediate)
        return self._beside_experts + active

    @property
    def head_params(self) -> int:
        """Parameters of the matrix that makes logits."""
        return self.hidden * self.vocab

    @property
    def params(self) -> int:
        """All parameters: layers, logits, the table of tokens where it is not the same, others."""
        return self.linear_params + self.head_params * (1 if self.tied else 2) + self.other_params

    @property
    def bytes_as_shipped(self) -> float:
        """Bytes of the weights as the checkpoint has them."""
        experts = self.expert_params * (self.expert_bytes or self.weight_bytes)
        others = (self.params - self.linear_params) * 2.0  # logits and tokens stay in 16 bits
        return self._beside_experts * self.weight_bytes + experts + others

    @property
    def attention_layers(self) -> int:
        """How many layers attend to a context."""
        return self.layers - (0 if self.state_beside else self.state_layers)

    @property
    def cache_layers(self) -> int:
        """How many layers keep keys and values."""
        return self.attention_layers - self.reading_layers

    @property
    def window_share(self) -> float:
        """The share of these that reach back `window` tokens only: all, if there are none."""
        if not self.cache_layers:
            return 1.0
        return (self.window_layers or self.cache_layers) / self.cache_layers if self.window else 0.0

    def splits_over(self, gpus: int) -> bool:
        """Return whether so many GPUs can share each layer: as vLLM, SGLang and TensorRT-LLM do.

        Heads are shared out evenly. So are those of keys and values, or each is copied evenly.
        """
        of_keys = 1 if self.kv_lora_rank else self.kv_heads
        return self.heads % gpus == 0 and (of_keys % gpus == 0 or gpus % of_keys == 0)

    def layer_token_bytes(self, kv_bytes: float, gpus: int) -> float:
        """Return the bytes of one layer's keys and values of one token on each of some GPUs."""
        # Latent attention keeps the same vector on every GPU; heads are copied if they are too few.
        shared = 1 if self.kv_lora_rank else min(gpus, self.kv_heads)
        return self.kv_numbers * kv_bytes / shared

    def token_bytes(self, kv_bytes: float, gpus: int) -> float:
        """Return the same of all layers that keep some.

        Where none does, it is what one would keep: a unit that contexts take nothing of.
        """
        return max(1, self.cache_layers) * self.layer_token_bytes(kv_bytes, gpus)

    def state_tokens(self, kv_bytes: float, gpus: int) -> float:
        """Return what a sequence's states take on each of some GPUs, in tokens of the cache."""
        return self.state_layers * self.state_bytes / gpus / self.token_bytes(kv_bytes, gpus)

    @property
    def kv_numbers(self) -> int:
        """How many numbers one token puts into the KV cache of one layer."""
        if self.kv_lora_rank:
            return self.kv_lora_rank + self.rope_dim
        return 2 * self.kv_heads * self.head_dim

    def kv_layer_tokens(self, length: float) -> float:
        """Return for how many tokens the layers together hold keys and values of one sequence.

        It is `cache_layers` times `length`, less what layers with a window have forgotten.
        """
        return self.cache_layers * float(remembered(length, 1, self.window, self.window_share))

    @property
    def _nets(self) -> int:
        return self.layers if self.net_layers < 0 else self.net_layers

    @property
    def _beside_experts(self) -> int:
        nets = (self._nets - self.moe_layers) * self._net(self.intermediate)
        shared = self.moe_layers * self._net(self.shared_intermediate)
        routers = self.moe_layers * self.hidden * self.experts
        states = self.state_layers * (self.state_params or self.attention_params)
        attention = self.attention_layers * self.attention_params
        return attention + states + nets + shared + routers + self.layers * self.layer_params

    def _net(self, intermediate: int) -> int:
        return self.matrices * self.hidden * intermediate


def remembered(context: Any, sequences: Any, window: Any, share: Any) -> Any:
    """Return the tokens that are left of a context, of which a share of the layers forgets some.

    Args:
        context: tokens of so many sequences together; all are taken for equally long.
        sequences: how many; arrays do, too.
        window: tokens that these layers reach back.
        share: of the layers.
    """
    return context - share * (context - np.minimum(context, sequences * window))


def canonical(name: str) -> str:
    """Return a name without what people write differently: case, dashes, dots, colons."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
