"""Does FlashAttention 3 compute mixed batches right inside a CUDA graph of the whole step?

    python benchmarks/h200/full_graphs.py

With cudagraph_mode=FULL vLLM captures each graph with one token a sequence and replays it for steps
in which some sequences bring a whole prompt. Random weights cannot show whether the answers suffer,
so the attention is asked by itself: captured as vLLM 0.26 does it
(v1/worker/gpu/cudagraph_utils.py, v1/attention/backends/flash_attn.py), replayed for mixed batches,
and compared with the same batch computed without a graph. Needs vllm on a Hopper GPU. Exit status
1: some row is wrong.
"""

import sys
from typing import NamedTuple

import torch
from vllm.vllm_flash_attn import (  # type: ignore[import-not-found]
    flash_attn_varlen_func,
    get_scheduler_metadata,
)

HEADS, KV_HEADS, HEAD_SIZE = 32, 8, 128  # Llama-3 8B
PAGE, MAX_MODEL_LEN, SPLITS = 16, 8192, 32  # vLLM's defaults
TOLERANCE = 0.25  # rounding in fp8 came to 0.02; a row not computed keeps UNTOUCHED
UNTOUCHED = 7.0


class Batch(NamedTuple):
    """A step: sequences of one new token, prompts of (new, cached) tokens, the graph's size."""

    decodes: int
    prompts: tuple[tuple[int, int], ...]
    graph: int


BATCHES = (
    Batch(100, (), 104),
    Batch(99, ((5, 90),), 104),
    Batch(99, ((30, 0),), 136),
    Batch(99, ((17, 64),), 120),
    Batch(98, ((90, 0), (20, 80)), 208),
    Batch(60, ((300, 0),), 368),
    Batch(0, ((40, 0),), 40),
    Batch(10, ((100, 0),) * 4, 416),
)


class Attention:
    """One layer's attention over buffers that a graph can be captured with."""

    def __init__(self, dtype: torch.dtype, sequences: int, longest: int) -> None:
        self.dtype, self.sequences = dtype, sequences
        pages = -(-longest // PAGE)
        cache = (sequences * pages, PAGE, KV_HEADS, HEAD_SIZE)
        self.keys = torch.randn(cache).to(dtype)
        self.values = torch.randn(cache).to(dtype)
        self.table = torch.zeros(sequences, MAX_MODEL_LEN // PAGE, dtype=torch.int32)
        self.table[:, :pages] = torch.arange(sequences * pages, dtype=torch.int32).view(-1, pages)
        self.queries = torch.randn(sequences, HEADS, HEAD_SIZE).to(dtype)
        self.starts = torch.arange(sequences + 1, dtype=torch.int32)
        self.lengths = torch.ones(sequences, dtype=torch.int32)
        self.scales = torch.ones(sequences, KV_HEADS)
        self.plan = torch.zeros(1 + 16 * -(-sequences // 4), dtype=torch.int32)

    def schedule(self, most_new: int, longest: int) -> int:
        """Plan the step into the buffer that the graph reads; return the plan's length."""
        fresh = get_scheduler_metadata(
            batch_size=self.sequences,
            max_seqlen_q=most_new,
            max_seqlen_k=longest,
            num_heads_q=HEADS,
            num_heads_kv=KV_HEADS,
            headdim=HEAD_SIZE,
            cache_seqlens=self.lengths,
            qkv_dtype=self.dtype,
            cu_seqlens_q=self.starts,
            page_size=PAGE,
            causal=True,
            num_splits=SPLITS,
        )
        self.plan.zero_()
        self.plan[: len(fresh)] = fresh
        return len(fresh)

    def compute(
        self, out: torch.Tensor, most_new: int, longest: int, sequences: int, planned: int | None
    ) -> None:
        """Compute the first sequences into `out` [tokens, heads, head size], with a plan or not."""
        scales = self.scales[:sequences] if self.dtype != torch.bfloat16 else None
        flash_attn_varlen_func(
            q=self.queries[: len(out)],
            k=self.keys,
            v=self.values,
            out=out,
            cu_seqlens_q=self.starts[: sequences + 1],
            max_seqlen_q=most_new,
            seqused_k=self.lengths[:sequences],
            max_seqlen_k=longest,
            causal=True,
            block_table=self.table[:sequences],
            scheduler_metadata=None if planned is None else self.plan[:planned],
            num_splits=0 if planned is None else SPLITS,
            q_descale=scales,
            k_descale=scales,
            v_descale=scales,
            fa_version=3,
        )


def furthest_off(dtype: torch.dtype, batch: Batch) -> float:
    """Return how far the graph's answer is from the one without, at the worst row."""
    new = [1] * batch.decodes + [fresh for fresh, _ in batch.prompts]
    lengths = [50 + 37 * at % 350 for at in range(batch.decodes)]
    lengths += [fresh + cached for fresh, cached in batch.prompts]
    attention = Attention(dtype, batch.graph, max(lengths))
    out = torch.full((batch.graph, HEADS, HEAD_SIZE), UNTOUCHED, dtype=torch.bfloat16)
    planned = attention.schedule(1, MAX_MODEL_LEN)
    attention.compute(out, 1, MAX_MODEL_LEN, batch.graph, planned)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attention.compute(out, 1, MAX_MODEL_LEN, batch.graph, planned)

    # What vLLM sets before a replay; sequences that are only there to fill the graph have no token.
    attention.starts.fill_(sum(new))
    attention.starts[: len(new) + 1] = torch.tensor([0, *new]).cumsum(0)
    attention.lengths.zero_()
    attention.lengths[: len(new)] = torch.tensor(lengths)
    attention.schedule(max(new), max(lengths))
    out.fill_(UNTOUCHED)
    graph.replay()
    expected = torch.zeros(sum(new), HEADS, HEAD_SIZE, dtype=torch.bfloat16)
    attention.compute(expected, max(new), max(lengths), len(new), None)
    torch.cuda.synchronize()
    return float((out[: sum(new)].float() - expected.float()).abs().max())


def main() -> int:
    """Ask all batches in both precisions."""
    torch.set_default_device("cuda")
    torch.manual_seed(0)
    wrong = 0
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        for batch in BATCHES:
            off = furthest_off(dtype, batch)
            wrong += not off <= TOLERANCE  # nor is NaN right
            print(f"{dtype}, {batch}: off by at most {off:.4f}", flush=True)
    print(f"{wrong} of {2 * len(BATCHES)} batches are wrong" if wrong else "every row is right")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
