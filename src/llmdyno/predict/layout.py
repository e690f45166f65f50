"""A setup's memory: what its config means to the sum in memory.py."""

from llmdyno import plugins
from llmdyno.engines import Scheduling, facts
from llmdyno.errors import UsageError
from llmdyno.predict.memory import Fit, fit
from llmdyno.predict.server import Setup, part_of


def scheduling_of(engine: str) -> Scheduling:
    """Return what an engine's knobs mean to its scheduler.

    Raises:
        UsageError: there is no such engine, or nothing is known of its scheduler.
    """
    found = facts(plugins.load("engines", engine)).scheduling
    if found is None:
        known = [name for name in plugins.names("engines") if _is_known(name)]
        raise UsageError(
            f"--engine {engine}: its scheduler is not known to the predictor; it knows"
            f" {', '.join(known)}."
        )
    return found


def _is_known(name: str) -> bool:
    return facts(plugins.load("engines", name)).scheduling is not None


def tensor_gpus(setup: Setup) -> int:
    """Return how many GPUs share every layer."""
    value = setup.config.get(scheduling_of(setup.engine).gpus)
    return max(setup.gpus, value) if isinstance(value, int) else setup.gpus


def memory_of(setup: Setup, longest: int) -> Fit:
    """Return the sum of a setup's memory.

    Args:
        setup: the server.
        longest: tokens of the longest sequence that it will be asked for.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    return fit(setup.shape, setup.gpu, part_of(setup, longest))
