"""One worker's share of a level, when a level is spread over several processes (load/workers.py).

Whatever is numbered (users, requests, sessions, places) is dealt out like cards: number n goes to
worker n mod N. So users come in the same order as in one process, request k asks the k-th prompt of
the seed's sequence however many workers there are, and a number alone tells whose it was.
"""

import msgspec


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to worker `index` of `of`; by default all of it."""

    index: int = 0
    of: int = 1

    def count(self, total: int) -> int:
        """Return how many of so many are ours."""
        return len(self.numbers(total))

    def numbers(self, total: int) -> range:
        """Return which of so many are ours."""
        return range(self.index, total, self.of)

    def number(self, nth: int) -> int:
        """Return the number of our nth, from 0."""
        return self.index + nth * self.of
