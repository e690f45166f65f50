"""How far equal runs of a study lie apart, by what it has measured twice."""

import math
from collections.abc import Sequence

from llmdyno.results.pairs import PRIOR
from llmdyno.results.stats import Spread
from llmdyno.tune.ledger import Ledger


def spreads_before(ledger: Ledger) -> list[Spread]:
    """Return the spread of each config that was measured twice before the confirmation.

    The baseline was in full and as a trial is, and so was the winner.
    """
    values: dict[tuple[str, int, bool], list[float]] = {}
    odd = {name for event in ledger.lanes_left_out for name in event.devices}
    for step in ledger.steps:
        if step.device in odd:  # it was left out because it is unlike the others
            continue
        early = step.phase in {"baseline", "reference", "trial", "best"}
        if early and step.state == "measured" and step.value is not None and step.value > 0:
            # A run beside others, or on a part of the machine, is slower: that is no noise.
            alike = (repr(sorted(step.config.items())), step.beside, bool(step.device))
            values.setdefault(alike, []).append(step.value)
    return [_spread([math.log(one) for one in same]) for same in values.values() if len(same) > 1]


def _spread(logs: Sequence[float]) -> Spread:
    mean = sum(logs) / len(logs)
    return Spread(sum((one - mean) ** 2 for one in logs) / (len(logs) - 1), len(logs) - 1)


def noise_so_far(ledger: Ledger) -> Spread:
    """Return how far equal runs lie apart, by the study and by what is believed before it."""
    known = [PRIOR, *spreads_before(ledger)]
    freedom = sum(one.freedom for one in known)
    return Spread(sum(one.variance * one.freedom for one in known) / freedom, freedom)
