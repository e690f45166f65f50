"""How far equal runs of a study lie apart, by what it has measured twice."""

import math
from collections.abc import Sequence

from llmdyno.results.pairs import PRIOR
from llmdyno.results.stats import Spread
from llmdyno.tune.ledger import Ledger


def spreads_before(ledger: Ledger, *, across_lanes: bool = False) -> list[Spread]:
    """Return the spread of each config that was measured twice before the confirmation.

    The baseline was in full and as a trial is, and so was the winner. Runs on different machines,
    of different versions of the engine, or on different parts of a machine are not equal.

    Args:
        ledger: of the study.
        across_lanes: whether runs in different lanes count as equal, as they do where trials of
            different lanes are compared.
    """
    values: dict[tuple[str, int, int, str], list[float]] = {}
    odd = _left_out(ledger)
    for step in ledger.steps:
        if (step.place, step.device) in odd:  # it was left out because it is unlike the others
            continue
        early = step.phase in {"baseline", "reference", "trial", "best"}
        if early and step.state == "measured" and step.value is not None and step.value > 0:
            # A run beside others, or on a part of the machine, is slower: that is no noise.
            where = "a lane" if step.device and across_lanes else step.device
            alike = (repr(sorted(step.config.items())), step.place, step.beside, where)
            values.setdefault(alike, []).append(step.value)
    return [_spread([math.log(one) for one in same]) for same in values.values() if len(same) > 1]


def _left_out(ledger: Ledger) -> set[tuple[int, str]]:
    """Return the parts of a machine that were left out, each with the place where it was."""
    found, place = set(), 0
    for event in ledger.events:
        place += event.kind == "moved"
        if event.kind == "lane":
            found |= {(place, name) for name in event.devices}
    return found


def _spread(logs: Sequence[float]) -> Spread:
    mean = sum(logs) / len(logs)
    return Spread(sum((one - mean) ** 2 for one in logs) / (len(logs) - 1), len(logs) - 1)


def noise_so_far(ledger: Ledger, *, across_lanes: bool = False) -> Spread:
    """Return how far equal runs lie apart, by the study and by what is believed before it.

    Args:
        ledger: of the study.
        across_lanes: as spreads_before() takes it.
    """
    known = [PRIOR, *spreads_before(ledger, across_lanes=across_lanes)]
    freedom = sum(one.freedom for one in known)
    return Spread(sum(one.variance * one.freedom for one in known) / freedom, freedom)
