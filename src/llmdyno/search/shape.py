"""The shape that a server's speed is expected to have over its numbers, as losses.

Each number costs something where it is too small, nothing on a plateau, and something where it is
too large: a batch gains until the machine is full, and what is too large for the cache loses. Two
losses add up where one thing is done after the other, and the larger one alone counts where both
are done at once: so the losses of all numbers are joined by a norm whose power is unknown, too.
"""

from collections.abc import Callable

import numpy as np

from llmdyno.search.points import INACTIVE, Points
from llmdyno.search.space import Floats, Space

TERMS = 4  # of a number: logs of both losses and of the plateau's width, and where it begins
# The loss from the range's low end to the plateau, in the logarithm of the value, from the plateau
# to its high end, and where the plateau begins: of the size of a batch, of another number.
_BELOW_BATCH, _ABOVE_BATCH, _FROM_BATCH = 0.6, 0.2, 0.7
_BELOW, _ABOVE, _FROM = 0.15, 0.15, 0.4
_LOSS_WIDE = 0.9  # the deviation of a loss's logarithm
_FROM_WIDE = 0.35
_PLATEAU, _PLATEAU_WIDE = 0.25, 0.8  # as a share of the range, the deviation of its logarithm
_POWER, _POWER_WIDE = 0.4, 1.0  # of the norm beyond 1, the deviation of its logarithm
_STEEPEST = 0.15  # the share of a range over which a loss is at least spread
_LEAST = 1e-9


class Shape:
    """Losses of numbers, with terms that a model's guesses have.

    Args:
        space: of the points.
        gains: whether more of a batch is expected to make the value larger.
        instead_of: what the results lack that a model with this shape is told: what was expected of
            points by a simpler rule, in the logarithm of the value.
    """

    def __init__(
        self, space: Space, *, gains: bool, instead_of: Callable[[Points], Floats] | None = None
    ) -> None:
        self._instead_of = instead_of
        self.numbers = np.flatnonzero([axis.is_number for axis in space.axes])
        batch = np.array([space.axes[n].knob.search_log and gains for n in self.numbers], bool)
        count = len(self.numbers)
        self.centre = np.concatenate(
            [
                np.log(np.where(batch, _BELOW_BATCH, _BELOW)),
                np.where(batch, _FROM_BATCH, _FROM),
                np.log(np.where(batch, _ABOVE_BATCH, _ABOVE)),
                np.full(count, np.log(_PLATEAU)),
                [np.log(_POWER)],
            ]
        )
        wide = np.repeat([_LOSS_WIDE, _FROM_WIDE, _LOSS_WIDE, _PLATEAU_WIDE], count)
        self.wide = np.append(wide, _POWER_WIDE)

    def expected(self, terms: Floats, points: Points) -> Floats:
        """Return what is expected of points before any result, a row a guess; see losses()."""
        lost = self.losses(terms, points)
        return -lost if self._instead_of is None else -lost - self._instead_of(points)

    def losses(self, terms: Floats, points: Points) -> Floats:
        """Return what is lost at points, in the logarithm of the value, a row a guess.

        Far from the plateau a loss grows ever more slowly, as the values that the search tells its
        model do.

        Args:
            terms: as `centre` has them, a row a guess.
            points: to look at.
        """
        count = len(self.numbers)
        if not count:
            return np.zeros((len(terms), len(points.at)))
        each = terms[:, : TERMS * count].reshape(len(terms), TERMS, count, 1)
        below, begins, above, wide = (each[:, number] for number in range(TERMS))
        at = points.at[:, self.numbers].T
        ends = begins + np.exp(wide)
        short = np.maximum(begins - at, 0.0) / np.maximum(begins, _STEEPEST)
        over = np.maximum(at - ends, 0.0) / np.maximum(1 - ends, _STEEPEST)
        lost = np.exp(below) * short**2 + np.exp(above) * over**2
        lost = lost * (points.kinds[:, self.numbers] != INACTIVE).T + _LEAST
        power = 1 + np.exp(terms[:, -1])[:, None]
        found: Floats = np.log1p((lost ** power[..., None]).sum(1) ** (1 / power))
        return found
