"""A histogram of how late the streamer's writes were.

Calibration subtracts this lateness from the client's figures. A histogram takes the same memory and
time for any number of writes.
"""

import itertools

_BUCKET_NS = 10_000
_BUCKETS = 100_000  # lateness up to one second, in steps of ten microseconds


class Lateness:
    """Counts writes in buckets of ten microseconds of lateness."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._max_ns = 0

    def add(self, late_ns: int) -> None:
        """Count a write that was this late; a second or more counts as the last bucket."""
        self._counts[min(late_ns // _BUCKET_NS, _BUCKETS - 1)] += 1
        self._max_ns = max(self._max_ns, late_ns)

    @property
    def writes(self) -> int:
        """The number of writes counted so far."""
        return sum(self._counts)

    def in_ms(self) -> dict[str, float | None]:
        """Return the median, the 99th percentile and the maximum in ms; None: nothing counted."""
        return {
            "p50": self._quantile_ms(0.5),
            "p99": self._quantile_ms(0.99),
            "max": self._max_ns / 1e6,
        }

    def _quantile_ms(self, share: float) -> float | None:
        total = self.writes
        for bucket, below in enumerate(itertools.accumulate(self._counts)):
            if total and below >= share * total:
                return (bucket + 1) * _BUCKET_NS / 1e6
        return None
