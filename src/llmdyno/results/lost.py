"""Requests that failed, and whether a server loses more of them than another one, beyond chance.

What is fast because it refuses is not better: the tuner and the comparison both ask here.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from llmdyno.results.documents import Document, number

# By so much more a server must lose, beyond chance.
_MORE = 0.01
_DEAD = 2  # so many requests that failed, and none that did not, are no chance where some did
_ERRORS = 3.0  # standard errors of the difference of two shares, which are chance


class Requests(NamedTuple):
    """What became of the requests of a run, or of several."""

    failed: int = 0
    completed: int = 0

    @property
    def asked(self) -> int:
        """How many there were, whatever became of them."""
        return self.failed + self.completed

    @property
    def lost(self) -> float:
        """The share that failed."""
        return self.failed / self.asked if self.asked else 0.0


def of_level(level: Document) -> Requests:
    """Return what a summary's level says of its requests; none if it says nothing."""
    failed, completed = (number(level, "requests", key) or 0 for key in Requests._fields)
    return Requests(failed=int(failed), completed=int(completed))


def together(runs: Iterable[Requests]) -> Requests:
    """Return the requests of several runs as those of one."""
    found = list(runs)
    return Requests(
        failed=sum(one.failed for one in found), completed=sum(one.completed for one in found)
    )


def loses(old: Requests, new: Requests) -> bool:
    """Tell whether a server loses more requests than another one, beyond chance."""
    if not old.asked or not new.asked:
        return False
    if old.completed and not new.completed and new.failed >= _DEAD:
        return True
    pooled = (old.failed + new.failed) / (old.asked + new.asked)
    error = math.sqrt(pooled * (1 - pooled) * (1 / old.asked + 1 / new.asked))
    return new.lost - old.lost > _MORE + _ERRORS * error


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a level that two sides have, as a comparison's "requests" tell them."""

    at: str  # the level's name
    before: Requests
    after: Requests

    @property
    def verdict(self) -> Literal["better", "worse", "no difference"]:
        """Whether more of them failed afterwards, or fewer."""
        if loses(self.before, self.after):
            return "worse"
        return "better" if loses(self.after, self.before) else "no difference"

    @property
    def shares(self) -> str:
        """Both shares, in words: "failed requests 0 % before, 10.2 % after"."""
        old, new = (f"{100 * side.lost:.3g} %" for side in (self.before, self.after))
        return f"failed requests {old} before, {new} after"

    @property
    def told(self) -> dict[str, Any]:
        """What the comparison's document says of it."""
        sides = {"before": self.before._asdict(), "after": self.after._asdict()}
        return {"at": self.at, **sides, "verdict": self.verdict, "said": self.shares}
