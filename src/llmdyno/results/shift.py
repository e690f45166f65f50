"""Whether the machine has changed between a study's first run and its pairs, by the baseline.

The baseline runs before the trials and again in every pair. Nothing chooses these runs by their
values, so what differs is the machine's doing, or the server's, and not luck in a selection.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from llmdyno.results.pairs import PRIOR, Run, pooled_noise, residual_spread
from llmdyno.results.stats import student_quantile

# What the pairs are to find, see tune/pairs.py: a smaller step of the machine hides no config that
# they would have found.
_SHIFT_MIN = 0.10


class Shift(NamedTuple):
    """What the baseline comes to in the pairs ÷ what it came to before the trials."""

    mean: float
    ci95: tuple[float, float]


def shift(first: float, runs: Sequence[Run]) -> Shift | None:
    """Return how far the baseline's level has moved; None: by nothing that is shown.

    The interval is Student's for one run against the mean of n, with the noise between equal runs
    by the pairs themselves and by what is believed before (`pairs.PRIOR`).

    Args:
        first: the logarithm of the baseline's value before the trials, measured as the pairs were.
        runs: of the pairs, in order.
    """
    logs = [run.log for run in runs if not run.after]
    if not logs:
        return None
    shown = residual_spread(runs)
    freedom = PRIOR.freedom + (0.0 if shown is None else shown.freedom)
    moved = sum(logs) / len(logs) - first
    half = student_quantile(freedom) * pooled_noise([shown]) * math.sqrt(1 + 1 / len(logs))
    if abs(moved) < math.log1p(_SHIFT_MIN) or abs(moved) <= half:
        return None
    return Shift(math.exp(moved), (math.exp(moved - half), math.exp(moved + half)))
