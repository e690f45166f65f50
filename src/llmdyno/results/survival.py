"""Values of which some are only known to be greater than what was seen of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Survival(NamedTuple):
    """The product-limit estimate (Kaplan & Meier 1958) of values, some only known to be greater."""

    times: Floats  # known and censored ones, ascending
    above: Floats  # the estimated share of values above each of these

    @property
    def last(self) -> float:
        """The greatest time that was seen, known or censored; 0 if there is none."""
        return float(self.times[-1]) if len(self.times) else 0.0

    def quantile(self, q: float) -> float | None:
        """Return the smallest time at which the share of values up to it reaches q.

        None: it is beyond what was observed.
        """
        reached = np.flatnonzero(self.above <= 1.0 - q + 1e-12)
        return float(self.times[reached[0]]) if len(reached) else None

    def mean(self) -> float | None:
        """Return the mean; None: some of the values are beyond what was observed."""
        if not len(self.times) or self.above[-1] > 1e-12:
            return None
        return self.mean_at_least()

    def mean_at_least(self) -> float:
        """Return the mean of the values if none is greater than the last time."""
        shares = np.concatenate([[1.0], self.above[:-1]])
        return float((np.diff(self.times, prepend=0.0) * shares).sum())


def survival(values: Floats, censored: Floats) -> Survival:
    """Estimate how values are distributed, some only known to be greater than `censored`."""
    times = np.concatenate([values, censored])
    known = np.arange(len(times)) < len(values)
    order = np.lexsort((~known, times))  # of equal ones the known come first
    at_risk = np.arange(len(times), 0, -1)
    above = np.cumprod(np.where(known[order], 1.0 - 1.0 / at_risk, 1.0), dtype=np.float64)
    return Survival(times[order], above)
