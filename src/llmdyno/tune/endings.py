"""How a study ended: what it tried, whether it was stopped, who meets the SLOs."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llmdyno.knobs import Knob, Value
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import judge
from llmdyno.results.verdicts import judged, slo_met
from llmdyno.tune import going_on
from llmdyno.tune.candidates import same
from llmdyno.tune.entries import Step, key
from llmdyno.tune.ledger import Ledger, reopens
from llmdyno.tune.reference import reference_of
from llmdyno.tune.rejected import has_its_pairs
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import excess_at
from llmdyno.tune.summaries import last_level

# Configs that are refused before a server starts cost nothing. They do not count as trials, up to
# so many times the number of trials.
INFEASIBLE_FACTOR = 3

# What a config may come to because others run beside it: they share memory, CPU and disk.
_OF_NEIGHBOURS = frozenset({"out-of-memory", "port-in-use", "disk-full", "start-timeout", "hung"})

State = Literal["stopped", "unfinished", "nothing tried", "nothing better", "rejected", "confirmed"]


def rank(study: Study, step: Step) -> tuple[bool, float]:
    """Return by what configs are put in order: one that meets the SLOs first, then the value."""
    sign = 1.0 if study.objective.maximise else -1.0
    return step.slo_met is not False, sign * (step.value or 0.0)


def is_left(
    ledger: Ledger,
    knobs: Sequence[Knob],
    *,
    rivals: Sequence[Step] = (),
    refused: Sequence[Mapping[str, Value]] = (),
    undecided: Collection[str] = (),
) -> bool:
    """Tell whether a config that did better than the baseline is still to be confirmed.

    Args:
        ledger: of the study.
        knobs: of what is tuned.
        rivals: the baselines of other engines.
        refused: configs that may not win, by their answers.
        undecided: the runs that failed and are to be tried again.
    """
    reference = reference_of(ledger)
    if reference is None or reference.value is None or ledger.settled:
        return False
    study = ledger.spec
    known = [_stacked(step) for step in ledger.of("best") if step.run not in undecided]

    def is_baseline(step: Step) -> bool:
        alike = (step.engine, step.front) == (reference.engine, reference.front)
        return alike and same(step.config, study.baseline, knobs)

    return any(
        step.state == "measured"
        and step.value is not None
        and rank(study, step) > rank(study, reference)
        and not is_baseline(step)
        and step.config not in refused
        and _stacked(step) not in known
        for step in (*ledger.of("trial"), *rivals)
    )


def _stacked(step: Step) -> tuple[str, str, dict[str, Value]]:
    return step.engine, step.front, step.config


def enough(tried: int, infeasible: int, trials: int) -> bool:
    """Tell whether a study has had its trials, of which some were refused before a start."""
    return tried - infeasible >= trials or tried >= INFEASIBLE_FACTOR * trials


def searched(ledger: Ledger) -> bool:
    """Tell whether the search came to its end with something that works, and nothing better."""
    works = {"measured", "pruned"}
    return _trials_over(ledger) and any(s.state in works for s in ledger.of("trial"))


def _trials_over(ledger: Ledger) -> bool:
    return ledger.stopped is None and _had_enough(ledger, ledger.spec)


def _had_enough(ledger: Ledger, study: Study) -> bool:
    trials = ledger.of("trial")
    infeasible = sum(step.state == "predicted-infeasible" for step in trials)
    return enough(len(trials), infeasible, study.trials) or ledger.last_end is not None


def trials_left(ledger: Ledger, study: Study) -> bool:
    """Tell whether a study with trials beside each other has one to begin or to measure again.

    Args:
        ledger: of the study.
        study: as it goes on; it may ask for more than the ledger knows yet.
    """
    if ledger.began is None or reopens(going_on.changes(ledger, study)):
        return True
    return not _had_enough(ledger, study) or bool(ledger.out or to_measure_again(ledger))


def to_measure_again(ledger: Ledger) -> list[Step]:
    """Return the trials whose failures may be the doing of what ran beside; not what was given up.

    What was begun again already is not among them.
    """
    begun = {out.number for out in ledger.out}
    return [
        step
        for step in ledger.of("trial")
        if is_doubtful(step) and key(step) not in ledger.withdrawn and step.number not in begun
    ]


def is_doubtful(step: Step) -> bool:
    """Tell whether a failure may be the doing of what ran beside."""
    return step.state == "failed" and step.beside > 0 and step.failure_class in _OF_NEIGHBOURS


def is_tie(document: Mapping[str, Any], best: Step) -> bool:
    """Tell whether a would-be winner is no better than the baseline, which is the best then.

    Nothing that promised less is looked at after it.

    Args:
        document: the study's, as it stands.
        best: the would-be winner.
    """
    found = document["confirmation"]
    stack = (found.get("engine", ""), found.get("front", ""))
    of_it = found["config"] == best.config and stack == (best.engine, best.front)
    return bool((found["shown_equal"] or found["no_better"]) and of_it)


def of(
    folder: Path,
    ledger: Ledger,
    confirmation: Mapping[str, Any],
    *,
    best: Step | None,
    left: bool = False,
) -> dict[str, Any]:
    """Return what study.json says of the study's end.

    Args:
        folder: of the study.
        ledger: of the study.
        confirmation: of the winner.
        best: the config that stands, as it has not been rejected, though it may be no better than
            the baseline; None: there is none.
        left: whether one is still to be confirmed.
    """
    stopped = ledger.stopped
    trials = ledger.of("trial")
    infeasible = sum(step.state == "predicted-infeasible" for step in trials)
    started = len(trials) - infeasible
    end = ledger.last_end
    return {
        "stopped": stopped and {"class": stopped.failure_class, "why": stopped.why},
        "outcome": {
            "state": _state(ledger, confirmation, best=best, left=left),
            "tried": started,
            "measured": sum(step.state == "measured" for step in trials),
            "pruned": sum(step.state == "pruned" for step in trials),
            "trials": ledger.spec.trials,
            "ended_by": end and end.why,
            "expected_gain": end and end.gain,
        },
        "slo_outcome": _slo_outcome(folder, ledger, confirmation),
        "moves": [event.why for event in ledger.events if event.kind == "moved"],
        "withdrawn": withdrawn(ledger),
        "beside": [event.why for event in ledger.events if event.kind == "beside"],
    }


def withdrawn(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the trials that were begun, or were to be measured once more, and were not."""
    found = []
    for of, why in sorted(ledger.withdrawn.items()):
        tries = ledger.tries(of)
        one = tries[-1] if tries else ledger.begun(of)
        if one is None:  # its line was damaged and left out
            continue
        failed = tries[-1].failure_class if tries else None
        found.append({"id": one.number + 1, "config": one.config, "why": why, "failed": failed})
    return found


def _state(
    ledger: Ledger, confirmation: Mapping[str, Any], *, best: Step | None, left: bool
) -> State:
    if ledger.stopped is not None:
        return "stopped"
    baseline = ledger.find("baseline", 0)
    if baseline is None or baseline.state != "measured":
        return "unfinished"
    if best is not None:
        whole = has_its_pairs(ledger, best.contender, confirmation["pairs"])
        return "confirmed" if whole else "unfinished"
    if left or not _trials_over(ledger):
        return "unfinished"
    if all(step.state == "predicted-infeasible" for step in ledger.of("trial")):
        return "nothing tried"
    return "rejected" if ledger.of("best") else "nothing better"


def _slo_outcome(
    folder: Path, ledger: Ledger, confirmation: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return who meets the SLOs: runs of the confirmation by arm, and the nearest if nobody does.

    None without an SLO, and before anything was measured.
    """
    study = ledger.spec
    of_baseline = reference_of(ledger)
    steps = [
        step
        for step in (of_baseline, *ledger.of("trial"))
        if step is not None and step.state == "measured" and step.slo_met is not None
    ]
    if not study.slos or not steps:
        return None
    before, after = slo_met(judged(confirmation))
    full = _fullest(ledger, steps)
    # Whatever met them in one run did so, in a trial, in full or in the pairs.
    met = any(step.slo_met for step in (*steps, *full)) or any(before + after)
    in_full = [bool(f.slo_met) for f, s in zip(full, steps, strict=True) if s.phase != "trial"]
    baseline_meets = before or in_full
    meets = bool(baseline_meets) and all(baseline_meets)  # "faster" goes by the same runs
    return {
        "baseline_meets": baseline_meets,
        "tuned_meets": after,
        "met_by_some": met,
        "faster": _faster_but_missing(study, steps, of_baseline) if meets else None,
        "nearest": None if met else _nearest(study, folder, full),
    }


def _fullest(ledger: Ledger, steps: Sequence[Step]) -> list[Step]:
    """Return steps, instead of each the run in full of the same config if there is one."""
    found = (*ledger.of("best"), *ledger.of("baseline"))
    full = [one for one in found if one.state == "measured" and one.slo_met is not None]
    return [next((f for f in full if _stacked(f) == _stacked(step)), step) for step in steps]


def _faster_but_missing(
    study: Study, steps: Sequence[Step], baseline: Step | None
) -> dict[str, Any] | None:
    """Return the trial with the best value of all that beat the baseline and miss its SLOs.

    None if there is none.
    """
    if baseline is None or baseline.value is None:
        return None
    sign = 1.0 if study.objective.maximise else -1.0
    missing = [one for one in steps if not one.slo_met and one.value is not None]
    best = max(missing, key=lambda step: sign * (step.value or 0.0), default=None)
    if best is None or sign * (best.value or 0.0) <= sign * baseline.value:
        return None
    return {"config": best.config, "value": best.value, "baseline": baseline.value}


def _distance(missed_by: Mapping[str, float]) -> float:
    """Return the product of how many times each SLO's limit is exceeded, as a logarithm."""
    return sum(math.log1p(max(0.0, over)) for over in missed_by.values())


def _nearest(study: Study, folder: Path, steps: Sequence[Step]) -> dict[str, Any] | None:
    """Return the config that misses its SLOs by least, by all that it misses together.

    By the one missed most alone, noise would choose: of two configs that miss ttft by as much, the
    one that meets tpot is nearer.
    """
    found: dict[str, Any] | None = None
    for step in steps:
        level = last_level(folder, step)
        if level is None:  # its folder is gone: it cannot be told how near it was
            continue
        missed_by = excess_at(study, level)
        if found is None or _distance(missed_by) < _distance(found["missed_by"]):
            values = {slo.expr: judge(slo, level) for slo in study.slos}
            found = {
                "config": step.config,
                "missed_by": missed_by,
                "values": {
                    expr: judged.at_least if judged.value is None else judged.value
                    for expr, judged in values.items()
                },
                "units": {slo.expr: BY_NAME[slo.metric].unit for slo in study.slos},
            }
    return found
