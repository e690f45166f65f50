"""Whose fault a failure is: the config's, or the machine's.

A config that has never worked and fails is a result. One that has worked and fails is tried once
more. If it fails again, for a reason that only the machine can have, it is the machine's fault; for
any other reason the baseline is started once more, and tells: where it fails too, the machine is
broken; where it works, the config has died by itself. The same check is made after several trials
in a row that have failed. What a broken machine has let fail does not count.
"""

from collections.abc import Mapping, Sequence

from llmdyno.knobs import Knob, Value
from llmdyno.tune.candidates import same
from llmdyno.tune.entries import Phase, Step, key
from llmdyno.tune.ledger import Ledger

# A config that has worked does not get these by itself.
MACHINES = frozenset({"missing-library", "port-in-use", "model-not-found", "auth", "disk-full"})
_PROOF: tuple[Phase, ...] = ("best", "confirm")  # ablation.died() tells of the rest
_TRIALS_IN_A_ROW = 3  # failed, and the baseline is started to see whether it still works
_OF_THE_MACHINE = 2  # the same where the reason is most likely the machine


def has_worked(ledger: Ledger, config: Mapping[str, Value], knobs: Sequence[Knob]) -> bool:
    """Tell whether a config was measured before, in any phase."""
    return any(
        step.state in {"measured", "pruned"} and same(step.config, config, knobs)
        for step in ledger.steps
    )


def is_open(
    ledger: Ledger, step: Step, baseline: Mapping[str, Value], knobs: Sequence[Knob]
) -> bool:
    """Tell whether a step that failed is to be measured again when a study goes on.

    So is the baseline, and every config that has worked; unless it failed twice and the baseline
    worked after that. A baseline that failed first and worked when it was tried once more shows a
    machine that has mended: the config is tried a last time then, and a stop may come before that.
    """
    if step.state != "failed":
        return False
    if step.phase in {"baseline", "check"}:
        return True
    at = max(place for place, other in enumerate(ledger.steps) if other is step)
    worked = any(
        other.state in {"measured", "pruned"} and same(other.config, step.config, knobs)
        for other in ledger.steps[:at]
    )
    tries = len(ledger.tries(key(step)))
    settled = tries > 1 and any(
        other.state == "measured"
        and same(other.config, baseline, knobs)
        and (tries > 2 or len(ledger.tries(key(other))) == 1)
        for other in ledger.steps[at + 1 :]
    )
    return worked and not settled


def undecided(ledger: Ledger, knobs: Sequence[Knob]) -> list[Step]:
    """Return the failures of would-be winners that tell nothing yet: what failed is tried again.

    So it is between the first failure of what has worked and the baseline's run that judges it,
    which a stop may keep apart for days.
    """
    return [
        step
        for phase in _PROOF
        for step in ledger.of(phase)
        if is_open(ledger, step, ledger.spec.baseline, knobs)
    ]


def is_half(ledger: Ledger, step: Step, partner: Ledger | None = None) -> bool:
    """Tell whether a run of a pair is alone in a place where the study no longer is.

    Args:
        ledger: that has the run.
        step: the run.
        partner: of the other runs, if these stand in another ledger.
    """
    if step.phase not in {"confirm", "ablation"} or step.place == ledger.place:
        return False
    found = (
        one.find(step.phase, step.number ^ 1, step.contender)
        for one in (ledger, partner)
        if one is not None
    )
    other = next((one for one in found if one is not None), None)
    return other is None or other.state != "measured" or other.place != step.place


def failed_last(ledger: Ledger) -> list[Step]:
    """Return the steps that have failed since the last that was measured."""
    found: list[Step] = []
    for step in reversed(ledger.steps):
        if step.state == "failed":
            found.append(step)
        elif step.state != "predicted-infeasible":
            break
    return found[::-1]


def looks_broken(ledger: Ledger) -> bool:
    """Tell whether so many trials have failed in a row that the machine is to be checked."""
    failed = failed_last(ledger)
    likely = sum(step.failure_class in MACHINES for step in failed)
    return len(failed) >= _TRIALS_IN_A_ROW or likely >= _OF_THE_MACHINE
