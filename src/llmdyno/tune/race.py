"""A trial races the best that was measured before it: once it cannot win any more, it is ended.

What is watched while it runs are the same counts as on the terminal. What they may still come to,
`results/racing.py` says. A race is lost in two ways: the objective cannot reach the best value any
more, or an SLO is missed that another config meets. What has no bound before a run's end (a largest
value, gaps between tokens, energy) ends no trial.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec

from llmdyno.load.progress import Progress
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.racing import looks_s, luck, value_to_reach
from llmdyno.results.slo import Slo
from llmdyno.results.stats import Spread
from llmdyno.results.wording import short
from llmdyno.spec import Load
from llmdyno.tune.entries import Step
from llmdyno.tune.goals import Goal, goal
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import noise_so_far
from llmdyno.tune.reference import reference_of
from llmdyno.tune.spec import Study
from llmdyno.tune.summaries import last_level
from llmdyno.wire.exchange import Meter

# Statistics of a latency whose error within a run is known. How lucky the best p99 was, is not.
_KNOWN = {"mean", "p50"}
_WIDTH95 = 2 * 1.96  # of an interval, in errors


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Why a trial was ended, and between what its objective lies."""

    why: str
    interval: tuple[float, float] | None  # in the objective's unit; None: nothing tells it


class Race:
    """One trial's run, as it is watched.

    Args:
        objective: what its objective must reach; None: it has no bound, or no rival.
        slos: what else it must reach.
        load: of the trial.
    """

    def __init__(self, objective: Goal | None, slos: Sequence[Goal], load: Load) -> None:
        self._objective = objective
        self._goals = [one for one in (objective, *slos) if one is not None]
        self._looks_s = looks_s(load.effective_ramp_s, load.duration_s)
        self._began_s: float | None = None
        self._completed = 0  # requests that the goals know of
        self.lost: Lost | None = None

    def look(self, progress: Progress, meter: Meter) -> None:
        """Take what has come so far, and judge it at the moments that are fixed for it."""
        now_s = monotonic()
        if self._began_s is None:
            if not progress.elapsed_s:
                return
            # The display's own clock ticks once a second only. A moment too early or too late
            # changes no rate.
            self._began_s = now_s - progress.elapsed_s
        self.take(now_s - self._began_s, progress, meter)

    def take(self, at_s: float, progress: Progress, meter: Meter) -> None:
        """Do what look() does, at a time since the run began."""
        new = min(progress.completed - self._completed, len(progress.recent))
        self._completed = progress.completed
        records = list(progress.recent)[len(progress.recent) - new :]
        for one in self._goals:
            one.take(at_s, progress, meter, records)
        if self.lost is None and self._looks_s and at_s >= self._looks_s[0]:
            self._looks_s = [look_s for look_s in self._looks_s if look_s > at_s]
            self.lost = self._judged(at_s)

    def _judged(self, at_s: float) -> Lost | None:
        for one in self._goals:
            bound = one.bound()
            why = one.missed(bound) if bound is not None else ""
            if why:
                return Lost(why=f"ended after {at_s:.0f} s: {why}", interval=self._interval())
        return None

    def _interval(self) -> tuple[float, float] | None:
        bound = None if self._objective is None else self._objective.bound()
        return None if self._objective is None or bound is None else self._objective.interval(bound)


def race(study: Study, ledger: Ledger, folder: Path, load: Load) -> Race | None:
    """Return the race of a trial against all that was measured; None: nothing can end it early.

    Args:
        study: what is tuned.
        ledger: of the study.
        folder: of the study.
        load: of the trial.
    """
    if not may_end(study, load):
        return None
    # A run on a part of the machine races those on a part of it.
    rivals = [one for one in _rivals(ledger) if bool(one.device) == (study.parallel > 1)]
    if not rivals:
        return None
    noise = noise_so_far(ledger, across_lanes=True)
    slos = [_of_slo(slo, study, noise, load) for slo in study.slos]
    objective = _of_objective(study, folder, rivals, noise, load)
    found = [one for one in slos if one is not None]
    return Race(objective, found, load) if objective is not None or found else None


def may_end(study: Study, load: Load) -> bool:
    """Tell whether a trial with this load may be ended early at all.

    How often the bounds err was measured under users alone, so an open loop goes on to its end.
    """
    return study.race and not (load.is_open or load.ends_by_count) and len(load.points) == 1


def _rivals(ledger: Ledger) -> list[Step]:
    """Return what a trial is compared with: runs as long as its own, that meet the SLOs."""
    reference = reference_of(ledger)
    steps = [*ledger.of("trial"), *([reference] if reference is not None else [])]
    return [
        step
        for step in steps
        if step.state == "measured"
        and step.slo_met is not False
        and step.place == ledger.place
        and step.value is not None
        and step.value > 0
    ]


def _of_objective(
    study: Study, folder: Path, rivals: Sequence[Step], noise: Spread, load: Load
) -> Goal | None:
    asked = study.objective
    if BY_NAME[asked.metric].rate is None and asked.stat not in _KNOWN:
        return None
    sign = 1.0 if asked.maximise else -1.0
    best = max(rivals, key=lambda step: sign * (step.value or 0.0))
    limit = value_to_reach(
        [step.value for step in rivals if step.value is not None],
        noise,
        maximise=asked.maximise,
        error=_error(study, folder, best),
    )
    assert best.value is not None, "rivals have values"
    beside = f", the best so far {short(best.value)}"
    return goal(asked.metric, asked.stat, limit, beside, load, study.price_per_h)


def _of_slo(slo: Slo, study: Study, noise: Spread, load: Load) -> Goal | None:
    """Return an SLO as a goal that a run which meets it on another start cannot miss."""
    limit = slo.limit * luck(1, noise) ** (1.0 if slo.relation == "<" else -1.0)
    beside = f", so {slo.expr} is missed"
    return goal(slo.metric, slo.stat, limit, beside, load, study.price_per_h)


def _error(study: Study, folder: Path, step: Step) -> float:
    """Return the error of the logarithm of a run's value; 0: its run does not tell."""
    level = last_level(folder, step)
    if level is None:
        return 0.0
    values = level.get(study.objective.metric) or {}
    low, high = values.get("ci95") or values.get("p50_ci95") or (0.0, 0.0)
    return math.log(high / low) / _WIDTH95 if low > 0 else 0.0
