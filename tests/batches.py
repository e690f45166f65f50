"""Knobs of a made-up server, and its known speed: two batch knobs share a memory."""

import math
from collections.abc import Mapping
from typing import Any

from llmdyno.knobs import Knob, Value


def row(name: str, **more: Any) -> Knob:
    """Return a knob without words."""
    return Knob(name=name, layer="engine", does="-", turn="-", trades="-", source="-", **more)


SEQUENCES = row("sequences", kind="int", defaults=(("1", 16),), search=(8, 512), search_log=True)
TOKENS = row("tokens", kind="int", defaults=(("1", None),), search=(256, 8192), search_log=True)
KERNEL = row("kernel", kind="choice", defaults=(("1", "a"),), search=("a", "b", "c"))
GUESS = row("guess", kind="bool", defaults=(("1", False),), search=(True, False))
GUESSES = row("guesses", kind="int", defaults=(("1", 2),), search=(1, 8), needs=("guess", True))
KNOBS = (SEQUENCES, TOKENS, KERNEL, GUESS, GUESSES)

BEST = 1.3 * 1.1 * 2.0


def speed(config: Mapping[str, Value]) -> float | None:
    """Return what a config makes, BEST at most; None: it does not start."""
    sequences = float(config.get("sequences", 16))
    tokens = float(config.get("tokens", 1024))
    kernel = config.get("kernel", "a")
    if kernel == "c" or sequences * tokens > 2**20:
        return None
    batch = 2.0 * (1 - math.exp(-sequences / 60)) * (1 - 0.5 * math.exp(-tokens / 700))
    guess = 1.1 - 0.05 * abs(int(config.get("guesses", 2)) - 4) if config.get("guess") else 1.0
    return batch * guess * (1.3 if kernel == "b" else 1.0)
