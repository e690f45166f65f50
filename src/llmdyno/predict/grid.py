"""The configs that `dyno plan` looks at: knobs that the scheduler's speed follows from."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from llmdyno import plugins
from llmdyno.engines import Scheduling
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, Value
from llmdyno.predict.decoder import Shape
from llmdyno.predict.server import scheduling_of

CONFIGS_MAX = 4000
_STEPS = 4  # values of a knob with a range
_ANY_MODEL = "organisation/model"  # engines refuse a folder that is not there; a plan needs none


def configs(
    engine: str,
    base: Mapping[str, Value],
    gpus: int,
    shape: Shape,
    *,
    allow_altered_output: bool,
    prefixes: bool = False,
) -> Iterator[tuple[dict[str, Value], int]]:
    """Yield configs with how many copies of the server they leave room for on `gpus` GPUs.

    `base` is what the user sets, and no more: a knob of tensor parallelism in it is kept. The first
    config is the base on all GPUs, or on as many of them as can share the model's layers.
    A config is the base with other values for the knobs that the scheduler's data names and that
    have a range to search; that of the prefix cache is among them where `prefixes` says that
    prompts begin alike.
    """
    rules = scheduling_of(engine).under(base)
    gpus = max(1, gpus // groups(rules, base))
    plugin = plugins.load("engines", engine)
    known: dict[str, Knob] = {knob.name: knob for knob in plugin.knobs}
    names = (
        *(rules.sequences.knob, rules.tokens.knob, rules.servers, rules.graph_mode),
        *(rules.mixes_knob, rules.admission_knob, rules.weights, rules.cache),
        *((rules.prefix_cache, rules.prefix_cache_off) if prefixes else ()),
    )
    knobs = [
        known[name]
        for name in dict.fromkeys(names)
        if name in known and known[name].search
        if allow_altered_output or not known[name].alters_output
    ]
    spread = shares(rules.gpus, base, gpus, shape)
    yield {**base, **spread[0][0]}, spread[0][1]
    values = [[None, *_values(knob)] for knob in knobs]
    chosen = itertools.islice(itertools.product(*values), CONFIGS_MAX)
    for row in chosen:
        given = {
            knob.name: value for knob, value in zip(knobs, row, strict=True) if value is not None
        }
        for tensor, copies in spread:
            config = {**base, **tensor, **given}
            if _is_possible(plugin, config):
                yield config, copies


def groups(rules: Scheduling, base: Mapping[str, Value]) -> int:
    """Return how many groups of GPUs a server has: ranks, and stages of each."""
    asked = (base.get(knob, 1) for knob in (rules.copies, rules.stages))
    return math.prod(each for each in asked if isinstance(each, int))


def shares(
    knob: str, base: Mapping[str, Value], gpus: int, shape: Shape
) -> list[tuple[Config, int]]:
    """Return the ways to lay GPUs out: the knob of tensor parallelism, and the copies.

    The first has as many GPUs in one server as can share the layers evenly; a base that sets the
    knob itself leaves no choice.
    """
    if not knob or gpus == 1:
        return [({}, gpus if not knob else 1)]
    if isinstance(base.get(knob), int):
        return [({}, max(1, gpus // int(base[knob])))]
    counts = [count for count in range(gpus, 0, -1) if gpus % count == 0]
    return [({knob: count}, gpus // count) for count in counts if shape.splits_over(count)]


def _values(knob: Knob) -> Sequence[Value]:
    if knob.kind not in ("int", "float"):
        return knob.search
    low, high = (float(end) for end in knob.search)
    if knob.search_log:
        found = [low * (high / low) ** (step / (_STEPS - 1)) for step in range(_STEPS)]
    else:
        found = [low + (high - low) * step / (_STEPS - 1) for step in range(_STEPS)]
    if knob.kind == "float":
        return found
    return sorted({int(knob.tried(value)) for value in found})


def _is_possible(plugin: object, config: Config) -> bool:
    try:
        plugin.check(_ANY_MODEL, config)  # type: ignore[attr-defined]  # plugins are not typed
    except UsageError:
        return False
    return True
