"""Which knobs a study searches. The search itself is the wing `search`.

The space comes from the knobs' `search` ranges. Knobs that alter the output are left out unless the
user allows them. A knob that has an effect only under another's value is proposed only then. The
search also learns from configs that the user gives. It keeps nothing on disk: a study that goes on
tells it again what its ledger knows.
"""

from collections.abc import Sequence

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.knobs import Config, Knob, default, show
from llmdyno.search.own import OwnSearch as Search

__all__ = ["Search", "space"]


def space(
    knobs: Sequence[Knob],
    *,
    only: Sequence[str],
    allow_altered_output: bool,
    baseline: Config,
) -> list[Knob]:
    """Return the knobs that are searched; those that others depend on come first.

    A knob that has an effect only under another's value is among them if that other is searched
    too, or has the value in every trial.

    Args:
        knobs: of the engine and the front.
        only: names of those to search; empty: all that have a range to search.
        allow_altered_output: whether knobs that may change the tokens are among them.
        baseline: what every trial has for the knobs that are not searched.

    Raises:
        UsageError: a name is unknown, has no range, may change the tokens, or has no effect.
    """
    by_name = {knob.name: knob for knob in knobs}
    for name in only:
        if only.count(name) > 1:
            raise UsageError(f"--search {name}: named twice; once is enough.")
        if name not in by_name:
            raise UsageError(f"--search {name}: no such knob.{nearest(name, by_name)}")
        if not by_name[name].search:
            raise UsageError(f"--search {name}: has no range to search; set it with --set.")
        if by_name[name].alters_output and not allow_altered_output:
            raise UsageError(f"--search {name}: may change the tokens; add --allow-altered-output.")
    chosen = [
        knob
        for knob in knobs
        if knob.search
        and (knob.name in only or not only)
        and (allow_altered_output or not knob.alters_output)
    ]
    searched = {knob.name for knob in chosen}
    bites = []
    for knob in chosen:
        if knob.needs is None or knob.needs[0] in searched:
            bites.append(knob)
            continue
        other, wanted = knob.needs
        actual = baseline.get(other, default(by_name[other], None))
        if actual == wanted:
            bites.append(msgspec.structs.replace(knob, needs=None))
        elif only:
            raise UsageError(
                f"--search {knob.name}: has no effect while {other}={show(actual)}; add"
                f" --set {other}={show(wanted)} or search {other} too."
            )
    return sorted(bites, key=lambda knob: knob.needs is not None)
