"""Points of a search as arrays, which models and causes of failures read."""

from collections.abc import Sequence

import numpy as np

from llmdyno.knobs import Value
from llmdyno.search.space import Key, Space

SATURATION = 3.0
INACTIVE = -1
UNSET = -2


class Points:
    """Points as arrays: a position for numbers, a class for what is no number."""

    def __init__(self, space: Space, keys: Sequence[Key]) -> None:
        self.keys = list(keys)
        shape = (len(keys), len(space.axes))
        self.at, self.kinds = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        for number, axis in enumerate(space.axes):
            values = [key[number] for key in self.keys]
            if axis.is_number:
                places = {value: axis.position(value) for value in set(values)}
                self.at[:, number] = [places[value] for value in values]
                self.kinds[:, number] = [UNSET if value is None else 0 for value in values]
            else:
                kinds: dict[Value | None, int] = {
                    level: kind for kind, level in enumerate(axis.levels)
                }
                self.kinds[:, number] = [kinds.get(value, 99) for value in values]
            if axis.knob.needs is not None:
                without = [not space.bites(number, key) for key in self.keys]
                self.kinds[without, number] = INACTIVE
        # How much of its gain a batch knob has there: it saturates.
        self.rise = 1 - np.exp(-SATURATION * np.clip(self.at, 0.0, 1.0))
