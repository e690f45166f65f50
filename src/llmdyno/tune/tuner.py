"""The tuner: baseline → trials → best → confirmation → ablation → document.

`Tuner.run` reads like that sentence. Every config gets a fresh server; every step is in the ledger
before the next one begins, so that a study that is stopped, killed or crashed goes on with
`--resume`. Trials are compared at the largest number of users, with each other and with the
baseline measured as they are; the winner is measured against the baseline in interleaved pairs
(ABBA), because a machine drifts and a search that takes the best of many noisy numbers has taken
some luck with it: only the confirmation is believed.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from llmdyno import deploy, plugins, store, workload
from llmdyno.errors import ServerError, UsageError
from llmdyno.fronts import check_load
from llmdyno.knobs import Knob, Value, default, show
from llmdyno.load.progress import Progress
from llmdyno.machine import environment
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import read_stat
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load, Study
from llmdyno.store import BUNDLE, STUDY, SUMMARY
from llmdyno.tune import objectives
from llmdyno.tune.ledger import Began, Ledger, Phase, Step
from llmdyno.tune.measure import Measurement, measure
from llmdyno.tune.search import Search, space
from llmdyno.tune.study import study_document
from llmdyno.wire.exchange import Meter

# Configs that arithmetic refuses cost nothing and do not count as trials, up to so many times them.
_INFEASIBLE_FACTOR = 3
_ABLATION_BUDGET_SHARE = 0.8  # past this much of the budget, no ablation starts


class Narrator(msgspec.Struct, frozen=True, kw_only=True):
    """How a study tells a person what goes on."""

    says: Callable[[str], None]
    waits: Callable[[str], None]  # while a server starts
    shows: Callable[[str, Sequence[int]], Callable[[Progress, Meter], None]]  # a live display


class Tuner:
    """One study in one folder; making one checks it and writes nothing.

    Args:
        study: what is tuned.
        folder: of the study; an existing one is gone on with.
        narrator: who is told.

    Raises:
        UsageError: the study cannot be run as it is.
        StorageError: the folder holds a ledger that cannot be read.
    """

    def __init__(self, study: Study, folder: Path, narrator: Narrator) -> None:
        self._study = study
        self._folder = folder
        self._narrator = narrator
        objectives.check(study)
        self.subject = subject_of(study)
        self.knobs: tuple[Knob, ...] = (*self.subject.engine.knobs, *self.subject.front.knobs)
        self.subject.check(study.baseline)
        self.subject.check_served(study.baseline)
        workload.check(study.workload, study.load)
        check_load(self.subject.front, study.baseline, streams=True)
        self.subject.require_engine()
        self._space = space(
            self.knobs,
            only=study.search,
            allow_altered_output=study.allow_altered_output,
            baseline=study.baseline,
        )
        self._candidates = self._checked_candidates()
        self._ledger = Ledger(folder)
        self._began_s = self._spent_before_s = 0.0  # known when run() begins

    def run(self) -> dict[str, Any]:
        """Run the study, or what is left of it, and return its document.

        Raises:
            UsageError: another process runs it.
            ServerError: the baseline cannot be measured, or has no value of the objective.
            InterruptError: the user stopped it; study.json holds what there is.
            StorageError: results cannot be written.
        """
        store.make_folder(self._folder)
        with store.hold(self._folder):
            self._begin()
            try:
                baseline = self._baseline()
                reference = self._reference(baseline)
                self._search()
                best = self._best(reference)
                if best is not None:
                    self._confirm(baseline.config, best.config)
                    self._ablate(baseline.config, best.config)
            finally:
                document = study_document(self._folder, self._ledger, self.subject)
                document = write_study(self._folder, document, self.subject)
        return document

    # The steps.

    def _begin(self) -> None:
        self._began_s = monotonic()
        self._ledger = Ledger(self._folder)  # again, now that nobody else appends to it
        self._spent_before_s = sum(
            step.build_s + step.start_s + step.measure_s for step in self._ledger.steps
        )
        if self._ledger.began is None:
            self._ledger.append(
                Began(
                    study=self._folder.resolve().name,
                    spec=self._study,
                    environment=environment.describe(),
                    engine_version=self.subject.engine.version(),
                )
            )

    def _baseline(self) -> Step:
        self._narrator.says(
            "Baseline: the engine's own defaults."
            if not self._study.baseline
            else f"Baseline: {describe(self._study.baseline)}."
        )
        step = self._step("baseline", 0, self._study.baseline, self._study.load)
        if step.state != "measured":
            raise ServerError(
                step.failure_class or "died",
                f"the baseline cannot be measured ({step.failure_class}): {step.failure_why}",
            )
        objectives.require_value(self._study, step.value, of="the baseline", flag="--duration")
        return step

    def _reference(self, baseline: Step) -> Step:
        """Measure the baseline as a trial is measured, if that is another way.

        A server that has answered at fewer users before is warmer: its prefix cache knows more.
        """
        load = self._trial_load()
        begun = bool(self._ledger.of("trial"))  # by a version that knew no reference
        if load == self._study.load or (begun and self._ledger.find("reference", 0) is None):
            return baseline
        step = self._step("reference", 0, baseline.config, load)
        if step.state != "measured":
            return baseline
        objectives.require_value(
            self._study, step.value, of="the reference", flag="--trial-duration"
        )
        return step

    def _search(self) -> None:
        study = self._study
        searched_names = {knob.name for knob in self._space}
        search = Search(
            self._space,
            trials=study.trials,
            maximise=study.objective.maximise,
            seed=study.seed,
            # What the user set and we do not search holds for every trial.
            fixed={k: v for k, v in study.baseline.items() if k not in searched_names},
        )
        names = ", ".join(knob.name for knob in self._space)
        given = f", the first {len(self._candidates)} of them given" if self._candidates else ""
        self._narrator.says(
            f"Search over {names}: {study.trials} trials at {study.level} users{given}."
        )
        tried: list[Step] = []
        while not self._enough(tried):
            new = self._ledger.find("trial", len(tried)) is None
            if new and self._over_budget(1.0):
                self._narrator.says("The budget is used up; no further trials.")
                return
            config = self._next(search, tried)
            if config is None:
                self._narrator.says("Every config that the search can think of has been tried.")
                return
            step = self._step("trial", len(tried), config, self._trial_load())
            if step.config != config:  # done before a stop, by another version of the search
                search.give(step.config)
            search.tell(step.value, self._excess(step))
            tried.append(step)

    def _next(self, search: Search, tried: Sequence[Step]) -> Mapping[str, Value] | None:
        """Return the next trial's config: a candidate while there are any, then the search's."""
        if len(tried) < len(self._candidates):
            config = self._candidates[len(tried)]
            search.give(config)
            return config
        return search.ask([self._study.baseline, *(step.config for step in tried)])

    def _checked_candidates(self) -> list[dict[str, Value]]:
        """Return the candidates over the baseline, as the search would write them.

        Raises:
            UsageError: one cannot be served, may change the tokens, or is nothing new.
        """
        searched = {knob.name for knob in self._space}
        found: list[dict[str, Value]] = []
        before = effective(self._study.baseline, self.knobs)
        seen = {"the baseline": before}
        for number, settings in enumerate(self._study.candidates, 1):
            name = f"candidate {number}"
            config = {**self._study.baseline, **settings}
            try:
                self.subject.check(config)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
            takes_effect = effective(config, self.knobs)
            self._refuse_altered_output(name, config, changed(before, takes_effect))
            for other, known in seen.items():
                if takes_effect == known:
                    what = describe(settings) if settings else "no knob set"
                    raise UsageError(
                        f"{name}: {what} is {other} again; leave it out, or set something else."
                    )
            seen[name] = takes_effect
            kept = {*takes_effect, *(self._study.baseline.keys() - searched)}
            found.append({knob: value for knob, value in config.items() if knob in kept})
        return found

    def _refuse_altered_output(
        self, name: str, config: Mapping[str, Value], touched: Sequence[str]
    ) -> None:
        altering = {knob.name for knob in self.knobs if knob.alters_output}
        for knob in touched:
            if knob in altering and not self._study.allow_altered_output:
                value = show(config.get(knob))
                raise UsageError(
                    f"{name}: {knob}={value} may change the tokens; set allow_altered_output = true"
                    f" or leave {knob} out."
                )

    def _enough(self, tried: Sequence[Step]) -> bool:
        started = sum(step.state != "predicted-infeasible" for step in tried)
        return started >= self._study.trials or len(tried) >= (
            _INFEASIBLE_FACTOR * self._study.trials
        )

    def _best(self, reference: Step) -> Step | None:
        """Measure the best config at every number of users; if it fails there, the next best.

        None: nothing that was tried and holds beats the baseline.
        """
        for number, candidate in enumerate(self._better_than(reference)):
            step = self._step("best", number, candidate.config, self._study.load)
            if step.state == "measured":
                return step
        return None

    def _better_than(self, reference: Step) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values.
        """
        sign = 1.0 if self._study.objective.maximise else -1.0

        def rank(step: Step) -> tuple[bool, float]:
            return step.slo_met is not False, sign * (step.value or 0.0)

        measured = [
            step
            for step in self._ledger.of("trial")
            if step.state == "measured" and step.value is not None and rank(step) > rank(reference)
        ]
        return sorted(measured, key=rank, reverse=True)

    def _confirm(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Measure both configs in turn, A B B A …, each time on a fresh server."""
        self._narrator.says(f"Confirmation: {self._study.pairs} interleaved pairs.")
        for pair in range(self._study.pairs):
            arms = (before, after) if pair % 2 == 0 else (after, before)
            for place, config in enumerate(arms):
                self._step("confirm", 2 * pair + place, config, self._trial_load(confirm=True))

    def _ablate(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Take back one changed knob at a time, each time beside a fresh run of the winner."""
        load = self._trial_load(confirm=True)
        for number, name in enumerate(changed(before, after)):
            if self._over_budget(_ABLATION_BUDGET_SHARE):
                self._narrator.says("The budget is nearly used up; the ablation ends here.")
                return
            config = self._without(name, before, after)
            if config is not None:
                for place, arm in enumerate((config, after)):
                    self._step("ablation", 2 * number + place, arm, load, knob=name)

    def _without(
        self, name: str, before: Mapping[str, Value], after: Mapping[str, Value]
    ) -> dict[str, Value] | None:
        """Return the winner with one knob as it was, or None if that cannot be served."""
        config = {knob: value for knob, value in after.items() if knob != name}
        if name in before:
            config[name] = before[name]
        dependents = {knob.name for knob in self.knobs if knob.needs and knob.needs[0] == name}
        config = {knob: value for knob, value in config.items() if knob not in dependents}
        try:
            self.subject.check(config)
        except UsageError:
            return None
        return config

    def _step(
        self,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        load: Load,
        *,
        knob: str = "",
    ) -> Step:
        """Measure one config, unless the ledger has it already."""
        done = self._ledger.find(phase, number)
        if done is not None and not (phase == "baseline" and done.state == "failed"):
            return done
        label = phase if phase in {"baseline", "reference"} else f"{phase} {number + 1}"
        measurement = self._measure(label, config, load)
        step = self._as_step(measurement, phase, number, config, knob)
        self._ledger.append(step)
        self._narrator.says(f"  {label}: {self._outcome(step)}  {describe(config)}")
        return step

    def _measure(self, label: str, config: Mapping[str, Value], load: Load) -> Measurement:
        try:
            self.subject.check(config)
        except UsageError as error:
            return Measurement(failure_class="predicted-infeasible", failure_why=str(error))
        folder = self._folder / "runs" / store.new_id(label)
        measurement = measure(
            self.subject,
            config,
            workload=self._study.workload,
            load=load,
            slos=self._study.slos,
            hang_s=self._study.hang_s,
            warmup_s=self._study.warmup_s,
            folder=folder,
            calibration=label == "baseline",  # the machine is one for the whole study
            shows=self._narrator.shows(label, load.users),
            says=self._narrator.waits,
        )
        return msgspec.structs.replace(measurement, folder=str(folder.relative_to(self._folder)))

    def _as_step(
        self,
        measurement: Measurement,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        knob: str,
    ) -> Step:
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
            )
        level = measurement.summary["levels"][-1]
        objective = self._study.objective
        at_level = [
            verdict["met"]
            for verdict in measurement.summary["slo"]
            if verdict["level"] == self._study.level
        ]
        return Step(
            phase=phase,
            number=number,
            config=dict(config),
            state="measured",
            run=measurement.folder,
            value=read_stat(level, objective.metric, objective.stat),
            slo_met=all(at_level) if at_level else None,
            build_s=round(measurement.build_s, 3),
            start_s=round(measurement.start_s, 3),
            measure_s=round(measurement.measure_s, 3),
            knob=knob,
        )

    def _trial_load(self, *, confirm: bool = False) -> Load:
        """Return the load of a trial: the largest number of users only, and a shorter run."""
        load = self._study.load
        return msgspec.structs.replace(
            load,
            users=(self._study.level,),
            duration_s=load.duration_s if confirm else self._study.trial_duration_s,
        )

    def _excess(self, step: Step) -> dict[str, float]:
        """Return by how much each SLO was missed, as a share of its limit."""
        if step.state != "measured":
            return {}
        level = store.read_json(self._folder / step.run / SUMMARY)["levels"][-1]
        excess = {}
        for slo in self._study.slos:
            value = read_stat(level, slo.metric, slo.stat)
            if value is None:
                excess[slo.expr] = 1.0
            else:
                over = (value - slo.limit) / slo.limit if slo.limit else value
                excess[slo.expr] = over if slo.relation == "<" else -over
        return excess

    def _over_budget(self, share: float) -> bool:
        budget_s = self._study.budget_s
        if budget_s is None:
            return False
        return self._spent_before_s + monotonic() - self._began_s > share * budget_s

    def _outcome(self, step: Step) -> str:
        if step.state != "measured":
            return f"{step.failure_class}: {step.failure_why}"
        objective = self._study.objective
        unit = BY_NAME[objective.metric].unit
        value = "no value" if step.value is None else f"{step.value:,.4g} {unit}"
        missed = ", SLO missed" if step.slo_met is False else ""
        return f"{objective} {value}{missed}"


def changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    """Return the knobs that two configs set differently, in the order of `after`."""
    names = dict.fromkeys((*after, *before))
    return [name for name in names if before.get(name) != after.get(name)]


def effective(config: Mapping[str, Value], knobs: Sequence[Knob]) -> dict[str, Value]:
    """Return a config without the values that the engine has by itself."""
    defaults = {knob.name: default(knob, None) for knob in knobs}
    return {name: value for name, value in config.items() if value != defaults[name]}


def describe(config: Mapping[str, Value]) -> str:
    """Write a config in a line."""
    return ", ".join(f"{name}={show(value)}" for name, value in config.items()) or "all defaults"


def write_study(folder: Path, document: Mapping[str, Any], subject: Stack) -> dict[str, Any]:
    """Write a study's document, and what serves its winner elsewhere, into a folder.

    Returns:
        The document as written; "bundle" is the path of the bundle, null without a winner.

    Raises:
        ServerError: what is needed to write the front's files cannot be installed.
        StorageError: a file cannot be written.
    """
    written = {**document, "bundle": None}
    try:
        if document["best"] is not None:
            place = folder / BUNDLE
            config = document["best"]["config"]
            deploy.write(place, subject, config, study=document, notify=lambda _: None)
            written["bundle"] = str(place)
    finally:  # the document must not be lost to a bundle that cannot be written
        store.write_json(folder / STUDY, written)
    return written


def subject_of(study: Study) -> Stack:
    """Return what a study tunes."""
    return Stack(
        engine=plugins.load("engines", study.engine),
        front=plugins.load("fronts", study.front),
        model=study.model,
    )


def open_study(folder: Path) -> Study:
    """Return the spec of a study that is to be gone on with.

    Raises:
        UsageError: there is no study in that folder.
    """
    began = Ledger(folder).began if folder.is_dir() else None
    if began is None:
        raise UsageError(f"{folder}: holds no study; `dyno runs` lists them.")
    return began.spec
