"""Finds the equivalent of a knob in other engines, and converts shares of GPU memory.

Each knob names its purpose (Knob.means); knobs with the same purpose are equivalents. Their values
need not be the same: 0.9 is a share of the memory that is free after loading in TensorRT-LLM, but
of all the GPU's memory in vLLM. The guide (terminal/lists.py) shows both. A user who types another
engine's knob gets the nearest one of this engine.
"""

from collections.abc import Iterable, Sequence

import msgspec

from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.errors import UsageError
from llmdyno.fronts import Front
from llmdyno.knobs import Knob, MemoryShare

GIB = 1 << 30


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU's memory and its uses besides the KV cache, in bytes."""

    total: float
    weights: float
    activations: float  # at the largest step
    others: float = 0.0  # in use before the engine starts

    def of(self, parts: Sequence[str]) -> float:
        """Return the sum of the named parts, in bytes."""
        return sum(float(getattr(self, part)) for part in parts)


# The example with which the guide calculates.
EXAMPLE = Memory(total=80 * GIB, weights=16 * GIB, activations=4 * GIB)
_EXAMPLE_WORDS = "80 GiB of memory, 16 of weights and 4 of activations"


def cache_bytes(rule: MemoryShare, share: float, memory: Memory) -> float:
    """Return the size of the KV cache in bytes: share x (total - not_of) - holds."""
    return share * (memory.total - memory.of(rule.not_of)) - memory.of(rule.holds)


def share_for(rule: MemoryShare, size_bytes: float, memory: Memory) -> float:
    """Return the share that gives a KV cache of that size; above 1 it is impossible."""
    return (size_bytes + memory.of(rule.holds)) / (memory.total - memory.of(rule.not_of))


def formula(rule: MemoryShare) -> str:
    """Return the formula of `cache_bytes` for this rule in words."""
    base = " - ".join(("total", *rule.not_of))
    return " - ".join((f"cache = share x {f'({base})' if rule.not_of else base}", *rule.holds))


def like(knob: Knob) -> dict[str, list[Knob]]:
    """Return the equivalents of a knob in each engine, by the engine's name.

    Knobs that take effect while all others have their defaults come first.
    """
    found: dict[str, list[Knob]] = {}
    for engine in plugins.names("engines") if knob.means else ():
        knobs = plugins.load("engines", engine).knobs
        alike = [other for other in knobs if other.means == knob.means]
        if alike:
            found[engine] = sorted(alike, key=lambda other: not other.takes_effect(knobs, {}))
    return found


def elsewhere(engine: str, knob: Knob, value: float | None) -> Sequence[str]:
    """Return a sentence for each other engine that has an equivalent of this knob.

    Args:
        engine: the name of the engine (or front) whose knob it is.
        knob: the knob.
        value: the share of memory to convert, for a knob that is such a share; None: none.
    """
    others = {name: knobs[0] for name, knobs in like(knob).items() if name != engine}
    if knob.memory_share is not None and value is not None:
        size_bytes = cache_bytes(knob.memory_share, value, EXAMPLE)
        here = f"here: {formula(knob.memory_share)}; {value:g} is {size_bytes / GIB:.1f} GiB"
        return (
            f"{here} with {_EXAMPLE_WORDS}",
            *(
                f"in {name}: {other.name}={share_for(rule, size_bytes, EXAMPLE):.3f},"
                f" as {formula(rule)}"
                for name, other in others.items()
                if (rule := other.memory_share) is not None
            ),
        )
    return tuple(
        f"in {name}: {other.name}" + (f", but {other.but}" if other.but else "")
        for name, other in others.items()
    )


def refuse_others_knobs(
    settings: Sequence[str], engine: Engine, front: Front, known: Sequence[Knob]
) -> None:
    """Refuse `--set name=value` texts whose knob belongs to another engine or front.

    Args:
        settings: the texts.
        engine: the engine in use.
        front: the front in use.
        known: the knobs of both.

    Raises:
        UsageError: says which engine or front has the knob, and which knob here is nearest.
    """
    here = {knob.name: knob for knob in known}
    for text in settings:
        name = text.partition("=")[0]
        if name in here:
            continue
        if fronts := _owners("fronts", name):
            raise UsageError(
                f"--set {text}: is a setting of --front {' and '.join(fronts)}, and the front here"
                f" is {front.name}."
            )
        if owners := _owners("engines", name):
            nearest = _nearest(owners.values(), known, settings)
            raise UsageError(
                f"--set {text}: {engine.name} has no knob of that name, {' and '.join(owners)}"
                f" {'have' if len(owners) > 1 else 'has'}; {nearest}."
            )


def _owners(kind: str, name: str) -> dict[str, Knob]:
    """Return the plug-ins of a kind that have a knob of that name, by name, with the knob."""
    return {
        plugin: knob
        for plugin in plugins.names(kind)
        for knob in plugins.load(kind, plugin).knobs
        if knob.name == name
    }


def _nearest(theirs: Iterable[Knob], knobs: Sequence[Knob], settings: Sequence[str]) -> str:
    meanings = {knob.means for knob in theirs if knob.means}
    given = dict(text.partition("=")[::2] for text in settings)
    alike = [knob for knob in knobs if knob.means in meanings]
    if not alike:
        return "nothing here does the same"
    ours = min(alike, key=lambda knob: not knob.takes_effect(knobs, given))
    what = ours.does.partition(". ")[0].rstrip(".")
    only = "" if ours.takes_effect(knobs, given) else f", {ours.only_with}"
    return f"the nearest here is {ours.name} ({what[0].lower()}{what[1:]}){only}"
