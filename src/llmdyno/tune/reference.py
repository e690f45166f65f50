"""What trials are compared with: the baseline, measured as a trial is.

Search, race, proof, verdict and exports all ask here, so they never differ in it.
"""

import math
from collections.abc import Sequence

import msgspec

from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger


def reference_of(ledger: Ledger) -> Step | None:
    """Return the baseline as a trial is measured; None: it was not measured yet.

    Where trials ran at once it is what all lanes come to. Where a trial's load is the whole load it
    is the baseline itself.
    """
    if ledger.lanes:
        return of_lanes(baselines_in(ledger, ledger.lanes))
    return ledger.find("reference", 0) or ledger.find("baseline", 0)


def valued_reference_of(ledger: Ledger) -> Step | None:
    """Return the same; None also where the baseline or it has no value."""
    baseline = ledger.find("baseline", 0)
    if baseline is None or baseline.state != "measured" or baseline.value is None:
        return None
    reference = reference_of(ledger)
    assert reference is not None, "there is a baseline"
    return reference if reference.state == "measured" and reference.value is not None else None


def baselines_in(ledger: Ledger, lanes: Sequence[str]) -> list[Step]:
    """Return the last measurement of the baseline in each of these lanes."""
    last = {step.device: step for step in ledger.steps if step.phase == "reference"}
    return [last[name] for name in lanes]


def of_lanes(steps: Sequence[Step]) -> Step:
    """Return what lanes that are alike have measured of the baseline, as one step.

    Returns:
        The run that is nearest to the mean, with the geometric mean as its value. It meets the SLOs
        if it does so in half of the lanes; the run is one of those that say so.
    """
    value = mean(steps)
    known = [step.slo_met for step in steps if step.slo_met is not None]
    met = None if not known else 2 * sum(known) >= len(known)
    agreeing = [step for step in steps if step.slo_met is met]
    near = min(agreeing or steps, key=lambda step: abs((step.value or 0.0) - value))
    return msgspec.structs.replace(near, value=value, slo_met=met)


def mean(steps: Sequence[Step]) -> float:
    """Return the geometric mean of values, 0 if one is 0."""
    values = [step.value or 0.0 for step in steps]
    return math.prod(values) ** (1 / len(values)) if min(values) > 0 else 0.0
