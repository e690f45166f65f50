"""A prefix cache by block hash: shared while blocks are held, forgotten from the longest unused on.

vLLM 0.26, vllm/v1/core/block_pool.py and kv_cache_manager.py: a block is found by the hash of all
tokens up to its end, from the first on, as long as there is a hit; blocks that nobody holds stay
until their room is needed, the longest unused first and of a sequence its end first
(free_block_queue, free in reverse order). SGLang's radix cache and LMDeploy's trie
(lmdeploy/pytorch/paging/block_trie) differ in form, not in what they find; OpenVINO GenAI looks
when a request comes, not when it is let in (restore_cached_blocks): only a first burst differs.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence


class BlockCache:
    """Blocks by id. Those that sequences hold are counted by the caller's own sums."""

    def __init__(self) -> None:
        self._held: Counter[int] = Counter()  # by how many sequences
        self._counted = 0  # the sum of these
        self._unused: OrderedDict[int, None] = OrderedDict()  # the longest unused first

    def hits(self, ids: Sequence[int]) -> int:
        """Return how many of a prompt's blocks are here, from the first on."""
        for place, block in enumerate(ids):
            if block not in self._held and block not in self._unused:
                return place
        return len(ids)

    def held(self, ids: Sequence[int]) -> int:
        """Return how many of these some sequence holds, from the first on."""
        for place, block in enumerate(ids):
            if block not in self._held:
                return place
        return len(ids)

    def hold(self, ids: Sequence[int]) -> None:
        """Let a sequence hold its blocks, those that are here and those that it computes."""
        self._counted += len(ids)
        for block in ids:
            self._unused.pop(block, None)
            self._held[block] += 1

    def release(self, ids: Sequence[int], room: float) -> None:
        """Let a sequence leave: its blocks stay until their room is needed.

        Args:
            ids: that it has held.
            room: how many blocks that nobody holds the cache has room for.
        """
        self._counted -= len(ids)
        for block in reversed(ids):
            self._held[block] -= 1
            if not self._held[block]:
                del self._held[block]
                self._unused[block] = None
        self.trim(room)

    def trim(self, room: float) -> None:
        """Forget the longest unused blocks until there is room for the others."""
        while len(self._unused) > max(0.0, room):
            self._unused.popitem(last=False)

    @property
    def shared(self) -> int:
        """How many blocks the sequences' own sums count too often."""
        return self._counted - len(self._held)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept that nobody holds."""
        return not self._unused
