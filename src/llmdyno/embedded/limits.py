"""What OpenVINO GenAI's scheduler does not bear, by the tokens that its KV cache holds."""

BLOCK_TOKENS = 32  # of the KV cache, on a CPU


def batch_fault(batch: int, cache_tokens: int) -> str:
    """Return why a batch is too large beside a limited cache; empty: it is not.

    That is so with dynamic_split_fuse=false alone. Where all generations were preempted, they are
    computed again in one batch; if the cache is full before the batch is, the scheduler looks for
    one to preempt, finds none and reads beyond its list (_get_low_priority_sequence_group_id and
    _apply_preemption in scheduler.hpp): a segmentation fault, in seconds with 4,096 or 2,048 tokens
    in a cache of 2,048. Their last blocks are not full, so a batch may have half of the cache.
    """
    if 2 * batch <= cache_tokens:
        return ""
    return (
        f"max_num_batched_tokens={batch} is more than half of the {cache_tokens:,} tokens that the"
        " KV cache holds, and with dynamic_split_fuse=false the library dies of that: set it to at"
        f" most {cache_tokens // 2}, give the cache at least {-(-2 * batch // BLOCK_TOKENS)} blocks"
        " (num_kv_blocks), or leave dynamic_split_fuse on."
    )
