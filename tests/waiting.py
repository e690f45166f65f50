"""Waiting for what can be observed: no longer than it takes, and not for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_PERIOD_S = 0.01


def until(condition: Callable[[], Result], what: str, *, within_s: float = 30.0) -> Result:
    """Return what a condition returns once that is true.

    Args:
        condition: is asked again and again.
        what: it waits for, in a few words: said if it does not come.
        within_s: it must be true.
    """
    deadline_s = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f"{what}: not within {within_s:g} s"
        time.sleep(_PERIOD_S)
    return result
