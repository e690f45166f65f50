"""What befell the runs of a study, beside their values: for study.json and its doubts."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.knobs import Knob
from llmdyno.results import doubts, lost, verdicts
from llmdyno.results.lost import Requests
from llmdyno.results.pair_doubts import STOPPED
from llmdyno.results.shift import shift
from llmdyno.results.stats import significant
from llmdyno.tune.blame import MACHINES
from llmdyno.tune.candidates import same
from llmdyno.tune.entries import OUT_OF_BUDGET, Step, key
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.paired import Pair, value_runs
from llmdyno.tune.reference import baselines_in
from llmdyno.tune.summaries import summary_of


def befell(folder: Path, ledger: Ledger, step: Step) -> dict[str, Any]:
    """Return what befell a run: which process measured it, failures before it, its own doubts.

    Args:
        folder: of the study.
        ledger: of the study.
        step: the run's; of one that was not measured "requests" is null.
    """
    tries = [one for one in (*ledger.voided, *ledger.tries(key(step))) if key(one) == key(step)]
    level = _last_level(folder, step)
    requests = None if level is None else level["requests"]
    return {
        "sitting": step.sitting,
        # A try that was measured in another place, before the study moved, has not failed.
        "failed_before": [
            one.failure_class for one in tries if one is not step and one.state == "failed"
        ],
        "requests": requests and {name: requests[name] for name in ("completed", "failed")},
        "doubts": _codes(step, level),
        "answered_by": {} if level is None else level.get("answered_by", {}),
    }


def runs(
    folder: Path, ledger: Ledger, steps: Sequence[Step], arm_of: Callable[[Step], str]
) -> list[dict[str, Any]]:
    """Return the runs of a confirmation as study.json has them.

    Args:
        folder: of the study.
        ledger: of the study.
        steps: the confirmation's.
        arm_of: tells the arm of each, "before" or "after".
    """
    return [
        {
            "pair": step.number // 2,
            "arm": arm_of(step),
            "run": step.run,
            "value": step.value,
            "state": step.state,
            "slo_met": step.slo_met,
            "failure": step.failure_class,
            "place": step.place,
            **befell(folder, ledger, step),
            **stack_of(step),
        }
        for step in steps
    ]


def planned(ledger: Ledger, best: Step | None, pairs: int) -> dict[str, Any]:
    """Return how many pairs were asked for, and whether the budget ended them before.

    Args:
        ledger: of the study.
        best: the would-be winner; None: there is none.
        pairs: that were measured.
    """
    asked = ledger.spec.pairs if ledger.spec.pairs_fixed else None
    ended = best is not None and ledger.pairs_ended(best.contender) == OUT_OF_BUDGET
    short = ended and (asked is None or pairs < asked)
    return {"pairs_asked": asked, "pairs_ended_by": "budget" if short else None}


def baseline_before(ledger: Ledger, contender: int, arm_of: Callable[[Step], str]) -> list[bool]:
    """Return whether runs of the baseline met the SLOs in the pairs of earlier would-be winners.

    Near a limit the few runs of one confirmation say little of it. Only runs in the same place
    count, and none where they differ from those of this confirmation by more than chance: the
    machine has changed. Values are not pooled like this: only runs in turn with the winner's cancel
    drift (dev/LOG.md).

    Args:
        ledger: of the study.
        contender: the number of the would-be winner.
        arm_of: tells the arm of each step, "before" or "after".
    """
    runs = [
        step
        for step in ledger.of("confirm")
        if step.contender <= contender and step.state == "measured" and arm_of(step) == "before"
        if step.slo_met is not None
    ]
    own = [step for step in runs if step.contender == contender]
    places = {step.place for step in own}
    found = [
        bool(step.slo_met) for step in runs if step.contender < contender and step.place in places
    ]
    return found if verdicts.may_be_alike(found, [bool(step.slo_met) for step in own]) else []


def earlier(ledger: Ledger, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return how many pairs were measured before the study moved, and what has changed since.

    Args:
        ledger: of the study.
        pairs: of the confirmation, as paired.confirmed() returns them.
    """
    old = [pair.place for pair in pairs if pair.place < ledger.place]
    whys = [event.why for event in ledger.events if event.kind == "moved"]
    return {"earlier_pairs": len(old), "moved_since": whys[min(old) :] if old else []}


def shifted(
    ledger: Ledger, steps: Sequence[Step], arm_of: Callable[[Step], str]
) -> dict[str, Any] | None:
    """Return what the baseline comes to in the pairs ÷ before the trials; None: no change is shown.

    Where no run before was as those of the pairs, there are two on either side: one that was
    warmer, and one that was shorter. A change is shown where it is beside both, to the same side;
    the smaller one is told.

    Args:
        ledger: of the study.
        steps: of the confirmation.
        arm_of: tells the arm of each, "before" or "after".
    """
    firsts = _firsts_like_pairs(ledger)
    found = []
    for first in firsts:
        here = [
            msgspec.structs.replace(step, arm=arm_of(step))
            for step in steps
            if step.place == first.place
        ]
        assert first.value
        found.append(shift(math.log(first.value), value_runs(here)))
    shown = [one for one in found if one is not None]
    if not shown or len(shown) < len(found) or len({one.mean > 1 for one in shown}) > 1:
        return None
    least = min(shown, key=lambda one: abs(math.log(one.mean)))
    return {
        "mean": significant(least.mean),
        "ci95": [significant(bound) for bound in least.ci95],
    }


def _firsts_like_pairs(ledger: Ledger) -> list[Step]:
    """Return the baseline's run before the trials that had the pairs' load and all of the machine.

    A server that has run lower levels first is warmer, and so is one that runs longer: its prefix
    cache holds more, and it has compiled what it needs. Where there is no such run, but one that is
    warmer and one that is shorter, both are returned; without them none.
    """
    study = ledger.spec
    whole, reference = ledger.find("baseline", 0), ledger.find("reference", 0)
    if study.confirm_levels == "all" or len(study.load.points) == 1:
        firsts = [whole]
    elif study.trial_duration_s == study.load.duration_s:
        firsts = [reference]
    else:
        firsts = [whole, reference]
    if any(one is not None and one.device for one in firsts):  # a lane's has a part of the machine
        return []
    known = [one for one in firsts if one is not None and one.value and one.value > 0]
    return known if len(known) == len(firsts) else []


def stack_of(step: Step) -> dict[str, str]:
    """Return whose step it is, in a study over several engines or fronts; else nothing."""
    return {"engine": step.engine, "front": step.front} if step.engine else {}


def starts(ledger: Ledger, best: Step | None, knobs: Sequence[Knob]) -> dict[str, Any]:
    """Return how often each arm was started, whatever for, and how it failed; {} without a winner.

    What failed beside others may be their doing, and what a port, a full disk or a key fails by is
    the world's: neither counts.
    """
    arms = {"before": ledger.find("baseline", 0), "after": best}
    found = {}
    for arm, whose in arms.items():
        if best is None or whose is None:
            return {}
        made = [
            step
            for step in ledger.steps
            if step.state != "predicted-infeasible" and not step.beside
            if step.failure_class not in MACHINES
            if (step.engine, step.front) == (whose.engine, whose.front)
            if same(step.config, whose.config, knobs)
        ]
        failed = [step.failure_class for step in made if step.state == "failed"]
        found[arm] = {"made": len(made), "failed": failed}
    return found


def requests_of(folder: Path, step: Step) -> Requests:
    """Return what became of a run's requests at its last level; none if it is not known."""
    level = _last_level(folder, step)
    return Requests() if level is None else lost.of_level(level)


def codes(folder: Path, step: Step) -> list[str]:
    """Return the codes of a run's doubts: at its last level, and whether dyno was stopped in it."""
    return _codes(step, _last_level(folder, step))


def _codes(step: Step, level: Mapping[str, Any] | None) -> list[str]:
    return [*(level["codes"] if level else ()), *([STOPPED] if step.stood_s else ())]


def stood(ledger: Ledger, more: Sequence[Step] = ()) -> list[dict[str, Any]]:
    """Return the steps that count although dyno was stopped in them, as study.json has them.

    Args:
        ledger: of the study.
        more: steps that count, too, and are not in it: the baselines of other combinations.
    """
    lanes = ledger.lanes
    counting = [
        *ledger.of("baseline"),
        *(baselines_in(ledger, lanes) if lanes else ledger.of("reference")),
        *more,
        *(step for phase in ("trial", "best", "confirm", "ablation") for step in ledger.of(phase)),
    ]
    return [
        {
            "phase": step.phase,
            "id": step.number + 1,
            "device": step.device or None,
            "run": step.run,
            "stood_s": step.stood_s,
            **stack_of(step),
        }
        for step in counting
        if step.stood_s
    ]


def _last_level(folder: Path, step: Step) -> Mapping[str, Any] | None:
    """Return the level of a run that decides, with the codes of its doubts; None: it has none."""
    if step.state not in {"measured", "pruned"}:
        return None
    summary = summary_of(folder / step.run)
    if summary is None:  # its folder is gone
        return None
    level = summary["levels"][-1]
    loads = {level.get("users"), level.get("rate"), None}
    codes = dict.fromkeys(one.code for one in doubts.of(summary) if one.level in loads)
    return {**level, "codes": list(codes)}
