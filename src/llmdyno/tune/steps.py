"""What of a measurement stands in the ledger, and what the search and a person are told of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdyno.knobs import Value
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import judge, read_stat
from llmdyno.results.wording import short
from llmdyno.tune.entries import Phase, Step
from llmdyno.tune.spec import Study
from llmdyno.tune.summaries import last_level

if TYPE_CHECKING:  # it brings the load generator with it, which readers of a study do without
    from llmdyno.tune.measure import Measurement

# The bound of a race is so many errors from the value: one look has a risk of 1 in 800.
_ERRORS = 4.0
_ERROR = 0.15  # where there is no such bound, and at most


def as_step(
    study: Study,
    measurement: "Measurement",
    phase: Phase,
    number: int,
    config: Mapping[str, Value],
    knob: str,
) -> Step:
    """Return the ledger's entry of a measurement; times are rounded to milliseconds."""
    if measurement.summary is None:
        infeasible = measurement.failure_class == "predicted-infeasible"
        return Step(
            phase=phase,
            number=number,
            config=dict(config),
            state="predicted-infeasible" if infeasible else "failed",
            run=measurement.folder,
            failure_class=measurement.failure_class,
            failure_why=measurement.failure_why,
            build_s=round(measurement.build_s, 3),
            start_s=round(measurement.start_s, 3),
            measure_s=round(measurement.measure_s, 3),
            knob=knob,
            dropped_s=round(measurement.dropped_s, 3),
            stood_s=round(measurement.stood_s, 3),
        )
    level = measurement.summary["levels"][-1]
    objective, lost = study.objective, measurement.lost
    at_level = [
        verdict["met"]
        for verdict in measurement.summary["slo"]
        if study.load.has_own_times or verdict["level"] == study.level
    ]
    return Step(
        phase=phase,
        number=number,
        config=dict(config),
        state="measured" if lost is None else "pruned",
        run=measurement.folder,
        value=read_stat(level, objective.metric, objective.stat),
        interval=None if lost is None else lost.interval,
        pruned_why="" if lost is None else lost.why,
        slo_met=all(at_level) if at_level else None,
        build_s=round(measurement.build_s, 3),
        start_s=round(measurement.start_s, 3),
        measure_s=round(measurement.measure_s, 3),
        knob=knob,
        dropped_s=round(measurement.dropped_s, 3),
        stood_s=round(measurement.stood_s, 3),
    )


def error_of(step: Step, *, maximise: bool) -> float:
    """Return the error of the logarithm of what a pruned trial was worth when it was ended.

    Only the bound to the better side counts: the other one allows for a trend downwards.
    """
    if step.interval is None or step.value is None or min(step.value, *step.interval) <= 0:
        return _ERROR
    best = step.interval[1] if maximise else step.interval[0]
    return min(_ERROR, abs(math.log(best / step.value)) / _ERRORS)


def excess(study: Study, folder: Path, step: Step) -> dict[str, float]:
    """Return by how much each SLO was missed, as a share of its limit; below 0, it was met.

    Args:
        study: whose SLOs they are.
        folder: of the study.
        step: which config; one that does not work has none. Of a run whose folder is gone it is
            known whether it met them, not by how much: 1 as a whole, or 0.
    """
    if step.state not in {"measured", "pruned"} or not study.slos:
        return {}
    level = last_level(folder, step)
    if level is None:
        return {slo.expr: 1.0 if step.slo_met is False else 0.0 for slo in study.slos}
    return excess_at(study, level)


def excess_at(study: Study, level: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much a level of a summary misses each SLO, as excess() does."""
    missed_by = {}
    for slo in study.slos:
        judged = judge(slo, level)
        value = judged.value if judged.at_least is None else judged.at_least
        if value is None:
            missed_by[slo.expr] = 1.0
        elif judged.at_least is not None and value <= slo.limit:
            missed_by[slo.expr] = 1.0  # beyond all that was seen, and not shown to be met
        else:
            over = (value - slo.limit) / slo.limit if slo.limit else value
            over = over if slo.relation == "<" else -over
            # By a value that meets it, it is missed for the requests that failed.
            missed_by[slo.expr] = over if judged.failed_share is None else 1.0
    return missed_by


def outcome(study: Study, step: Step) -> str:
    """Say what came of a config: its value, why it was ended early, or why it has no value."""
    if step.state == "pruned":
        return step.pruned_why
    if step.state != "measured":
        return f"{step.failure_class}: {step.failure_why}"
    missed = ", SLO missed" if step.slo_met is False else ""
    return f"{_value(study, step)}{missed}"


def account(study: Study, step: Step, config: str) -> str:
    """Return the same with the config, as a person reads it: a long reason has its own lines.

    Args:
        study: whose step it is.
        step: what was done.
        config: of the step, in words.
    """
    if step.state == "measured":
        return f"{outcome(study, step)}  {config}"
    came = f"pruned, {_value(study, step)} so far" if step.state == "pruned" else "failed"
    if step.state == "predicted-infeasible":
        came = "not started"
    reasons = [line.strip() for line in outcome(study, step).splitlines()]
    return "\n    ".join([f"{came}  {config}", *reasons])


def _value(study: Study, step: Step) -> str:
    objective = study.objective
    unit = BY_NAME[objective.metric].unit
    value = "no value" if step.value is None else f"{short(step.value)} {unit}"
    return f"{objective} {value}"
