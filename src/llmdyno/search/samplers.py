"""The searches by name, as `--sampler` offers them."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from llmdyno.knobs import Value

# Each is imported only when it is used: Optuna takes half a second.
SAMPLERS: Mapping[str, tuple[str, str]] = {
    "own": ("own", "OwnSearch"),
    "tpe": ("tpe", "TpeSearch"),
    "random": ("simple", "RandomSearch"),
    "hill-climb": ("simple", "HillClimb"),
    "grid": ("simple", "GridSearch"),
}


class Searching(Protocol):
    """What proposes configs, and learns what came of them."""

    def start(
        self, config: Mapping[str, Value], value: float, constraints: Mapping[str, float]
    ) -> None:
        """Take the baseline and its result, before the first question."""

    def give(self, config: Mapping[str, Value]) -> None:
        """Take a config that the search did not propose; the next tell() is about it."""

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """Propose a config that is not among `known`; None when the space is used up."""

    def tell(
        self, value: float | None, constraints: Mapping[str, float], error: float = 0.0
    ) -> None:
        """Take the result of the config that was proposed, or given, last.

        A run that was ended early tells the value that it had so far, with its error.
        """


def sampler(name: str) -> Callable[..., Searching]:
    """Return what makes a search; it takes the arguments of `memory.Memory`."""
    module, kind = SAMPLERS[name]
    made: Callable[..., Any] = getattr(import_module(f"llmdyno.search.{module}"), kind)
    return made
