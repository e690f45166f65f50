"""One worker's share of a level, when a level is spread over several processes (load/workers.py).

Users, requests, sessions and slots are numbered and dealt out like cards: number n goes to worker
n mod N. So users start in the same order as in one process, request k asks the k-th prompt of the
seed's sequence whatever the number of workers, and a number alone tells which worker had it.
"""

import msgspec


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The share of worker `index` among `of` workers; by default everything."""

    index: int = 0
    of: int = 1

    def count(self, total: int) -> int:
        """Return how many of `total` numbers belong to this worker."""
        return len(self.numbers(total))

    def numbers(self, total: int) -> range:
        """Return which of `total` numbers belong to this worker."""
        return range(self.index, total, self.of)

    def number(self, nth: int) -> int:
        """Return the number, within the whole, of this worker's nth item; both count from 0."""
        return self.index + nth * self.of
