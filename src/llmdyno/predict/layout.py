"""A setup's memory: what its config means to the sum in memory.py."""

from llmdyno import plugins
from llmdyno.engines import Limit, Scheduling, facts
from llmdyno.errors import UsageError
from llmdyno.predict.memory import Fit, Part, fit
from llmdyno.predict.server import Setup
from llmdyno.predict.work import BYTES

_PLAIN_BYTES = 2.0


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
    """
    rules = scheduling_of(setup.engine)
    config = setup.config

    def number(limit: Limit) -> float:
        value = config.get(limit.knob) if limit.knob else None
        if isinstance(value, int | float):
            return value
        small = setup.gpu.memory_bytes < 70 * 2**30 and limit.unset_small is not None
        return limit.unset_small if small and limit.unset_small is not None else limit.unset

    weights = rules.formats.get(str(config.get(rules.weights)))
    cache = rules.formats.get(str(config.get(rules.cache)))
    share = number(rules.memory_share)
    cache_bytes = config.get(rules.cache_bytes) if rules.cache_bytes else None
    part = Part(
        tensor=tensor_gpus(setup),
        weight_bytes=None if weights is None else BYTES[weights],
        kv_bytes=_PLAIN_BYTES if cache is None else BYTES[cache],
        share=share,
        step_tokens=int(number(rules.tokens)),
        sequences=int(number(rules.sequences)),
        longest=max(1, longest),
        graphs=config.get(rules.graph_off) is not True,
        cache_bytes=cache_bytes * rules.cache_unit_bytes
        if isinstance(cache_bytes, int | float) and cache_bytes
        else None,
        share_of_free=rules.memory_of_free,
    )
    return fit(setup.shape, setup.gpu, part)
