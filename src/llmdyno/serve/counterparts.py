"""Knobs of another engine or front: who has it, and what does nearly the same here.

Who comes from vLLM types vLLM's names. Asked before a setting is parsed, and only then.
equivalents.SAME says which knobs serve one purpose, never that a value carries over.
"""

from collections.abc import Mapping, Sequence

from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.errors import UsageError
from llmdyno.fronts import Front
from llmdyno.knobs import Knob
from llmdyno.serve.equivalents import SAME


def refuse_others_knobs(
    settings: Sequence[str], engine: Engine, front: Front, known: Sequence[Knob]
) -> None:
    """Refuse `--set name=value` texts whose name another engine or front has and these have not.

    Raises:
        UsageError: says who has it, and which knob here is nearest.
    """
    here = {knob.name: knob for knob in known}
    for text in settings:
        name = text.partition("=")[0]
        if name in here:
            continue
        fronts = [other for other in plugins.names("fronts") if _has("fronts", other, name)]
        if fronts:
            raise UsageError(
                f"--set {text}: is a setting of --front {' and '.join(fronts)}, and the front here"
                f" is {front.name}."
            )
        owners = [other for other in plugins.names("engines") if _has("engines", other, name)]
        if owners:
            raise UsageError(
                f"--set {text}: {engine.name} has no knob of that name, {' and '.join(owners)}"
                f" {'have' if len(owners) > 1 else 'has'}; {_nearest(name, owners, engine, here)}."
            )


def _has(kind: str, plugin: str, name: str) -> bool:
    return any(knob.name == name for knob in plugins.load(kind, plugin).knobs)


def _nearest(name: str, owners: Sequence[str], engine: Engine, here: Mapping[str, Knob]) -> str:
    for row in SAME:
        ours = next((knob for knob in row.knobs.get(engine.name, ()) if knob in here), None)
        if ours is not None and any(name in row.knobs.get(owner, ()) for owner in owners):
            what = here[ours].does.partition(". ")[0].rstrip(".")
            return f"the nearest here is {ours} ({what[0].lower()}{what[1:]})"
    return "nothing here does the same"
