"""Whose fault a failure is: the config's, or the machine's.

A config that has never worked and fails is a result. One that has worked and fails is tried once
more. If it fails again, for a reason that only the machine can have, it is the machine's fault; for
any other reason the baseline is started once more, and tells: where it fails too, the machine is
broken; where it works, the config has died by itself. The same check is made after several trials
in a row that have failed, and after one that has found no GPU, in its lane if it has one. What a
broken machine has let fail does not count. Nor do trials that failed beside a baseline that failed
at first and works again: they are measured once more.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from llmdyno.errors import ServerError
from llmdyno.knobs import Knob, Value
from llmdyno.machine.devices import shares
from llmdyno.processes.diagnosis import GPU, LIMIT
from llmdyno.tune import commands
from llmdyno.tune.candidates import same
from llmdyno.tune.entries import Event, Key, Phase, Step, key, label
from llmdyno.tune.ledger import Ledger

# A config that has worked does not get these by itself.
MACHINES = frozenset(
    {
        "missing-library",
        "driver-too-old",
        GPU,
        "port-in-use",
        "model-not-found",
        "auth",
        "disk-full",
        LIMIT,
    }
)
_PROOF: tuple[Phase, ...] = ("best", "confirm")  # ablation.died() tells of the rest
_TRIALS_IN_A_ROW = 3  # failed, and the baseline is started to see whether it still works
_OF_THE_MACHINE = 2  # the same where the reason is most likely the machine

# So often a trial is measured once more because the baseline had failed beside it. A baseline that
# fails now and then must not keep a study from its end.
_GIVEN_BACK_MAX = 2


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


def failed_there(ledger: Ledger, device: str) -> tuple[Key, ...]:
    """Return what has failed on a part of the machine since something was measured on it."""
    found: dict[Key, None] = {}
    works: set[str] = set()  # what has worked since
    for step in reversed(ledger.steps):
        if not shares(step.device, device) or step.device in works:
            continue
        if step.state == "failed":
            found[key(step)] = None
        else:
            works.add(step.device)
    return tuple(found)


def looks_broken(ledger: Ledger) -> bool:
    """Tell whether so many trials have failed in a row that the machine is to be checked."""
    failed = failed_last(ledger)
    # A lane's GPU tells of that lane alone, whose baseline is asked by itself.
    likely = [s for s in failed if s.failure_class in MACHINES and not (s.device and lacks_gpu(s))]
    return (
        len(failed) >= _TRIALS_IN_A_ROW
        or len(likely) >= _OF_THE_MACHINE
        or any(lacks_gpu(step) for step in likely)
    )


def lacks_gpu(step: Step) -> bool:
    """Tell whether a step failed as it found no GPU that works."""
    return step.failure_class == GPU


def stopped(ledger: Ledger, why: str, step: Step) -> ServerError:
    """Write down that the machine is at fault, not a config; return the fault that ends the study.

    What has failed since something was measured there does not count.

    Args:
        ledger: of the study.
        why: in a sentence.
        step: that failed last.
    """
    void = tuple(
        dict.fromkeys([*map(key, failed_last(ledger)), *failed_there(ledger, step.device)])
    )
    ledger.append(Event(kind="machine", why=why, failure_class=step.failure_class, void=void))
    return ServerError(
        step.failure_class or "died",
        f"the machine is at fault, not a config: {why} Mend it, and go on with:"
        f" {commands.resume(ledger.path.parent)}; what failed is measured again then.",
    )


def said(step: Step) -> str:
    """Return the class and the reason of a failure, on one line."""
    return f"({step.failure_class}): {' '.join((step.failure_why or '').split())}"


def is_suspect(ledger: Ledger) -> bool:
    """Tell whether the machine is to be checked before a further trial."""
    return looks_broken(ledger) and failed_last(ledger)[-1].phase == "trial"


def give_back(
    ledger: Ledger, knobs: Sequence[Knob], say: Callable[[str], None], *, by_lane: bool = False
) -> set[Key]:
    """Write down which trials failed with the machine, not by themselves, and tell it.

    They are void and are measured again, each so often at most.

    Args:
        ledger: of the study.
        knobs: of what is tuned.
        say: tells a person.
        by_lane: a trial without a GPU is given back once its own part of the machine has worked;
            else once anything has.

    Returns:
        Them.
    """
    known = len(ledger.events)
    beside = _failed_with_the_baseline(ledger, knobs)
    void = _give_back(ledger, beside, "the baseline failed beside them")
    if void:
        say(f"  The baseline had failed, too, so what failed before it is measured again: {void}.")
    lost = _failed_without_a_gpu(ledger, by_lane=by_lane)
    void = _give_back(ledger, lost, "they found no GPU that works")
    if void:
        say(f"  No config takes a GPU away; what failed for want of one is measured again: {void}.")
    return {of for event in ledger.events[known:] for of in event.void}


def _give_back(ledger: Ledger, found: Sequence[Step], why: str) -> str:
    """Write down that these trials are void, each so often at most; return their names."""
    times = Counter(of for event in ledger.events if event.kind == "mended" for of in event.void)
    void = tuple(dict.fromkeys(key(one) for one in found if times[key(one)] < _GIVEN_BACK_MAX))
    if void:
        ledger.append(Event(kind="mended", why=why, void=void))
    return ", ".join(label(phase, number) for phase, _, number in void)


def _failed_without_a_gpu(ledger: Ledger, *, by_lane: bool) -> list[Step]:
    """Return the trials that found no GPU, if something was measured since, or in their lane."""
    found = []
    works: set[str] = set()  # where something was measured since
    for step in reversed(ledger.steps):
        if step.state in {"measured", "pruned"}:
            works.add(step.device)
        elif step.phase == "trial" and step.state == "failed" and lacks_gpu(step):
            there = any(shares(step.device, one) for one in works) if by_lane else bool(works)
            if there and ledger.tries(key(step))[-1].state == "failed":
                found.append(step)
    return found[::-1]


def _failed_with_the_baseline(ledger: Ledger, knobs: Sequence[Knob]) -> list[Step]:
    """Return the trials that have failed since something was measured, if the baseline did, too.

    A baseline in a lane of its own tells of that lane alone.
    """
    rows: list[list[Step]] = [[]]  # of failures, between what was measured
    for step in ledger.steps:
        if step.state == "failed":
            rows[-1].append(step)
        elif step.state != "predicted-infeasible":
            rows.append([])
    baseline = ledger.spec.baseline
    return [
        step
        for row in rows
        if any(
            one.phase == "check" and not one.device and same(one.config, baseline, knobs)
            for one in row
        )
        for step in row
        if step.phase == "trial" and ledger.tries(key(step))[-1].state == "failed"
    ]
